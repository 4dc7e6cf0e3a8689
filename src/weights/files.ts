import { MixdqError } from "../base/errors.ts";

/**
 * Where a model's files come from, without saying how: over HTTP in a browser, from disk on the command line.
 * Paths are relative to the model's folder and use forward slashes.
 */
export interface ModelFiles {
  /** For messages: the URL, without password and query, or the folder. */
  readonly location: string;
  /**
   * The file as text, or undefined where there is none, in whatever way the source says so. Throws `network` for any
   * other failure, `invalid-model` for a text without end and a Git LFS pointer.
   */
  text(path: string, signal?: AbortSignal): Promise<string | undefined>;
  /** The file's size in bytes (0 if unknown) and its content as a stream, or undefined where there is none. */
  open(path: string, signal?: AbortSignal): Promise<FileStream | undefined>;
  /**
   * A part of the file, or undefined where there is none or the source gives no parts: then the file is opened, and what
   * lies before is passed over.
   */
  range?(path: string, span: ByteSpan, signal?: AbortSignal): Promise<FileStream | undefined>;
  /** The file's size alone, without reading it. Sources that leave it out are opened instead. */
  size?(path: string, signal?: AbortSignal): Promise<number | undefined>;
  /** Whether asking for a file that is not there costs nothing, so that no list of files is needed. */
  readonly isLocal?: boolean | undefined;
  /** What a server answered for a file that it refused, rather than said that there is none ("status 403 Forbidden"). */
  refusalOf?(path: string): string | undefined;
  /** What to tell whoever makes pictures with the model: parts of it that are not used. */
  readonly notes?: readonly string[] | undefined;
}

/** Bytes from `begin` up to, not including, `end`. */
export interface ByteSpan {
  readonly begin: number;
  readonly end: number;
}

export interface FileStream {
  readonly bytes: number;
  readonly body: ReadableStream<Uint8Array>;
}

/** Longer texts are not read: SDXL's tokenizer.json has 2.3 MB, a pack's manifest 0.9 MB. */
export const MAX_TEXT_BYTES = 64 * 2 ** 20;

/** The size of a file in bytes (0 if unknown), or undefined where there is none. */
export async function sizeOf(files: ModelFiles, path: string, signal?: AbortSignal): Promise<number | undefined> {
  if (files.size) return files.size(path, signal);
  const stream = await files.open(path, signal);
  await stream?.body.cancel();
  return stream?.bytes;
}

/** The error for a file that has to be there: `network` where the server refused it, else `invalid-model`. */
export function noSuchFile(files: ModelFiles, path: string, expected: string, advice: string): MixdqError {
  const where = `${files.location}/${path}`;
  const refusal = files.refusalOf?.(path);
  if (refusal === undefined)
    return new MixdqError("invalid-model", `${where}: no such file, expected ${expected}. ${advice}`);
  return new MixdqError("network", `${where}: got ${refusal}, expected ${expected}. ${REFUSED}`);
}

export const REFUSED = "It is not there, or needs a login or a licence to be accepted first.";

export function tooLongText(where: string, got: string): MixdqError {
  const message = `${where}: got ${got} bytes, expected a text of at most ${MAX_TEXT_BYTES}. Check the model's address.`;
  return new MixdqError("invalid-model", message);
}
