/** Writes a pack as its tensors come, holding one shard at a time. The same tensors in the same order give the same bytes. */
import { MixdqError } from "../base/errors.ts";
import {
  MANIFEST,
  MAX_FILE_BYTES,
  MAX_SHARD_BYTES,
  PACK_ALIGNMENT,
  writeManifest,
  type PackManifest,
  type PackShard,
  type PackTensor,
} from "./packManifest.ts";
import { sha256 } from "./sha256.ts";

/** Where the files of a pack go; paths are relative and use forward slashes. `bytes` is only lent. */
export interface PackSink {
  write(path: string, bytes: Uint8Array): Promise<void>;
}

export class PackWriter {
  readonly #sink: PackSink;
  readonly #buffer: Uint8Array<ArrayBuffer>;
  #filled = 0;
  readonly #shards: PackShard[] = [];
  readonly #files = new Map<string, { bytes: number; sha256: string }>();
  readonly #components = new Map<string, PackTensor[]>();
  #tensors: PackTensor[] = [];

  /** Smaller shards than the default are for tests. */
  constructor(sink: PackSink, shardBytes = MAX_SHARD_BYTES) {
    this.#sink = sink;
    this.#buffer = new Uint8Array(shardBytes);
  }

  /** A file beside the shards, such as a config.json. */
  async file(path: string, text: string): Promise<void> {
    const bytes = new TextEncoder().encode(text);
    if (bytes.length > MAX_FILE_BYTES) {
      const got = `${bytes.length} bytes`;
      throw new MixdqError("unsupported", `${path}: got ${got}, a pack holds files of at most ${MAX_FILE_BYTES}.`);
    }
    await this.#sink.write(path, bytes);
    this.#files.set(path, { bytes: bytes.length, sha256: await sha256(bytes) });
  }

  /** What follows belongs to this component (`unet`), in shards of its own. */
  async component(name: string): Promise<void> {
    await this.#endShard();
    this.#components.set(name, (this.#tensors = []));
  }

  /** A tensor of the component. Where it must be cut it is cut after a multiple of `unit` bytes. */
  async tensor(
    tensor: Pick<PackTensor, "name" | "format" | "shape">,
    content: ArrayBufferView,
    unit = PACK_ALIGNMENT,
  ): Promise<void> {
    const bytes = new Uint8Array(content.buffer, content.byteOffset, content.byteLength);
    const begin = Math.ceil(this.#filled / PACK_ALIGNMENT) * PACK_ALIGNMENT;
    if (begin > 0 && begin + bytes.length > this.#buffer.length) await this.#endShard();
    else {
      this.#buffer.fill(0, this.#filled, begin);
      this.#filled = begin;
    }
    const { name, format, shape } = tensor;
    this.#tensors.push({ name, format, shape, shard: this.#shards.length, offset: this.#filled, bytes: bytes.length });
    const most = Math.floor(this.#buffer.length / unit) * unit;
    if (most === 0) throw new MixdqError("unsupported", `${name}: got rows of ${unit / 4} bytes, too long for a pack.`);
    let from = 0;
    for (; this.#filled === 0 && bytes.length - from > this.#buffer.length; from += most) {
      this.#buffer.set(bytes.subarray(from, from + most));
      this.#filled = most;
      await this.#endShard();
    }
    this.#buffer.set(bytes.subarray(from), this.#filled);
    this.#filled += bytes.length - from;
  }

  /** Writes the last shard and then the manifest, without which a folder is no pack. */
  async finish(about: Pick<PackManifest, "model" | "config" | "licence" | "bos">): Promise<PackManifest> {
    await this.#endShard();
    const manifest = { ...about, files: this.#files, shards: this.#shards, components: this.#components };
    await this.#sink.write(MANIFEST, new TextEncoder().encode(writeManifest(manifest)));
    return manifest;
  }

  async #endShard(): Promise<void> {
    if (this.#filled === 0) return;
    const bytes = this.#buffer.subarray(0, this.#filled);
    const file = `shard-${String(this.#shards.length + 1).padStart(5, "0")}.bin`;
    await this.#sink.write(file, bytes);
    this.#shards.push({ file, bytes: bytes.length, sha256: await sha256(bytes) });
    this.#filled = 0;
  }
}
