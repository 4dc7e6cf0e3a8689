/** The fault suite's own server: the built page, a model of e2e/golden, and whatever goes wrong with its files. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { build } from "vite";
import { outDirOf } from "../outDir.ts";

const HERE = import.meta.dirname;
const ROOT = path.resolve(HERE, "../..");
const OUT_DIR = outDirOf("e2e-faults");

/** Answers a request for a model's file by itself, and says so; `content` is what the file holds. */
export type Fault = (
  file: string,
  content: Buffer,
  request: IncomingMessage,
  response: ServerResponse,
) => boolean | Promise<boolean>;

export class FaultServer {
  /** What goes wrong now. */
  fault: Fault = () => false;
  /** The status for files that are not there. */
  missing = 404;
  /** Model files that were asked for, in order. */
  readonly requests: string[] = [];
  readonly #server: Server;
  readonly #models: ReadonlyMap<string, string>;
  #instrument = "";

  /** `models`: folders by the name under which they are served. */
  constructor(models: ReadonlyMap<string, string>) {
    this.#models = models;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => response.writeHead(500).end(String(error)));
    });
  }

  /** Builds the page and begins to listen; its address, which ends in a slash. */
  async start(): Promise<string> {
    await build({
      root: ROOT,
      configFile: path.join(ROOT, "vite.config.ts"),
      logLevel: "error",
      build: {
        outDir: OUT_DIR,
        emptyOutDir: true,
        rolldownOptions: { input: path.join(HERE, "page.ts"), output: { entryFileNames: "page.js" } },
      },
    });
    this.#instrument = await readFile(path.join(HERE, "instrument.js"), "utf8");
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  reset(): void {
    this.fault = () => false;
    this.missing = 404;
    this.requests.length = 0;
    this.#server.closeAllConnections(); // what stalls
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname } = new URL(request.url!, "http://host");
    const [, first, model, ...rest] = pathname.split("/");
    if (first === "models") {
      const file = rest.join("/");
      this.requests.push(file);
      const content = await readFile(path.join(this.#models.get(model!) ?? "/nowhere", file)).catch(() => undefined);
      if (!content) return void response.writeHead(this.missing).end("nothing here");
      if (await this.fault(file, content, request, response)) return;
      return serve(content, request, response);
    }
    if (pathname === "/hanging") {
      this.requests.push("hanging");
      return void response.end();
    }
    if (pathname === "/") {
      const html = `<!doctype html><title>faults</title><link rel="icon" href="data:,">
        <script>${this.#instrument}</script><script type="module" src="page.js"></script>`;
      return void response.setHeader("content-type", "text/html").end(html);
    }
    const script = await readFile(path.join(OUT_DIR, pathname)).catch(() => undefined);
    if (!script) return void response.writeHead(404).end();
    response.setHeader("content-type", pathname.endsWith(".wasm") ? "application/wasm" : "text/javascript");
    response.end(pathname.includes("engine.worker") ? `${this.#instrument}\n${script}` : script);
  }
}

/** As a static server does: with a length, an ETag, and the part that was asked for. */
export function serve(content: Buffer, { headers, method }: IncomingMessage, response: ServerResponse): void {
  const etag = `"${createHash("sha256").update(content).digest("hex").slice(0, 16)}"`;
  response.setHeader("etag", etag).setHeader("accept-ranges", "bytes");
  const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") ?? [];
  const isSame = headers["if-range"] === undefined || headers["if-range"] === etag;
  let part = content;
  if (first !== undefined && isSame) {
    const end = Math.min(last ? Number(last) : Infinity, content.length - 1);
    part = content.subarray(Number(first), end + 1);
    response.writeHead(206, {
      "content-range": `bytes ${first}-${end}/${content.length}`,
      "content-length": part.length,
    });
  } else response.setHeader("content-length", content.length);
  response.end(method === "HEAD" ? undefined : part);
}
