/** A server of files in memory on this machine, as well or as badly behaved as a test wants it, that counts. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly range: string | undefined;
}

export interface TestServer {
  /** Of the folder, without a last slash. */
  readonly url: string;
  readonly files: Map<string, Uint8Array>;
  readonly asked: Asked[];
  /** Bytes of bodies that were written, by path. */
  readonly sent: Map<string, number>;
  close(): void;
}

export interface ServerOptions {
  /** Answers instead of the server where it returns true; `count` is how often this path was asked before. */
  readonly special?: (path: string, request: IncomingMessage, response: ServerResponse, count: number) => boolean;
  /** What it says of a file that is not there. */
  readonly missing?: (response: ServerResponse) => void;
  /** Default: a strong one, the same as long as the content is. null: none. */
  readonly etag?: ((content: Uint8Array) => string) | null;
  readonly lastModified?: string;
  readonly ranges?: boolean;
  /** Default: by the file's name. */
  readonly type?: string | null;
}

const etagOf = (content: Uint8Array): string => `"${createHash("sha256").update(content).digest("hex")}"`;

export async function serveFiles(
  contents: Record<string, Uint8Array | string>,
  options: ServerOptions = {},
): Promise<TestServer> {
  const { special, missing = (response) => response.writeHead(404).end("no"), etag = etagOf, ranges = true } = options;
  const files = new Map(Object.entries(contents).map(([path, content]) => [path, bytesOf(content)]));
  const asked: Asked[] = [];
  const sent = new Map<string, number>();
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url!.split("?")[0]).replace(/^\/m\//, "");
    const range = request.headers.range;
    const count = asked.filter((each) => each.path === path).length;
    asked.push({ method: request.method!, path, range });
    const write = response.write.bind(response);
    response.write = ((chunk: Uint8Array | string, ...rest: never[]) => {
      if (request.method !== "HEAD") sent.set(path, (sent.get(path) ?? 0) + bytesOf(chunk).length);
      return write(chunk, ...rest);
    }) as typeof response.write;
    if (special?.(path, request, response, count)) return;
    const content = files.get(path);
    if (content === undefined) return missing(response);
    const { type = path.endsWith(".json") ? "application/json" : "application/octet-stream" } = options;
    if (type !== null) response.setHeader("content-type", type);
    if (etag) response.setHeader("etag", etag(content));
    if (options.lastModified) response.setHeader("last-modified", options.lastModified);
    const [, first, last] = (ranges && /^bytes=(\d+)-(\d*)$/.exec(range ?? "")) || [];
    if (first !== undefined) {
      const end = Math.min(last ? Number(last) : Infinity, content.length - 1);
      response.statusCode = 206;
      response.setHeader("content-range", `bytes ${first}-${end}/${content.length}`);
      return send(response, content.subarray(Number(first), end + 1));
    }
    send(response, content);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = (): void => {
    server.closeAllConnections();
    server.close();
  };
  onTestFinished(close);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/m`;
  return { url, files, asked, sent, close };
}

function send(response: ServerResponse, content: Uint8Array): void {
  response.setHeader("content-length", content.length);
  response.write(content);
  response.end();
}

/** Writes the beginning of a body of `length` bytes and drops the connection. */
export function breakOff(response: ServerResponse, begin: Uint8Array, length?: number): true {
  if (length !== undefined) response.setHeader("content-length", length);
  response.write(begin, () => setTimeout(() => response.socket?.destroy(), 20));
  return true;
}

/** The same, and keeps the connection in silence. */
export function fallSilent(response: ServerResponse, begin: Uint8Array, length: number): true {
  response.setHeader("content-length", length);
  response.write(begin);
  return true;
}

export function bytesOf(content: Uint8Array | string): Uint8Array {
  return typeof content === "string" ? new TextEncoder().encode(content) : content;
}

/** Bytes that are nowhere the same twice. */
export function noise(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  let state = seed;
  return Uint8Array.from({ length }, () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 24);
}
