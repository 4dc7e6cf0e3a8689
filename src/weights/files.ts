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
  text(path: string, signal?: AbortSignal, expected?: Expected): Promise<string | undefined>;
  /**
   * The file's size in bytes (0 if unknown) and its content as a stream, or undefined where there is none. `expected`: what
   * the caller knows of the content, and checks; whoever keeps the file need not ask its source then.
   */
  open(path: string, signal?: AbortSignal, expected?: Expected): Promise<FileStream | undefined>;
  /** The file's size alone, without reading it. Sources that leave it out are opened instead. */
  size?(path: string, signal?: AbortSignal): Promise<number | undefined>;
  /**
   * Told before so many bytes of weights are read: whoever keeps files makes room. Throws `quota` where that was asked for
   * and there is none.
   */
  reserve?(bytes: number, signal?: AbortSignal): Promise<void>;
  /** Told that what was read of a file is not what it should be: it must not be kept. */
  forget?(path: string): Promise<void>;
  /** Whether asking for a file that is not there costs nothing, so that no list of files is needed. */
  readonly isLocal?: boolean | undefined;
  /** What a server answered for a file that it refused, rather than said that there is none ("status 403 Forbidden"). */
  refusalOf?(path: string): string | undefined;
}

export interface FileStream {
  readonly bytes: number;
  readonly body: ReadableStream<Uint8Array>;
}

/** What a manifest says of a file. */
export interface Expected {
  readonly bytes: number;
  readonly sha256: string;
}

/** Which content a file has, as far as its source tells. */
export interface FileVersion {
  /** 0 if unknown. */
  readonly bytes: number;
  /** Another one for another content; undefined where the source does not tell. */
  readonly tag: string | undefined;
  /** Whether equal tags mean equal bytes, so that a part of one answer may be joined to a part of another. */
  readonly isStrong: boolean;
  /** In lower-case hexadecimal, where the source tells. */
  readonly sha256?: string;
}

export interface VersionedStream extends FileStream {
  readonly version: FileVersion;
}

export interface VersionedText {
  readonly text: string;
  readonly version: FileVersion;
}

/** Files whose content may be kept here: their source says which version each is, and gives any part of it. */
export interface RemoteFiles extends ModelFiles {
  /** As `text`. */
  textFile(path: string, signal?: AbortSignal): Promise<VersionedText | undefined>;
  /** As `open`. */
  openFile(path: string, signal?: AbortSignal): Promise<VersionedStream | undefined>;
  /**
   * Which version there is now, without reading it; undefined where there is no such file. Throws `network` where the source
   * does not say.
   */
  version(path: string, signal?: AbortSignal): Promise<FileVersion | undefined>;
  /**
   * Bytes `from` to `end` (excluded) of exactly this version, whose tag is strong. Throws `integrity` where it is another
   * by now, `network`.
   */
  part(path: string, part: FilePart, signal?: AbortSignal): Promise<ReadableStream<Uint8Array>>;
}

export interface FilePart {
  readonly from: number;
  readonly end: number;
  readonly version: FileVersion;
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
