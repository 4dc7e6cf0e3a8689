/**
 * A file's bytes in order, each block from where it can be had: from here, where it is kept and what it was, else from the
 * source, and kept on its way to the reader. One block and one of the source's chunks are in memory at a time.
 */
import { MixdqError } from "../../base/errors.ts";
import { digestOf, type Journal } from "./journal.ts";
import type { Storage } from "./storage.ts";

/** Of blocks that are kept, so much is read and checked at once. */
const READ_BYTES = 4 * 2 ** 20;

export interface Parts {
  /** For messages. */
  readonly where: string;
  readonly storage: Storage;
  /** The data's name in the storage. */
  readonly data: string;
  readonly journal: Journal;
  /** Bytes of the file; 0 if unknown. */
  readonly bytes: number;
  /** The source's bytes from `from` to `end`, Infinity: to the file's own. */
  fetch(from: number, end: number): Promise<ReadableStream<Uint8Array>>;
  /** Before the first block is written. */
  mayWrite(): Promise<boolean>;
  /** A block could not be written; whether it is worth another try. Throws where the reader should hear of it. */
  onWriteError(error: unknown): Promise<boolean>;
  /** Everything has been read, or nobody wants more. */
  onEnd(): Promise<void>;
}

export function keptStream(parts: Parts): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reading = new Reading(parts);
  return new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      async pull(controller) {
        try {
          const chunk = await reading.next();
          if (chunk) return controller.enqueue(chunk);
          await reading.close();
          controller.close();
        } catch (error) {
          await reading.close();
          throw error;
        }
      },
      cancel: () => reading.close(),
    },
    // No reading ahead: what the GPU has not taken is not asked for.
    { highWaterMark: 0 },
  );
}

class Reading {
  readonly #parts: Parts;
  #position = 0;
  /** The source's stream, and where it ends. */
  #source: ReadableStreamDefaultReader<Uint8Array> | undefined;
  #sourceEnd = 0;
  /** What of the current block has come from the source. */
  readonly #block: Uint8Array<ArrayBuffer>;
  #filled = 0;
  #keeps: boolean | undefined;
  #isOver = false;
  #isClosed = false;

  constructor(parts: Parts) {
    this.#parts = parts;
    const { block } = parts.journal.header;
    this.#block = new Uint8Array(parts.bytes > 0 ? Math.min(block, parts.bytes) : block);
  }

  /** undefined at the end. */
  async next(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    for (;;) {
      if (this.#isAtEnd()) {
        await this.#finish();
        return undefined;
      }
      const chunk = this.#source ? await this.#fromSource() : await this.#fromHere();
      if (chunk && chunk.length > 0) return chunk;
    }
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // A stream that failed rejects its cancellation with the error that its reader has been told.
    await this.#source?.cancel().catch(() => undefined);
    const { storage, data, journal, onEnd } = this.#parts;
    if (this.#keeps) await Promise.all([storage.close(data), journal.close()]).catch(() => undefined);
    await onEnd();
  }

  #isAtEnd(): boolean {
    const { bytes, journal } = this.#parts;
    return this.#isOver || (!this.#source && this.#position >= (journal.end ?? (bytes || Infinity)));
  }

  /** Blocks that are kept and whole; where there are none, opens the source for as many as are missing. */
  async #fromHere(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const { storage, data, journal, bytes } = this.#parts;
    const { block } = journal.header;
    const end = journal.end ?? (bytes || Infinity);
    const first = this.#position / block;
    const most = Math.max(1, Math.floor(READ_BYTES / block));
    let count = 0;
    while (count < most && journal.digests.has(first + count)) count++;
    if (count === 0) {
      const later = [...journal.digests.keys()].filter((index) => index > first);
      this.#sourceEnd = later.reduce((least, index) => Math.min(least, index * block), end);
      this.#keeps ??= await this.#parts.mayWrite();
      this.#source = (await this.#parts.fetch(this.#position, this.#sourceEnd)).getReader();
      return undefined;
    }
    const wanted = Math.min(count * block, end - this.#position);
    const read = await storage.read(data, this.#position, wanted).catch(() => new Uint8Array());
    const views = Array.from({ length: count }, (_, i) => read.subarray(i * block, Math.min((i + 1) * block, wanted)));
    const digests = await Promise.all(views.map(digestOf));
    const good = digests.findIndex((digest, i) => digest !== journal.digests.get(first + i));
    // Damaged, or of a write that never reached the disk: as if it had not been written.
    if (good >= 0) journal.digests.delete(first + good);
    const whole = read.subarray(0, good < 0 ? wanted : good * block);
    this.#position += whole.length;
    return whole;
  }

  async #fromSource(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const { done, value } = await this.#source!.read();
    const { journal, bytes } = this.#parts;
    if (!done) {
      if (this.#position + value.length > (bytes || Infinity)) throw this.#broken(this.#position + value.length);
      await this.#keep(value);
      this.#position += value.length;
      return value as Uint8Array<ArrayBuffer>;
    }
    this.#source = undefined;
    if (this.#sourceEnd < Infinity && this.#position < this.#sourceEnd) throw this.#broken(this.#position);
    if (this.#position < (journal.end ?? bytes)) return undefined;
    if (this.#filled > 0) await this.#write(this.#position - this.#filled, this.#filled);
    this.#isOver = true;
    return undefined;
  }

  /** All of it has been read: the file counts as whole from now on. */
  async #finish(): Promise<void> {
    const { journal } = this.#parts;
    if (journal.end !== undefined) return;
    this.#keeps ??= await this.#parts.mayWrite();
    await this.#try(() => journal.addEnd(this.#position));
  }

  /** The chunk, cut into blocks. */
  async #keep(chunk: Uint8Array): Promise<void> {
    const { block } = this.#parts.journal.header;
    for (let at = 0; at < chunk.length && this.#keeps;) {
      const part = chunk.subarray(at, at + block - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled === block) await this.#write(this.#position + at - block, block);
    }
  }

  async #write(at: number, count: number): Promise<void> {
    this.#filled = 0;
    const { storage, data, journal } = this.#parts;
    const bytes = this.#block.subarray(0, count);
    await this.#try(async () => {
      await storage.write(data, at, bytes);
      await journal.addBlock(at / journal.header.block, await digestOf(bytes));
    });
  }

  /** A write that fails is no reason to stop reading, unless the parts say so. */
  async #try(write: () => Promise<void>): Promise<void> {
    while (this.#keeps) {
      try {
        return await write();
      } catch (error) {
        this.#keeps = await this.#parts.onWriteError(error);
      }
    }
  }

  #broken(got: number): MixdqError {
    const { bytes, where } = this.#parts;
    const message = `${where}: got ${got} bytes, expected ${bytes}. Load the model again.`;
    return new MixdqError("integrity", message);
  }
}
