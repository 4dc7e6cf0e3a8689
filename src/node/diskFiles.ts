/** A model's files from a folder on disk. */
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { MixdqError } from "../base/errors.ts";
import type { ModelFiles } from "../weights/files.ts";

/** Throws `invalid-input` where there is no such folder. */
export async function diskFiles(folder: string): Promise<ModelFiles> {
  const info = await stat(folder).catch(() => undefined);
  if (!info?.isDirectory())
    throw new MixdqError(
      "invalid-input",
      `--model ${folder}: no such folder. Give the folder of a diffusers model: it holds model_index.json, unet/, vae/, ...`,
    );
  return {
    location: folder,
    text: (name) => orMissing(path.join(folder, name), (file) => readFile(file, "utf8")),
    open: (name) =>
      orMissing(path.join(folder, name), async (file) => {
        const { size } = await stat(file);
        const chunks = createReadStream(file, { highWaterMark: 2 ** 20 });
        return { bytes: size, body: Readable.toWeb(chunks) as ReadableStream<Uint8Array> };
      }),
  };
}

async function orMissing<T>(file: string, read: (file: string) => Promise<T>): Promise<T | undefined> {
  try {
    return await read(file);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new MixdqError("network", `${file} cannot be read: ${message}.`, { cause: error });
  }
}
