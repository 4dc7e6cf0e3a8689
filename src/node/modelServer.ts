/**
 * The models of a folder over HTTP, for the page's servers: with validators, so that a second visit fetches nothing that
 * has not changed, with ranges, so that a download can go on where it broke off, and with a list of each model's files.
 * RFC 9110, sections 13 (conditional requests) and 14 (ranges).
 */
import { createHash } from "node:crypto";
import { createReadStream, type Stats } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { writeFileList } from "../weights/fileList.ts";

const LIST = "manifest.json";

interface Content {
  readonly type: string;
  readonly bytes: number;
  /** Strong: the same as long as every byte is. */
  readonly etag: string;
  /** Unknown of what is made on the spot. */
  readonly modified?: Date;
  /** Bytes `first` to `last`. */
  read(first: number, last: number): Readable;
}

/** Answers every request: paths that lead out of `root`, by dots or by links, are not found. */
export function serveModels(root: string): (request: IncomingMessage, response: ServerResponse) => void {
  return (request, response) => {
    answer(root, request, response).catch(() => {
      // What went wrong may name a path of this machine; a body that has begun can only be broken off.
      if (response.headersSent) response.destroy();
      else refuse(response, 500, "The file cannot be read.");
    });
  };
}

async function answer(root: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { method, url = "/", headers } = request;
  if (method !== "GET" && method !== "HEAD") {
    response.setHeader("Allow", "GET, HEAD");
    return refuse(response, 405, "Only GET and HEAD.");
  }
  const parts = partsOf(url);
  if (parts === undefined) return refuse(response, 400, "This is no path.");
  const content = await find(root, parts);
  if (content === undefined) return refuse(response, 404, "Not found.");

  response.setHeader("ETag", content.etag);
  if (content.modified) response.setHeader("Last-Modified", content.modified.toUTCString());
  // Kept, and asked about each time: somebody may be working on a model.
  response.setHeader("Cache-Control", "no-cache");
  response.setHeader("Accept-Ranges", "bytes");
  if (isKnown(headers, content)) return void response.writeHead(304).end();

  const range = method === "GET" && mayBeRange(headers, content) ? rangeOf(headers.range, content.bytes) : undefined;
  if (range === "unsatisfiable") {
    response.setHeader("Content-Range", `bytes */${content.bytes}`);
    return refuse(response, 416, "There are no such bytes.");
  }
  const [first, last] = range ?? [0, content.bytes - 1];
  response.setHeader("Content-Type", content.type);
  response.setHeader("Content-Length", last - first + 1);
  if (range) response.writeHead(206, { "Content-Range": `bytes ${first}-${last}/${content.bytes}` });
  if (method === "HEAD" || last < first) return void response.end();
  await pipeline(content.read(first, last), response);
}

function refuse(response: ServerResponse, status: number, why: string): void {
  response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8" }).end(why);
}

