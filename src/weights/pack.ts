/** Reading a pack: every file is checked against its SHA-256 before a byte of it is used, one shard is held at a time. */
import { MixdqError } from "../base/errors.ts";
import { allocate, ByteReader } from "./byteReader.ts";
import { listedFiles, readFileList } from "./fileList.ts";
import { noSuchFile, type ModelFiles } from "./files.ts";
import { MANIFEST, piecesOf, readManifest, type PackManifest, type PackTensor } from "./packManifest.ts";
import { sha256 } from "./sha256.ts";
import { refusePointer, SNIFF_BYTES } from "./sniff.ts";

/** Some bytes of a tensor, `from` its beginning; all of them for tensors that are not cut. */
export interface PackPart {
  readonly tensor: PackTensor;
  readonly from: number;
  /** A view of the shard, valid until the next part is asked for; begins at a multiple of 16 bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

export interface PartOptions {
  readonly signal?: AbortSignal | undefined;
  /** Told how many bytes of a file have just arrived, and its size. */
  readonly onBytes?: ((count: number, file: string, fileBytes: number) => void) | undefined;
}

/** A component's weights in a pack. */
export interface PackedComponent {
  readonly bytes: number;
  /**
   * All its tensors, in parts, in the pack's order; each call reads anew. Throws `integrity` for a shard that is not the
   * one that the manifest names, `invalid-model` where it is missing, and what the files throw.
   */
  parts(options?: PartOptions): AsyncGenerator<PackPart, void, undefined>;
}

export interface Pack {
  readonly manifest: PackManifest;
  /** The model's own files (configs, tokenizers): those that the manifest names, checked. */
  readonly files: ModelFiles;
  /** Throws `invalid-model` where the pack has no such component. */
  component(name: string): PackedComponent;
  /** A shard's content; `into` is a buffer to use where it is large enough. */
  readShard(index: number, options?: PartOptions, into?: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>>;
}

/** A model's files, and what it is packed in if it is a pack. */
export interface OpenModel {
  readonly files: ModelFiles;
  readonly pack: Pack | undefined;
}

/**
 * What manifest.json says about a folder: that it is a pack, or which files it has; without one, what is there is found
 * out file by file. Throws `invalid-model` for a manifest that is wrong.
 */
export async function openModel(source: ModelFiles, signal?: AbortSignal): Promise<OpenModel> {
  const where = `${source.location}/${MANIFEST}`;
  const text = await source.text(MANIFEST, signal);
  if (text === undefined) return { files: source, pack: undefined };
  const list = readFileList(text, where);
  if (list) return { files: source.isLocal ? source : listedFiles(source, list), pack: undefined };
  const manifest = readManifest(text, where);
  const pack = manifest && packOf(source, manifest);
  return { files: pack?.files ?? source, pack };
}

/** The pack in a folder, or undefined where there is none. Throws as `openModel`. */
export async function openPack(source: ModelFiles, signal?: AbortSignal): Promise<Pack | undefined> {
  return (await openModel(source, signal)).pack;
}

function packOf(source: ModelFiles, manifest: PackManifest): Pack {
  const where = `${source.location}/${MANIFEST}`;
  const sizes = manifest.shards.map(({ bytes }) => bytes);

  async function readShard(
    index: number,
    { signal, onBytes }: PartOptions = {},
    into?: Uint8Array<ArrayBuffer>,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const shard = manifest.shards[index];
    const here = `${source.location}/${shard.file}`;
    const stream = await source.open(shard.file, signal, shard);
    if (stream === undefined) throw noSuchFile(source, shard.file, `a shard that ${where} names`, COPY);
    const report = onBytes && ((count: number) => onBytes(count, shard.file, shard.bytes));
    const reader = new ByteReader(stream.body, here, signal, report);
    try {
      if (stream.bytes > 0 && stream.bytes !== shard.bytes) {
        refusePointer(await reader.read(Math.min(stream.bytes, SNIFF_BYTES)), here);
        throw wrongSize(here, stream.bytes, shard);
      }
      const room = into && into.length >= shard.bytes ? into : allocate(shard.bytes, here);
      const bytes = room.subarray(0, shard.bytes);
      const filled = await reader.fill(bytes);
      if (filled < shard.bytes) {
        refusePointer(bytes.subarray(0, filled), here);
        throw wrongSize(here, filled, shard);
      }
      if (!(await reader.isAtEnd())) throw wrongSize(here, "more", shard);
      await checkDigest(here, bytes, shard.sha256);
      return bytes;
    } catch (error) {
      if (error instanceof MixdqError && error.code === "integrity") await source.forget?.(shard.file);
      throw error;
    } finally {
      await reader.close();
    }
  }

  return {
    manifest,
    files: checkedFiles(source, manifest),
    readShard,
    component(name) {
      const tensors = manifest.components.get(name);
      if (tensors === undefined) {
        const got = [...manifest.components.keys()].join(", ");
        throw new MixdqError("invalid-model", `${where}: got ${got}, expected a component ${name} too. ${COPY}`);
      }
      const located = tensors.flatMap((tensor) => piecesOf(tensor, sizes).map((piece) => ({ tensor, ...piece })));
      const own = [...new Set(located.map(({ shard }) => shard))];
      return {
        bytes: own.reduce((sum, shard) => sum + sizes[shard], 0),
        async *parts(options) {
          // One buffer for all: a loader's memory must not wait for the garbage collector.
          const buffer = allocate(Math.max(...own.map((shard) => sizes[shard])), where);
          let next = 0;
          for (const shard of own) {
            const content = await readShard(shard, options, buffer);
            for (; located[next]?.shard === shard; next++) {
              const { tensor, from, offset, bytes } = located[next];
              yield { tensor, from, bytes: content.subarray(offset, offset + bytes) };
            }
          }
        },
      };
    },
  };
}

/** Only what the manifest names is there, and only as it was when the pack was written. */
function checkedFiles(source: ModelFiles, { files }: PackManifest): ModelFiles {
  return {
    location: source.location,
    refusalOf: (path) => source.refusalOf?.(path),
    reserve: async (bytes, signal) => source.reserve?.(bytes, signal),
    forget: async (path) => source.forget?.(path),
    size: async (path) => files.get(path)?.bytes,
    async text(path, signal) {
      const file = files.get(path);
      if (file === undefined) return undefined;
      const here = `${source.location}/${path}`;
      const text = await source.text(path, signal, file);
      if (text === undefined) throw noSuchFile(source, path, "one that the manifest names", COPY);
      const bytes = new TextEncoder().encode(text);
      try {
        if (bytes.length !== file.bytes) throw wrongSize(here, bytes.length, file);
        await checkDigest(here, bytes, file.sha256);
      } catch (error) {
        await source.forget?.(path);
        throw error;
      }
      return text;
    },
    open: async (path, signal) => (files.has(path) ? source.open(path, signal, files.get(path)) : undefined),
  };
}

async function checkDigest(where: string, bytes: Uint8Array<ArrayBuffer>, expected: string): Promise<void> {
  const got = await sha256(bytes);
  if (got === expected) return;
  throw new MixdqError("integrity", `${where}: got SHA-256 ${got}, expected ${expected}. ${AGAIN}`);
}

const COPY = "Copy the whole pack, or write it again with mixdq quantize.";
const AGAIN = "The file is damaged or of another pack: download it again.";

function wrongSize(where: string, got: number | string, { bytes }: { readonly bytes: number }): MixdqError {
  return new MixdqError("integrity", `${where}: got ${got} bytes, expected ${bytes}. ${AGAIN}`);
}
