/**
 * A model's files over HTTP(S): any static server with the folder on it, or a Hugging Face `resolve/<revision>` address.
 * A file that the server does not give, in whatever way it says so, is one that is not there: 404, the 403 of a bucket
 * that may not be listed, a page, a note or a JSON error with status 200. Who needs the file says what it was.
 */
import { MixdqError } from "../base/errors.ts";
import { redactAddress } from "../base/redact.ts";
import { MAX_TEXT_BYTES, tooLongText, type FileStream, type ModelFiles } from "./files.ts";
import { Download, isPart, lengthOf } from "./httpDownload.ts";
import { Exchange, type Answer, type HttpOptions } from "./httpExchange.ts";
import { isInsteadOf, isNote, refusePointer, SNIFF_BYTES } from "./sniff.ts";

export { UnreachableError, type HttpOptions } from "./httpExchange.ts";

/**
 * The files below `baseUrl` (relative to the page where there is one); a name and password in it are sent as HTTP Basic
 * authentication. Requests throw `network` where a server cannot be reached, is silent for `stallMs` (default 60 s) or
 * fails again and again. Throws `invalid-input` for an address that is none.
 */
export function httpFiles(baseUrl: string, options: HttpOptions = {}): ModelFiles {
  const { base, headers } = parseBase(baseUrl);
  const location = redactAddress(base.href).replace(/\/$/, "");
  const refusals = new Map<string, string>();

  function exchange(path: string, signal: AbortSignal | undefined): Exchange {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), base);
    // A signed address carries its signature in the query; every file needs it.
    url.search = base.search;
    return new Exchange({ url: url.href, headers, where: `${location}/${path}` }, options, signal);
  }

  /** Whether an answer is the file; remembers what it is instead. */
  function isFile(path: string, { response, connection }: Answer): boolean {
    const { status, statusText } = response;
    if (status === 200 || status === 206) return true;
    connection.close();
    refusals.delete(path);
    if (status !== 404 && status !== 410) refusals.set(path, `status ${status} ${statusText}`.trim());
    return false;
  }

  async function download(path: string, signal: AbortSignal | undefined): Promise<Download | undefined> {
    const asked = exchange(path, signal);
    const answer = await asked.get();
    return isFile(path, answer) ? new Download(asked, answer) : undefined;
  }

  async function sniff(asked: Exchange, path: string): Promise<{ response: Response; head: Uint8Array } | undefined> {
    for (;;) {
      const answer = await asked.get(`bytes=0-${SNIFF_BYTES - 1}`);
      if (!isFile(path, answer)) return undefined;
      const { response, connection } = answer;
      try {
        return { response, head: await connection.within(firstBytes(response)) };
      } catch (cause) {
        await asked.pause(cause);
      } finally {
        connection.close();
      }
    }
  }

  return {
    location,
    refusalOf: (path) => refusals.get(path),

    async text(path, signal) {
      const file = await download(path, signal);
      if (file === undefined) return undefined;
      const text = await readText(file, `${location}/${path}`);
      refusePointer(text, `${location}/${path}`);
      return isInsteadOf(path, text) ? undefined : text;
    },

    async open(path, signal): Promise<FileStream | undefined> {
      const file = await download(path, signal);
      return file && { bytes: file.bytes, body: streamOf(file) };
    },

    async range(path, span, signal): Promise<FileStream | undefined> {
      const asked = exchange(path, signal);
      const answer = await asked.get(`bytes=${span.begin}-${span.end - 1}`);
      if (isPart(answer.response, span)) {
        const part = new Download(asked, answer, span);
        return { bytes: span.end - span.begin, body: streamOf(part) };
      }
      answer.connection.close();
      return undefined;
    },

    async size(path, signal) {
      const asked = exchange(path, signal);
      const head = await asked.head();
      if (head?.status === 404 || head?.status === 410) return undefined;
      if (head?.status === 200 && !mayBeNote(head)) return lengthOf(head);
      // A server that does not take HEAD, or something that may be a page: the first bytes tell.
      const begin = await sniff(asked, path);
      if (begin === undefined || isNote(begin.head)) return undefined;
      const [, total] = /\/(\d+)$/.exec(begin.response.headers.get("content-range") ?? "") ?? [];
      if (total !== undefined) return Number(total);
      // Of a part, the length says nothing about the whole.
      const whole = begin.response.status === 200 ? begin.response : head;
      return whole?.status === 200 ? lengthOf(whole) : 0;
    },
  };
}

