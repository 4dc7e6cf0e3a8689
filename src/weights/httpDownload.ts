/**
 * One file's bytes from the first to the last, over as many requests as that takes. A body that breaks off is continued
 * by Range where the server proves that the file is still the same; else the file is asked for once more, and what had
 * come before is passed over, compared with what had been given out. Wrong bytes are never given out.
 */
import { MixdqError } from "../base/errors.ts";
import type { ByteSpan } from "./files.ts";
import type { Answer, Connection, Exchange } from "./httpExchange.ts";

export class Download {
  /** Where reading ends, of the file as it will be read; 0 where the server does not say, or sends it compressed. */
  readonly bytes: number;
  /** Of a part: where it begins and ends. */
  readonly #span: ByteSpan | undefined;
  /** Of the whole file; 0 where that is not known. */
  readonly #totalBytes: number;
  readonly #exchange: Exchange;
  readonly #isEncoded: boolean;
  /** What proves that another answer is about the same bytes. */
  #validator: string | undefined;
  #connection!: Connection;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** Bytes given out. */
  #position = 0;
  /** Their checksum, kept where there is no validator. */
  #checksum = FNV_OFFSET;
  #isRestarted = false;
  /** Bytes of the second body that the first one has brought already, and their checksum so far. */
  #known = 0;
  #knownChecksum = FNV_OFFSET;

  /** `answer` is the first, with status 200; or the part `span` of the file (`isPart`). */
  constructor(exchange: Exchange, answer: Answer, span?: ByteSpan) {
    this.#exchange = exchange;
    this.#span = span;
    this.#position = span?.begin ?? 0;
    this.#totalBytes = span ? totalOf(answer.response) : lengthOf(answer.response);
    this.bytes = span?.end ?? this.#totalBytes;
    this.#isEncoded = isEncoded(answer.response);
    this.#validator = validatorOf(answer.response);
    this.#take(answer);
    exchange.received(0);
  }

  /** The next bytes, undefined at the end. Throws `network`, `aborted`, and `integrity` for a file that has changed. */
  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      try {
        // After a restart, a part lies within the whole file.
        if (this.#span && this.#position === this.bytes) {
          this.cancel();
          return undefined;
        }
        const chunk = this.#reader && (await this.#connection.within(this.#reader.read())).value;
        if (chunk === undefined) {
          const isShort = this.#known > 0 || (this.bytes > 0 && this.#position < this.bytes);
          if (isShort) throw new Error(`the server closed the stream, expected ${this.bytes} bytes`);
          return undefined;
        }
        const rest = this.#known > 0 ? this.#passOver(chunk) : chunk;
        const fresh = this.#span ? rest.subarray(0, this.bytes - this.#position) : rest;
        if (fresh.length === 0) continue;
        this.#position += fresh.length;
        if (this.#validator === undefined) this.#checksum = fnv1a(fresh, this.#checksum);
        this.#exchange.received(fresh.length);
        return fresh;
      } catch (cause) {
        this.cancel();
        // A connection may break after the last byte, where its end was still to come.
        if (this.bytes > 0 && this.#position === this.bytes && !this.#exchange.signal?.aborted) return undefined;
        await this.#exchange.pause(cause);
        await this.#resume(cause);
      }
    }
  }

  cancel(): void {
    this.#connection.close();
  }

