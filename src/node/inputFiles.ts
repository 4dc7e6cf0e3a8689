/** Files that people name: read whole, within a limit, with a message that says which; and told apart by their SHA-256. */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { MixdqError } from "../base/errors.ts";

/** The longest text that we make, SDXL's calibration.json, has 0.4 MB. */
const MAX_TEXT_BYTES = 64 * 2 ** 20;

export interface ReadOptions {
  /** At most so many bytes; default 64 MiB. */
  readonly most?: number;
  /** The flag that named the file, for messages. */
  readonly flag?: string | undefined;
}

/** Throws `invalid-input` where the file cannot be read, or has more bytes than it may. */
export async function readBytes(
  file: string,
  { most = MAX_TEXT_BYTES, flag }: ReadOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const where = flag === undefined ? file : `${flag} ${file}`;
  const cannot = (error: Error): never => {
    throw new MixdqError("invalid-input", `${where} cannot be read: ${error.message}. Check the path.`);
  };
  const { size } = await stat(file).catch(cannot);
  if (size > most)
    throw new MixdqError("invalid-input", `${where}: got ${size} bytes, expected at most ${most}. Check the path.`);
  return readFile(file).catch(cannot);
}

/** The same as text, without a byte order mark. */
export async function readText(file: string, options?: ReadOptions): Promise<string> {
  return textOf(await readBytes(file, options));
}

export const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** In lower-case hexadecimal. */
export const sha256 = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex");

/** The file's or folder's own name: a path of this machine means nothing to whom a result is passed on. */
export const nameOf = (file: string): string => path.basename(path.resolve(file));
