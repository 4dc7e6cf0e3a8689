import { invalidInput } from "../base/errors.ts";
/** SHA-256 of files and folders, for those who ask whether they are still the same. */
import { createHash } from "node:crypto";
import { createReadStream, type Stats } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { sha256 } from "./inputFiles.ts";

/** Something that a step reads: a file or a folder, of which only some parts and files may matter; or a text itself. */
export type Source =
  { readonly at: string; readonly parts?: readonly string[]; readonly wanted?: RegExp } | { readonly text: string };

/**
 * Files of this size or more are not read again while they keep size and time of change: SDXL's weights have 7 GB, and every
 * step of every start asks for them. Smaller ones always are.
 */
const LARGE_BYTES = 64 * 2 ** 20;

/** A large file whose content is known. */
export interface KnownFile {
  readonly bytes: number;
  /** Of the inode (ctime): unlike the content's own time, no copy and no archive brings an old one along. */
  readonly changedMs: number;
  readonly sha256: string;
}

export class FileDigests {
  /** By the name that it was asked for under. */
  readonly known: Map<string, KnownFile>;

  constructor(known: ReadonlyMap<string, KnownFile>) {
    this.known = new Map(known);
  }

  /** Of a folder: over its files' names and hashes. undefined where there is nothing. */
  async of(name: string, source: Source): Promise<string | undefined> {
    if ("text" in source) return sha256(source.text);
    const info = await infoOf(source.at);
    if (!info?.isDirectory()) return info && this.#digestFile(name, source.at, info);
    const lines: string[] = [];
    for (const part of source.parts ?? ["."])
      for (const { name: file, info } of await filesBelow(source.at, part))
        if (source.wanted?.test(file) ?? true)
          lines.push(`${file} ${await this.#digestFile(`${name}/${file}`, path.join(source.at, file), info)}`);
    return sha256(lines.join("\n"));
  }

  async #digestFile(name: string, where: string, { size: bytes, ctimeMs: changedMs }: Stats): Promise<string> {
    const known = bytes < LARGE_BYTES ? undefined : this.known.get(name);
    if (known && known.bytes === bytes && known.changedMs === changedMs) return known.sha256;
    const hash = createHash("sha256");
    try {
      for await (const chunk of createReadStream(where, { highWaterMark: 2 ** 20 })) hash.update(chunk as Uint8Array);
    } catch (error) {
      throw invalidInput(`${where} cannot be read: ${(error as Error).message}.`);
    }
    const digest = hash.digest("hex");
    if (bytes >= LARGE_BYTES) this.known.set(name, { bytes, changedMs, sha256: digest });
    else this.known.delete(name);
    return digest;
  }
}

/** The files of a folder, or of one of its parts, or that part itself where it is a file; by name, "/" between parts. */
export async function filesBelow(folder: string, part = "."): Promise<{ name: string; info: Stats }[]> {
  const place = path.join(folder, part);
  const info = await infoOf(place);
  if (!info) return [];
  const below = info.isDirectory() ? await readdir(place, { recursive: true }) : [""];
  const names = below.map((name) => path.join(part, name).split(path.sep).join("/")).sort();
  const files = await Promise.all(names.map(async (name) => ({ name, info: await infoOf(path.join(folder, name)) })));
  return files.filter((file): file is { name: string; info: Stats } => file.info?.isFile() === true);
}

export const infoOf = (file: string): Promise<Stats | undefined> => stat(file).catch(() => undefined);
