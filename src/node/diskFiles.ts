/** A model's files from a folder on disk. */
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { MixdqError } from "../base/errors.ts";
import { MAX_TEXT_BYTES, tooLongText, type ModelFiles } from "../weights/files.ts";
import { refusePointer } from "../weights/sniff.ts";

/** A single file, among the files of its folder; whether it is there shows when it is opened. */
export function diskFile(file: string): { readonly files: ModelFiles; readonly path: string } {
  return { files: filesIn(path.dirname(file)), path: path.basename(file) };
}

/** Throws `invalid-input` where there is no such folder. */
export async function diskFiles(folder: string): Promise<ModelFiles> {
  const info = await stat(folder).catch(() => undefined);
  if (!info?.isDirectory())
    throw new MixdqError(
      "invalid-input",
      `--model ${folder}: no such folder. Give the folder of a diffusers model: it holds model_index.json, unet/, vae/, ...`,
    );
  return filesIn(folder);
}

function filesIn(folder: string): ModelFiles {
  const at = (name: string): string => path.join(folder, name);
  return {
    location: folder,
    isLocal: true,
    text: (name) =>
      orMissing(at(name), async (file, size) => {
        if (size > MAX_TEXT_BYTES) throw tooLongText(file, String(size));
        const text = await readFile(file, "utf8");
        refusePointer(text, file);
        return text;
      }),
    open: (name) =>
      orMissing(at(name), async (file, size) => {
        const chunks = createReadStream(file, { highWaterMark: 2 ** 20 });
        return { bytes: size, body: Readable.toWeb(chunks) as ReadableStream<Uint8Array> };
      }),
    range: (name, { begin, end }) =>
      orMissing(at(name), async (file) => {
        const chunks = createReadStream(file, { highWaterMark: 2 ** 20, start: begin, end: end - 1 });
        return { bytes: end - begin, body: Readable.toWeb(chunks) as ReadableStream<Uint8Array> };
      }),
    size: (name) => orMissing(at(name), async (_, size) => size),
  };
}

async function orMissing<T>(file: string, read: (file: string, size: number) => Promise<T>): Promise<T | undefined> {
  try {
    const info = await stat(file);
    // A device or a pipe may have no end.
    if (info.isFile()) return await read(file, info.size);
    throw new Error("it is not a file");
  } catch (error) {
    if (error instanceof MixdqError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new MixdqError("network", `${file} cannot be read: ${message}.`, { cause: error });
  }
}
