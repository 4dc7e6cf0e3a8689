/**
 * What is known of a kept file, in a file beside it: which version it is, then one line for every block that has been
 * written, with its SHA-256, and one for its end. Lines are only ever added, a block's after the block itself, so whatever
 * is interrupted or damaged leaves blocks that count as missing, never ones that are wrong.
 */
import { isObject } from "../../base/json.ts";
import { tryJsonText } from "../../base/jsonText.ts";
import type { FileVersion } from "../files.ts";
import { sha256 } from "../sha256.ts";
import type { Storage } from "./storage.ts";

const FORMAT = "mixdq-kept";
const VERSION = 1;
/** Of 4,096 blocks of the largest files; a line has 72 bytes. */
const MAX_BYTES = 4 * 2 ** 20;

/** What an interruption may lose is one block: a thousandth of a file, within what reads and hashes well. */
const LEAST_BLOCK = 16 * 2 ** 10;
const MOST_BLOCK = 4 * 2 ** 20;
const BLOCKS = 1024;
const UNKNOWN_BLOCK = 256 * 2 ** 10;

export const blockBytes = (bytes: number): number =>
  bytes === 0 ? UNKNOWN_BLOCK : Math.min(MOST_BLOCK, Math.max(LEAST_BLOCK, 2 ** Math.ceil(Math.log2(bytes / BLOCKS))));

/** What its source said of the file when it was fetched; `isThere` false: that there is none. */
export interface Header {
  readonly isThere: boolean;
  readonly version: FileVersion;
  /** Where the one who asked knew it. */
  readonly sha256: string | undefined;
  readonly block: number;
}

export class Journal {
  readonly header: Header;
  /** Of blocks that are there, by number. */
  readonly digests = new Map<number, string>();
  /** Bytes of the whole file, once it has been written to its end. */
  end: number | undefined;
  readonly #storage: Storage;
  readonly #name: string;
  #length: number;

  private constructor(storage: Storage, name: string, header: Header, length: number) {
    this.#storage = storage;
    this.#name = name;
    this.header = header;
    this.#length = length;
  }

  /** undefined where there is none, or none that can be read. */
  static async read(storage: Storage, name: string): Promise<Journal | undefined> {
    const bytes = await storage.read(name, 0, MAX_BYTES);
    const [first = "", ...lines] = new TextDecoder().decode(bytes).split("\n");
    const header = readHeader(first);
    if (!header) return undefined;
    const journal = new Journal(storage, name, header, bytes.length);
    for (const line of lines) await journal.#take(line);
    return journal;
  }

  /** In place of whatever was there. */
  static async begin(storage: Storage, name: string, header: Header): Promise<Journal> {
    const { version, ...rest } = header;
    const line = JSON.stringify({ format: FORMAT, version: VERSION, of: version, ...rest });
    const bytes = new TextEncoder().encode(line);
    await storage.remove(name);
    await storage.write(name, 0, bytes);
    return new Journal(storage, name, header, bytes.length);
  }

  get isComplete(): boolean {
    if (!this.header.isThere || this.end === undefined) return false;
    for (let i = 0; i * this.header.block < this.end; i++) if (!this.digests.has(i)) return false;
    return true;
  }

  /** Bytes of the blocks that are there. */
  get bytes(): number {
    const { block, version } = this.header;
    const total = this.end ?? (version.bytes || Infinity);
    return [...this.digests.keys()].reduce((sum, i) => sum + Math.max(0, Math.min(block, total - i * block)), 0);
  }

  async addBlock(index: number, digest: string): Promise<void> {
    await this.#append(`b ${index} ${digest}`);
    this.digests.set(index, digest);
  }

  async addEnd(bytes: number): Promise<void> {
    await this.#append(await endLine(bytes));
    this.end = bytes;
  }

  close(): Promise<void> {
    return this.#storage.close(this.#name);
  }

  /** The line's break comes first: a line that was cut off must not spoil the next. */
  async #append(line: string): Promise<void> {
    const bytes = new TextEncoder().encode(`\n${line}`);
    await this.#storage.write(this.#name, this.#length, bytes);
    this.#length += bytes.length;
  }

  async #take(line: string): Promise<void> {
    const [, index, digest] = /^b (\d{1,9}) ([0-9a-f]{64})$/.exec(line) ?? [];
    if (index !== undefined) this.digests.set(Number(index), digest!);
    const [, end] = /^e (\d{1,15}) /.exec(line) ?? [];
    if (end !== undefined && line === (await endLine(Number(end)))) this.end = Number(end);
  }
}

/** With a checksum: a number that was cut off, or has a wrong bit, is a number too. */
const endLine = async (bytes: number): Promise<string> =>
  `e ${bytes} ${await sha256(new TextEncoder().encode(String(bytes)))}`;

function readHeader(line: string): Header | undefined {
  const json = tryJsonText(line);
  if (!isObject(json) || json["format"] !== FORMAT || json["version"] !== VERSION || !isObject(json["of"])) return;
  const { isThere, block, sha256 } = json;
  const { bytes, tag, isStrong } = json["of"];
  const isKnown =
    typeof isThere === "boolean" &&
    Number.isSafeInteger(bytes) &&
    Number.isSafeInteger(block) &&
    (block as number) >= 1 &&
    (block as number) <= MOST_BLOCK &&
    typeof isStrong === "boolean" &&
    [tag, sha256].every((text) => text === undefined || typeof text === "string");
  if (!isKnown) return;
  const version = { bytes, tag, isStrong } as FileVersion;
  return { isThere, version, sha256: sha256 as string | undefined, block: block as number };
}

/** Of a block, in hexadecimal. */
export const digestOf = (bytes: Uint8Array<ArrayBuffer>): Promise<string> => sha256(bytes);