/** The path's parts, decoded; undefined where it is malformed or one of them would be more than a name. */
function partsOf(url: string): string[] | undefined {
  try {
    const parts = url
      .replace(/[?#].*$/, "")
      .split("/")
      .filter((part) => part !== "")
      .map(decodeURIComponent);
    const isName = (part: string): boolean => part !== "." && part !== ".." && !/[/\\\0]/.test(part);
    return parts.every(isName) ? parts : undefined;
  } catch {
    return undefined;
  }
}

async function find(root: string, parts: readonly string[]): Promise<Content | undefined> {
  const file = await fileWithin(root, parts);
  if (file !== undefined) return fileContent(file);
  // A model that has no manifest gets one.
  if (parts.at(-1) !== LIST) return undefined;
  const folder = parts.slice(0, -1);
  if ((await fileWithin(root, [...folder, "model_index.json"])) === undefined) return undefined;
  return textContent(writeFileList(await listFiles(root, folder)));
}

async function fileWithin(root: string, parts: readonly string[]): Promise<string | undefined> {
  const found = await within(root, parts);
  return found?.info.isFile() ? found.file : undefined;
}

/** What lies there, links followed; undefined for nothing, and for what lies elsewhere. */
async function within(
  root: string,
  parts: readonly string[],
): Promise<{ readonly file: string; readonly info: Stats; readonly isLink: boolean } | undefined> {
  try {
    const home = await realpath(root);
    const file = await realpath(path.join(home, ...parts));
    const relative = path.relative(home, file);
    if (relative.split(path.sep)[0] === ".." || path.isAbsolute(relative)) return undefined;
    return { file, info: await stat(file), isLink: file !== path.join(home, ...parts) };
  } catch {
    return undefined;
  }
}

async function fileContent(file: string): Promise<Content> {
  const { size, mtimeNs } = await stat(file, { bigint: true });
  return {
    type: file.endsWith(".json") ? "application/json" : "application/octet-stream",
    bytes: Number(size),
    etag: `"${size.toString(36)}-${mtimeNs.toString(36)}"`,
    modified: new Date(Number(mtimeNs / 1_000_000n)),
    read: (start, end) => createReadStream(file, { start, end }),
  };
}

function textContent(text: string): Content {
  const bytes = Buffer.from(text);
  return {
    type: "application/json",
    bytes: bytes.length,
    etag: `"${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}"`,
    read: (first, last) => Readable.from([bytes.subarray(first, last + 1)]),
  };
}

type Headers = IncomingMessage["headers"];

/** Whether the client has the file already. */
function isKnown(headers: Headers, { etag, modified }: Content): boolean {
  const known = headers["if-none-match"];
  if (known !== undefined)
    return known.trim() === "*" || known.split(",").some((each) => each.trim().replace(/^W\//, "") === etag);
  const since = Date.parse(headers["if-modified-since"] ?? "");
  return modified !== undefined && secondsOf(modified) <= since;
}

/** If-Range: the rest of another version is not wanted. */
function mayBeRange(headers: Headers, { etag, modified }: Content): boolean {
  const { "if-range": only } = headers;
  if (typeof only !== "string") return true;
  return only.startsWith('"') ? only === etag : modified !== undefined && Date.parse(only) === secondsOf(modified);
}

/** HTTP's dates have no milliseconds. */
const secondsOf = (date: Date): number => Math.floor(date.getTime() / 1000) * 1000;

/** One range of bytes; undefined for what is to be ignored: several ranges, other units, anything malformed. */
function rangeOf(header: string | undefined, bytes: number): readonly [number, number] | "unsatisfiable" | undefined {
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header?.replace(/\s/g, "") ?? "") ?? [];
  if (from === undefined || to === undefined || (from === "" && to === "")) return undefined;
  if (from === "") return Number(to) > 0 && bytes > 0 ? [Math.max(0, bytes - Number(to)), bytes - 1] : "unsatisfiable";
  const [first, last] = [Number(from), Math.min(to === "" ? Infinity : Number(to), bytes - 1)];
  if (to !== "" && Number(to) < first) return undefined;
  return first < bytes ? [first, last] : "unsatisfiable";
}

/** The folder's files that are served, by path, with their sizes; not those below a name that is hidden or not wanted. */
export async function listFiles(
  root: string,
  folder: readonly string[] = [],
  isWanted: (name: string) => boolean = () => true,
): Promise<Map<string, number>> {
  const files = new Map<string, number>();
  async function walk(below: readonly string[]): Promise<void> {
    const names = await readdir(path.join(root, ...folder, ...below));
    for (const name of names.sort()) {
      if (name.startsWith(".") || !isWanted(name)) continue;
      const parts = [...below, name];
      const found = await within(root, [...folder, ...parts]);
      if (found?.info.isFile()) files.set(parts.join("/"), found.info.size);
      // Folders behind links may go round in circles.
      else if (found?.info.isDirectory() && !found.isLink) await walk(parts);
    }
  }
  await walk([]);
  return files;
}
