/**
 * One file's bytes from the first to the last, over as many requests as that takes. A body that breaks off is continued
 * by Range where the server proves that the file is still the same; else the file is asked for once more, and what had
 * come before is passed over, compared with what had been given out. Wrong bytes are never given out.
 */
import { MixdqError } from "../base/errors.ts";
import type { FilePart, FileVersion } from "./files.ts";
import type { Answer, Connection, Exchange } from "./httpExchange.ts";

export class Download {
  /** Of the file as it will be read; 0 where the server does not say, or sends it compressed. */
  readonly bytes: number;
  readonly #exchange: Exchange;
  readonly #isEncoded: boolean;
  /** What proves that another answer is about the same bytes. */
  #validator: string | undefined;
  #connection: Connection | undefined;
  #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** Bytes given out, or had before. */
  #position = 0;
  /** Of a part: where it ends. */
  #end = Infinity;
  /** Whether another answer is about the same bytes is known without a validator. */
  #isTrusted = false;
  /** Their checksum, kept where there is no validator. */
  #checksum = FNV_OFFSET;
  #isRestarted = false;
  /** Bytes of the second body that the first one has brought already, and their checksum so far. */
  #known = 0;
  #knownChecksum = FNV_OFFSET;

  private constructor(exchange: Exchange, bytes: number, isEncoded: boolean, validator: string | undefined) {
    this.#exchange = exchange;
    this.bytes = bytes;
    this.#isEncoded = isEncoded;
    this.#validator = validator;
  }

  /** A file from its beginning; `answer` is the first, with status 200. */
  static of(exchange: Exchange, answer: Answer): Download {
    const { response } = answer;
    const download = new Download(exchange, lengthOf(response), isEncoded(response), validatorOf(response));
    download.#take(answer);
    exchange.received(0);
    return download;
  }

  /** A part of a file; a version without a tag is one that nothing has to prove. Throws as `read`. */
  static async part(exchange: Exchange, { from, end, version }: FilePart): Promise<Download> {
    const download = new Download(exchange, version.bytes, false, version.tag);
    download.#position = from;
    download.#end = end;
    download.#isTrusted = version.tag === undefined;
    await download.#resume(new Error("the server gives no parts"));
    exchange.received(0);
    return download;
  }

  /** The next bytes, undefined at the end. Throws `network`, `aborted`, and `integrity` for a file that has changed. */
  async read(): Promise<Uint8Array | undefined> {
    for (;;) {
      try {
        if (this.#position === this.#end) return void this.cancel();
        const chunk = this.#reader && (await this.#connection!.within(this.#reader.read())).value;
        if (chunk === undefined) {
          const isShort = this.#known > 0 || this.#end < Infinity || (this.bytes > 0 && this.#position < this.bytes);
          if (isShort) throw new Error(`the server closed the stream, expected ${this.bytes} bytes`);
          return undefined;
        }
        const news = this.#known > 0 ? this.#passOver(chunk) : chunk;
        const fresh = news.subarray(0, this.#end - this.#position);
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
    this.#connection?.close();
  }

  #take(answer: Answer): void {
    this.#connection = answer.connection;
    this.#reader = answer.response.body?.getReader();
  }

  async #resume(cause: unknown): Promise<void> {
    const isKnown = this.#isTrusted || this.#validator !== undefined;
    if ((this.#position > 0 || this.#end < Infinity) && isKnown && !this.#isEncoded) {
      const last = this.#end < Infinity ? this.#end - 1 : "";
      const answer = await this.#exchange.get(`bytes=${this.#position}-${last}`);
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
    if (response.status !== 200 || (isAgain && this.#isRestarted)) {
      connection.close();
      throw await this.#exchange.failure(response.status === 200 ? cause : new Error(`then status ${response.status}`));
    }
    const length = lengthOf(response);
    const validator = validatorOf(response);
    const isOther = length > 0 && this.bytes > 0 && length !== this.bytes;
    const hasToAgree = !this.#isTrusted && (isAgain || this.#end < Infinity);
    if (isOther || (hasToAgree && validator !== this.#validator)) {
      connection.close();
      throw this.#changed();
    }
    this.#isRestarted = isAgain;
    if (!this.#isTrusted) this.#validator = validator;
    this.#known = this.#position;
    this.#knownChecksum = FNV_OFFSET;
    this.#take(answer);
  }

  /** What of `chunk` is new. */
  #passOver(chunk: Uint8Array): Uint8Array {
    const old = chunk.subarray(0, this.#known);
    this.#known -= old.length;
    if (this.#validator === undefined && !this.#isTrusted) {
      this.#knownChecksum = fnv1a(old, this.#knownChecksum);
      if (this.#known === 0 && this.#knownChecksum !== this.#checksum) throw this.#changed();
    }
    return chunk.subarray(old.length);
  }

  /** Whether an answer is the rest of the file, and nothing else. */
  #isRest(response: Response): boolean {
    if (response.status !== 206 || isEncoded(response)) return false;
    if (!this.#isTrusted && validatorOf(response) !== this.#validator) return false;
    const range = response.headers.get("content-range");
    // Other sites may hide it from a page, but not the length.
    if (range === null)
      return this.bytes > 0 && lengthOf(response) === Math.min(this.#end, this.bytes) - this.#position;
    const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(range.trim()) ?? [];
    return Number(first) === this.#position && (total === "*" || this.bytes === 0 || Number(total) === this.bytes);
  }

  #changed(): MixdqError {
    const what = `the file changed on the server while it was read (after ${this.#position} bytes)`;
    return new MixdqError("integrity", `${this.#exchange.target.where}: ${what}. Load the model again.`);
  }
}

/** Which version of its file an answer is about. */
export function versionOf(response: Response): FileVersion {
  const strong = validatorOf(response);
  const { headers } = response;
  const [, total] = /\/(\d+)$/.exec(headers.get("content-range") ?? "") ?? [];
  const isPart = response.status === 206;
  return {
    bytes: isPart ? Number(total ?? 0) : lengthOf(response),
    // A weak tag still says whether the meaning is the same, which is what a file kept here has to know.
    tag: strong ?? headers.get("etag") ?? headers.get("last-modified") ?? undefined,
    isStrong: strong !== undefined,
  };
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