  #take(answer: Answer): void {
    this.#connection = answer.connection;
    this.#reader = answer.response.body?.getReader();
  }

  async #resume(cause: unknown): Promise<void> {
    if (this.#position > 0 && this.#validator !== undefined && !this.#isEncoded) {
      const answer = await this.#exchange.get(`bytes=${this.#position}-${this.#span ? this.bytes - 1 : ""}`);
      this.#known = 0;
      if (this.#isRest(answer.response)) return this.#take(answer);
      if (answer.response.status === 200) return this.#restart(answer, cause);
      answer.connection.close();
    }
    await this.#restart(await this.#exchange.get(), cause);
  }

  /** With an answer that begins at the file's beginning. */
  async #restart(answer: Answer, cause: unknown): Promise<void> {
    const { response, connection } = answer;
    const isAgain = this.#position > 0;
    // What lies before a part was never seen: without a validator, nothing proves that it is of the same file.
    if (this.#span && this.#validator === undefined) {
      connection.close();
      throw await this.#exchange.failure(cause);
    }
    if (response.status !== 200 || (isAgain && this.#isRestarted)) {
      connection.close();
      throw await this.#exchange.failure(response.status === 200 ? cause : new Error(`then status ${response.status}`));
    }
    const length = lengthOf(response);
    const validator = validatorOf(response);
    const isOther = length > 0 && this.#totalBytes > 0 && length !== this.#totalBytes;
    if (isOther || (isAgain && validator !== this.#validator)) {
      connection.close();
      throw this.#changed();
    }
    this.#isRestarted = isAgain;
    this.#validator = validator;
    this.#known = this.#position;
    this.#knownChecksum = FNV_OFFSET;
    this.#take(answer);
  }

  /** What of `chunk` is new. */
  #passOver(chunk: Uint8Array): Uint8Array {
    const old = chunk.subarray(0, this.#known);
    this.#known -= old.length;
    if (this.#validator === undefined) {
      this.#knownChecksum = fnv1a(old, this.#knownChecksum);
      if (this.#known === 0 && this.#knownChecksum !== this.#checksum) throw this.#changed();
    }
    return chunk.subarray(old.length);
  }

  /** Whether an answer is the rest of the file, and nothing else. */
  #isRest(response: Response): boolean {
    if (response.status !== 206 || isEncoded(response) || validatorOf(response) !== this.#validator) return false;
    const range = response.headers.get("content-range");
    // Other sites may hide it from a page, but not the length.
    if (range === null) return this.bytes > 0 && lengthOf(response) === this.bytes - this.#position;
    const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range.trim()) ?? [];
    const isSame = total === "*" || this.#totalBytes === 0 || Number(total) === this.#totalBytes;
    return Number(first) === this.#position && isSame;
  }

  #changed(): MixdqError {
    const what = `the file changed on the server while it was read (after ${this.#position} bytes)`;
    return new MixdqError("integrity", `${this.#exchange.target.where}: ${what}. Load the model again.`);
  }
}

/** Whether an answer is exactly the part that was asked for; not of one that is sent compressed. */
export function isPart(response: Response, { begin, end }: ByteSpan): boolean {
  if (response.status !== 206 || isEncoded(response)) return false;
  const range = response.headers.get("content-range");
  if (range === null) return lengthOf(response) === end - begin;
  const [, first, last] = /^bytes (\d+)-(\d+)\/(?:\d+|\*)$/.exec(range.trim()) ?? [];
  return Number(first) === begin && Number(last) === end - 1;
}

/** Of the whole file that an answer is a part of; 0 where it does not say. */
function totalOf({ headers }: Response): number {
  return Number(/\/(\d+)$/.exec(headers.get("content-range")?.trim() ?? "")?.[1] ?? 0);
}

/** Of the body as it will be read; 0 where that is not known. */
export function lengthOf(response: Response): number {
  const length = Number(response.headers.get("content-length") ?? 0);
  return !isEncoded(response) && Number.isSafeInteger(length) && length > 0 ? length : 0;
}

/** Then the length is that of the compressed bytes, which are not those that will be seen. */
function isEncoded({ headers }: Response): boolean {
  return (headers.get("content-encoding") ?? "identity") !== "identity";
}

/**
 * A strong validator of RFC 9110 section 8.8: an ETag that is not weak, or a date of change that is older than the second
 * in which the answer was made. undefined where there is none.
 */
function validatorOf({ headers }: Response): string | undefined {
  const etag = headers.get("etag");
  if (etag?.startsWith('"')) return etag;
  const changed = headers.get("last-modified");
  // Sites may hide the date of an answer, and this clock may be wrong by a little.
  const asked = Date.parse(headers.get("date") ?? "") || Date.now() - 60_000;
  if (changed === null || !(asked - Date.parse(changed) >= 1000)) return undefined;
  return `${changed} ${etag ?? ""}`;
}

const FNV_OFFSET = 0x811c9dc5 | 0;

/** FNV-1a of 32 bits, http://www.isthe.com/chongo/tech/comp/fnv. */
function fnv1a(bytes: Uint8Array, hash: number): number {
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash;
}
