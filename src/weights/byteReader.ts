/**
 * Exact numbers of bytes from a stream of arbitrary chunks, so that a file can be read in pieces of our choosing while
 * only the current piece is in memory.
 */
import { MixdqError, throwIfAborted } from "../base/errors.ts";

/** Pulls a stream; failures of the stream become `network`, cancellation becomes `aborted`. */
export class ByteReader {
  private readonly reader: ReadableStreamDefaultReader<Uint8Array>;
  private readonly where: string;
  private readonly signal: AbortSignal | undefined;
  private readonly onBytes: ((count: number) => void) | undefined;
  private chunk: Uint8Array = new Uint8Array();

  /** `where` is the file, for messages; `onBytes` is told of every chunk that arrives. */
  constructor(
    body: ReadableStream<Uint8Array>,
    where: string,
    signal: AbortSignal | undefined,
    onBytes?: (count: number) => void,
  ) {
    this.reader = body.getReader();
    this.where = where;
    this.signal = signal;
    this.onBytes = onBytes;
  }

  /** The next `count` bytes in a buffer of their own; fewer only where the stream ends. */
  async read(count: number): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = allocate(count, this.where);
    const filled = await this.fill(bytes);
    return filled === count ? bytes : bytes.slice(0, filled);
  }

  /** Fills `bytes` with what comes next; returns how many there were: fewer only where the stream ends. */
  async fill(bytes: Uint8Array): Promise<number> {
    let filled = 0;
    await this.consume(bytes.length, (part) => {
      bytes.set(part, filled);
      filled += part.length;
    });
    return filled;
  }

  /** Passes over the next `count` bytes without keeping them; returns how many there were. */
  async skip(count: number): Promise<number> {
    let skipped = 0;
    await this.consume(count, (part) => {
      skipped += part.length;
    });
    return skipped;
  }

  /** Whether nothing is left; waits for the next chunk to know. */
  async isAtEnd(): Promise<boolean> {
    return this.chunk.length === 0 && !(await this.pull());
  }

  /** Lets go of the stream, and of the connection behind it where it was not read to its end. */
  async close(): Promise<void> {
    // A stream that failed rejects its cancellation with the same error, which its reader has already been told.
    await this.reader.cancel().catch(() => undefined);
  }

  private async consume(count: number, use: (part: Uint8Array) => void): Promise<void> {
    let left = count;
    while (left > 0) {
      if (this.chunk.length === 0 && !(await this.pull())) return;
      const part = this.chunk.subarray(0, left);
      use(part);
      this.chunk = this.chunk.subarray(part.length);
      left -= part.length;
    }
  }

  /** Makes `chunk` the next one that is not empty; false at the end of the stream. */
  private async pull(): Promise<boolean> {
    do {
      throwIfAborted(this.signal);
      const { done, value } = await this.reader.read().catch((cause: unknown) => {
        throwIfAborted(this.signal);
        if (cause instanceof MixdqError) throw cause;
        const message = `${this.where}: the stream broke off (${String(cause)}). Check the connection and try again.`;
        throw new MixdqError("network", message, { cause });
      });
      if (done) return false;
      this.onBytes?.(value.length);
      this.chunk = value;
    } while (this.chunk.length === 0);
    return true;
  }
}

export function allocate(count: number, where: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(count);
  } catch (cause) {
    const message = `${where}: no memory for a piece of ${count} bytes. Close other tabs, or use a smaller model.`;
    throw new MixdqError("out-of-memory", message, { cause });
  }
}
