/**
 * Where a model's files come from, without saying how: over HTTP in a browser, from disk on the command line.
 * Paths are relative to the model's folder and use forward slashes.
 */
export interface ModelFiles {
  /** For messages: the URL or folder. */
  readonly location: string;
  /** The file as text, or undefined where there is none. Throws `network` for any other failure. */
  text(path: string, signal?: AbortSignal): Promise<string | undefined>;
  /** The file's size in bytes (0 if unknown) and its content as a stream, or undefined where there is none. */
  open(path: string, signal?: AbortSignal): Promise<FileStream | undefined>;
}

export interface FileStream {
  readonly bytes: number;
  readonly body: ReadableStream<Uint8Array>;
}
