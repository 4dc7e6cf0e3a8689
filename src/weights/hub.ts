/**
 * A model's files on a hub that speaks Hugging Face's API. The hub lists them with their sizes and content ids, so that
 * nothing is asked for that is not there; each is answered by a redirect to a signed address on another host, which is
 * asked for anew whenever a download goes on.
 * API: https://huggingface.co/docs/hub/api, /api/models/{id}/tree/{revision}.
 */
import { MixdqError } from "../base/errors.ts";
import { readJson, type Json } from "../base/json.ts";
import type { HubAddress } from "./address.ts";
import type { FileVersion, RemoteFiles } from "./files.ts";
import { httpFiles } from "./http.ts";
import { Exchange, type HttpOptions } from "./httpExchange.ts";

/** A model has a few dozen files; a page of the list holds 1,000 or less. */
const MAX_FILES = 100_000;
const MAX_PAGES = 100;
const MAX_PAGE_CHARACTERS = 2 ** 24;

type FileTree = ReadonlyMap<string, FileVersion>;

/** Throws `network` where the hub refuses, with what helps: a licence to accept, a token to give. */
export function hubFiles(address: HubAddress, options: HttpOptions = {}): RemoteFiles {
  const { host, id, folder, token } = address;
  const revision = encodeURIComponent(address.revision);
  const below = folder === "" ? "" : `${folder}/`;
  const path = below.split("/").map(encodeURIComponent).join("/");
  const files = httpFiles(`${host}/${id}/resolve/${revision}/${path}`, { ...options, token });
  let listing: Promise<FileTree> | undefined;

  function list(signal: AbortSignal | undefined): Promise<FileTree> {
    listing ??= readTree(address, options, signal).catch((error: unknown) => {
      listing = undefined; // the next one may be luckier
      throw error;
    });
    return listing;
  }

  /** What the list says of a file, or undefined where it names none. */
  async function find(name: string, signal: AbortSignal | undefined): Promise<FileVersion | undefined> {
    return (await list(signal)).get(below + name);
  }

  /** Throws for a file that the list names and the hub does not give. */
  function given<T>(name: string, found: T | undefined): T | undefined {
    const refusal = found === undefined ? files.refusalOf!(name) : undefined;
    if (refusal === undefined) return found;
    throw refused(address, `${files.location}/${name}`, refusal);
  }

  const hub: RemoteFiles = {
    location: files.location,
    refusalOf: (name) => files.refusalOf!(name),
    size: async (name, signal) => (await find(name, signal))?.bytes,
    version: find,
    text: async (name, signal) => (await hub.textFile(name, signal))?.text,
    open: (name, signal) => hub.openFile(name, signal),

    async textFile(name, signal) {
      const version = await find(name, signal);
      const file = version && given(name, await files.textFile(name, signal));
      return file && { text: file.text, version };
    },

    async openFile(name, signal) {
      const version = await find(name, signal);
      const file = version && given(name, await files.openFile(name, signal));
      if (file === undefined) return undefined;
      if (file.bytes > 0 && file.bytes !== version!.bytes) {
        await file.body.cancel();
        const advice = "It is a Git LFS pointer, or the model changed meanwhile: load it again.";
        const message = `${files.location}/${name}: got ${file.bytes} bytes, expected ${version!.bytes} as the hub lists. ${advice}`;
        throw new MixdqError("integrity", message);
      }
      return { ...file, bytes: version!.bytes, version: version! };
    },

    // The list has said that it is the same content; hosts behind the hub may tag it in different ways.
    part: (name, part, signal) => files.part(name, { ...part, version: { ...part.version, tag: undefined } }, signal),
  };
  return hub;
}

/** All files of the repository, by path. */
async function readTree(address: HubAddress, options: HttpOptions, signal?: AbortSignal): Promise<FileTree> {
  const { host, id, revision, token } = address;
  const where = `${host}/${id}`;
  const files = new Map<string, FileVersion>();
  let next: string | undefined = `${host}/api/models/${id}/tree/${encodeURIComponent(revision)}?recursive=1`;
  for (let page = 0; next !== undefined; page++) {
    const url: string = next;
    const headers: Record<string, string> = token ? { authorization: `Bearer ${token}` } : {};
    const asked = new Exchange({ url, headers, where }, options, signal);
    const { response, connection } = await asked.get();
    const text = await connection.within(response.text()).catch(async (cause: unknown) => {
      throw await asked.failure(cause);
    });
    if (response.status !== 200)
      throw refused(address, where, statusOf(response), response.headers.get("x-error-code"));
    const source = { where, code: "network", advice: "Check the hub's address." } as const;
    const json = readJson(text, source, { most: MAX_PAGE_CHARACTERS, what: "the list of a model's files" });
    for (const entry of json.items(0, MAX_FILES)) readEntry(entry, files);
    next = nextPage(response, url);
    if (page >= MAX_PAGES || files.size > MAX_FILES)
      throw new MixdqError("network", `${where}: the list of files has no end. Check the hub's address.`);
  }
  return files;
}

/** {type, path, size, oid, lfs: {oid}}; a file of Git LFS is known by its SHA-256, others by Git's own. */
function readEntry(entry: Json, files: Map<string, FileVersion>): void {
  if (entry.get("type").value !== "file") return;
  const lfs = entry.get("lfs");
  const isLarge = !lfs.isMissing;
  const tag = (isLarge ? lfs : entry).get("oid").matching(/^(sha256:)?[0-9a-f]{8,64}$/, "a content's id");
  const bytes = entry.get("size").integer(0, Number.MAX_SAFE_INTEGER);
  const sha256 = isLarge && /[0-9a-f]{64}$/.exec(tag)?.[0];
  files.set(entry.get("path").string(), { bytes, tag, isStrong: true, ...(sha256 && { sha256 }) });
}

/** RFC 8288; a list that went on at another host would take the token there. */
function nextPage(response: Response, url: string): string | undefined {
  const [, link] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "") ?? [];
  if (link === undefined || !URL.canParse(link, url)) return undefined;
  const next = new URL(link, url);
  return next.origin === new URL(url).origin ? next.href : undefined;
}

const statusOf = ({ status, statusText }: Response): string => `status ${status} ${statusText}`.trim();

/** What to tell people of a model, or of a file in it, that the hub does not give. */
function refused(address: HubAddress, where: string, got: string, code: string | null = null): MixdqError {
  const { host, id, revision, token } = address;
  const status = Number(/\d{3}/.exec(got)?.[0]);
  const say = (advice: string): MixdqError =>
    new MixdqError(
      "network",
      `${where}: got ${got}, expected the ${where.endsWith(id) ? "list of its files" : "file"}. ${advice}`,
    );
  if (status === 404)
    return say(
      code === "RevisionNotFound" ? `The model has no revision ${revision}.` : "Check the model's id and revision.",
    );
  if (status !== 401 && status !== 403) return say("Wait a while and try again.");
  const access = `accept its licence at ${host}/${id}`;
  if (token === undefined)
    return say(
      `${code === "RepoNotFound" || status === 401 ? "There is no such model, or it is" : "It is"} private or gated: check the id, ${access}, ` +
        "and give an access token (env.accessToken, on the command line the variable HF_TOKEN).",
    );
  return say(
    `The access token that was given does not open it: ${access} with the token's account, or give another token.`,
  );
}
