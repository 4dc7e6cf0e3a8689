/** Serves a folder of an example as any static host does, with a model of e2e/golden as models/postcard. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { serveModels } from "../../src/node/modelServer.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

export interface Site {
  /** Ends in a slash. */
  readonly url: string;
  /** Paths that were asked for and are not there. */
  readonly missing: readonly string[];
  close(): Promise<void>;
}

export interface SiteOptions {
  readonly headers?: Readonly<Record<string, string>>;
  /** Port to listen on; default: a free one. */
  readonly port?: number;
}

/** `model`: its folder. */
export async function serveSite(
  folder: string,
  model: string,
  { headers = {}, port = 0 }: SiteOptions = {},
): Promise<Site> {
  const missing: string[] = [];
  const models = serveModels(path.dirname(model));

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url ?? "/", "http://host");
    if (pathname.startsWith("/models/postcard/")) {
      request.url = pathname.replace("/models/postcard", `/${path.basename(model)}`);
      return models(request, response);
    }
    const asked = path.join(folder, path.normalize(decodeURIComponent(pathname)));
    const file = pathname.endsWith("/") ? path.join(asked, "index.html") : asked;
    const info = await stat(file).catch(() => undefined);
    if (!info?.isFile()) {
      missing.push(pathname);
      response.writeHead(404).end();
      return;
    }
    const type = TYPES[path.extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { "Content-Type": type, "Content-Length": info.size, ...headers });
    createReadStream(file).pipe(response);
  }

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return {
    url,
    missing,
    close: () =>
      new Promise((done) => {
        server.closeAllConnections();
        server.close(() => done());
      }),
  };
}
