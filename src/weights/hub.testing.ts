/**
 * A hub as Hugging Face's is to its clients, on this machine: a list of files in pages, files behind redirects to signed
 * addresses of another origin, gated and private models, pointers of Git LFS. Both servers write down what they are asked.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { bytesOf } from "./server.testing.ts";

export interface HubRequest {
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly status: number;
}

export interface HubRepo {
  readonly files: Map<string, Uint8Array>;
  /** Whoever may read it; everybody without. */
  readonly token?: string;
  /** Listed for everybody, read with the token. */
  readonly isGated?: boolean;
  readonly revisions?: readonly string[];
}

export interface TestHub {
  /** Without a last slash. */
  readonly url: string;
  readonly repos: Map<string, HubRepo>;
  /** What the hub was asked, and what the host that its redirects lead to was. */
  readonly asked: HubRequest[];
  readonly askedCdn: HubRequest[];
  /** Where the next page of a list is said to be; undefined: here. */
  listOrigin: string | undefined;
  /** Bytes of files that were written, over all. */
  sent: number;
  /** Instead of the file: breaks, silences; false: as ever. */
  fault: (path: string, content: Uint8Array, request: IncomingMessage, response: ServerResponse) => boolean;
  close(): void;
}

export const sha256Of = (content: Uint8Array): string => createHash("sha256").update(content).digest("hex");
const gitOid = (content: Uint8Array): string =>
  createHash("sha1").update(`blob ${content.length}\0`).update(content).digest("hex");

/** What Git LFS keeps: everything that is no text. */
const isLarge = (path: string): boolean => /\.(safetensors|bin)$/.test(path);

/** As the hub does, for pages of another origin. */
const CORS = {
  "access-control-allow-origin": "*",
  "access-control-allow-headers": "authorization, range",
  "access-control-expose-headers":
    "X-Error-Code, X-Error-Message, ETag, Link, Accept-Ranges, Content-Range, X-Linked-Size, X-Linked-ETag",
};

export async function startHub(
  repos: Readonly<Record<string, Readonly<Record<string, Uint8Array | string>> | HubRepo>>,
  { pageSize = 1000 } = {},
): Promise<TestHub> {
  const all = new Map(
    Object.entries(repos).map(([id, repo]): [string, HubRepo] => {
      if ("files" in repo && repo.files instanceof Map) return [id, repo as HubRepo];
      return [id, { files: new Map(Object.entries(repo).map(([path, content]) => [path, bytesOf(content)])) }];
    }),
  );
  const asked: HubRequest[] = [];
  const askedCdn: HubRequest[] = [];
  const listen = async (answer: (request: IncomingMessage, response: ServerResponse) => void, log: HubRequest[]) => {
    const server = createServer((request, response) => {
      for (const [name, value] of Object.entries(CORS)) response.setHeader(name, value);
      const { method = "GET", url: path = "/", headers } = request;
      if (method === "OPTIONS") return void response.writeHead(204).end();
      answer(request, response);
      const { range, authorization } = headers;
      log.push({ method, path, range, authorization, status: response.statusCode });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
  };
  const cdn = await listen((request, response) => answerCdn(hub, request, response), askedCdn);
  const front = await listen((request, response) => answerHub(hub, cdn.url, pageSize, request, response), asked);
  const hub: TestHub = {
    url: front.url,
    repos: all,
    asked,
    askedCdn,
    listOrigin: undefined,
    sent: 0,
    fault: () => false,
    close: () => [cdn, front].forEach(({ server }) => end(server)),
  };
  return hub;
}

function end(server: Server): void {
  server.closeAllConnections();
  server.close();
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { "x-error-code": code, "content-type": "application/json" });
  response.end(JSON.stringify({ error: code }));
}

function answerHub(
  hub: TestHub,
  cdn: string,
  pageSize: number,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const url = new URL(request.url!, hub.url);
  const [, id, revision, cursorPath] =
    /^\/api\/models\/([^/]+\/[^/]+)\/tree\/([^/]+)(.*)$/.exec(url.pathname) ??
    /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname) ??
    [];
  const repo = hub.repos.get(id ?? "");
  const isList = url.pathname.startsWith("/api/");
  const mayRead = repo && (repo.token === undefined || request.headers.authorization === `Bearer ${repo.token}`);
  if (!repo || (!mayRead && !repo.isGated)) return refuse(response, 401, "RepoNotFound");
  if (!(repo.revisions ?? ["main"]).includes(decodeURIComponent(revision!)))
    return refuse(response, 404, "RevisionNotFound");
  if (isList) return list(hub, repo, url, pageSize, response);
  if (!mayRead) return refuse(response, request.headers.authorization ? 403 : 401, "GatedRepo");
  const path = decodeURIComponent(cursorPath!);
  const content = repo.files.get(path);
  if (!content) return refuse(response, 404, "EntryNotFound");
  if (!isLarge(path)) return send(hub, path, content, `"${gitOid(content)}"`, request, response);
  const location = `${cdn}/blob/${sha256Of(content)}?signature=${Math.random().toString(36).slice(2)}`;
  response.setHeader("x-linked-etag", `"${sha256Of(content)}"`).setHeader("x-linked-size", content.length);
  response.writeHead(302, { location }).end();
}