/**
 * Whether an answer to HEAD may be about a page: by its type, or by its size where it has no type. Weights may be sent as
 * anything, too, but most servers send them as application/octet-stream.
 */
function mayBeNote(response: Response): boolean {
  const type = response.headers.get("content-type");
  return type === null ? lengthOf(response) < MAX_NOTE_BYTES : /^text\/|json|xml|html/i.test(type);
}

/** An error page is smaller. */
const MAX_NOTE_BYTES = 64 * 2 ** 10;

/** SNIFF_BYTES of the body, fewer only where it ends. */
async function firstBytes({ body }: Response): Promise<Uint8Array> {
  const head = new Uint8Array(SNIFF_BYTES);
  const reader = body?.getReader();
  let filled = 0;
  while (reader && filled < SNIFF_BYTES) {
    const { done, value } = await reader.read();
    if (done) break;
    const part = value.subarray(0, SNIFF_BYTES - filled);
    head.set(part, filled);
    filled += part.length;
  }
  return head.subarray(0, filled);
}

async function readText(file: Download, where: string): Promise<string> {
  const decoder = new TextDecoder();
  let [text, bytes] = ["", 0];
  for (let chunk = await file.read(); chunk; chunk = await file.read()) {
    bytes += chunk.length;
    if (Math.max(bytes, file.bytes) > MAX_TEXT_BYTES) {
      file.cancel();
      throw tooLongText(where, file.bytes > 0 ? String(file.bytes) : `more than ${MAX_TEXT_BYTES}`);
    }
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

function streamOf(file: Download): ReadableStream<Uint8Array> {
  return new ReadableStream(
    {
      async pull(controller) {
        const chunk = await file.read();
        if (chunk) controller.enqueue(chunk);
        else controller.close();
      },
      cancel: () => file.cancel(),
    },
    // No reading ahead: the network's own buffers do that.
    { highWaterMark: 0 },
  );
}

function parseBase(baseUrl: string): { base: URL; headers: Readonly<Record<string, string>> } {
  const page = typeof location === "undefined" ? undefined : location.href;
  const base = URL.canParse(baseUrl, page) ? new URL(baseUrl, page) : undefined;
  if (base?.protocol !== "http:" && base?.protocol !== "https:") {
    const got = JSON.stringify(redactAddress(baseUrl));
    const message = `model: got ${got}, expected an http or https address. Pass the address of a model's folder.`;
    throw new MixdqError("invalid-input", message);
  }
  const { username, password } = base;
  // fetch refuses addresses with a password in them.
  Object.assign(base, { hash: "", username: "", password: "" });
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return { base, headers: username || password ? { authorization: basic(username, password) } : {} };
}

/** The file at an absolute address, among the files of its folder. Throws as `httpFiles`. */
export function httpFile(
  address: string,
  options?: HttpOptions,
): { readonly files: ModelFiles; readonly path: string } {
  const folder = new URL(".", address);
  folder.search = new URL(address).search;
  const path = percentDecoded(new URL(address).pathname.split("/").at(-1)!);
  return { files: httpFiles(folder.href, options), path };
}

/** RFC 7617, in UTF-8; a URL holds both parts percent-encoded. */
function basic(username: string, password: string): string {
  const bytes = new TextEncoder().encode(`${percentDecoded(username)}:${percentDecoded(password)}`);
  return `Basic ${btoa(String.fromCharCode(...bytes))}`;
}

/** As it is where a "%" encodes nothing. */
export function percentDecoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