function list(hub: TestHub, repo: HubRepo, url: URL, pageSize: number, response: ServerResponse): void {
  const folders = new Set([...repo.files.keys()].flatMap((path) => (path.includes("/") ? [path.split("/")[0]] : [])));
  const entries = [
    ...[...folders].map((path) => ({ type: "directory", oid: gitOid(bytesOf(path)), size: 0, path })),
    ...[...repo.files].map(([path, content]) => {
      const { length: size } = content;
      const lfs = isLarge(path) && { lfs: { oid: sha256Of(content), size, pointerSize: 134 } };
      return { type: "file", oid: gitOid(content), size, path, ...lfs };
    }),
  ];
  const from = Number(url.searchParams.get("cursor") ?? 0);
  if (from + pageSize < entries.length) {
    url.searchParams.set("cursor", String(from + pageSize));
    response.setHeader("link", `<${hub.listOrigin ?? hub.url}${url.pathname}${url.search}>; rel="next"`);
  }
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(entries.slice(from, from + pageSize)));
}

/** Addresses are signed: without a signature, or with a token of another host's, there is nothing. */
function answerCdn(hub: TestHub, request: IncomingMessage, response: ServerResponse): void {
  const url = new URL(request.url!, hub.url);
  const hash = url.pathname.replace("/blob/", "");
  if (!url.searchParams.has("signature")) return void response.writeHead(403).end("<Error/>");
  for (const { files } of hub.repos.values())
    for (const [path, content] of files)
      if (sha256Of(content) === hash) return send(hub, path, content, `"${hash}"`, request, response);
  response.writeHead(404).end();
}

function send(
  hub: TestHub,
  path: string,
  content: Uint8Array,
  etag: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const write = response.write.bind(response);
  response.write = ((chunk: Uint8Array, ...rest: never[]) => {
    if (request.method !== "HEAD") hub.sent += chunk.length;
    return write(chunk, ...rest);
  }) as typeof response.write;
  response.setHeader("etag", etag).setHeader("accept-ranges", "bytes");
  response.setHeader("content-type", path.endsWith(".json") ? "application/json" : "application/octet-stream");
  if (hub.fault(path, content, request, response)) return;
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
  const from = Number(first ?? 0);
  const to = Math.min(last ? Number(last) + 1 : content.length, content.length);
  if (first !== undefined)
    response.writeHead(206, {
      "content-range": `bytes ${from}-${to - 1}/${content.length}`,
      "content-length": to - from,
    });
  else response.setHeader("content-length", content.length);
  if (request.method !== "HEAD" && to > from) response.write(content.subarray(from, to));
  response.end();
}
