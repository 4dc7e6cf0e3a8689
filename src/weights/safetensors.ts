/**
 * Safetensors files: weights streamed tensor by tensor (a file of 5 GB never needs 5 GB), and small files of inputs and
 * outputs read and written whole. Little-endian throughout, as the format and every machine with WebGPU are.
 */
import { MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { ByteReader } from "./byteReader.ts";
import type { FileStream } from "./files.ts";
import { LENGTH_BYTES, MAX_TENSOR_BYTES, parseHeader, readHeaderLength, tensorBytes } from "./header.ts";
import type { FloatDType, PlacedHeader, TensorEntry } from "./header.ts";

export interface StreamOptions {
  readonly signal?: AbortSignal | undefined;
  /** Which tensors to yield; asked once for each, in file order. The others are passed over. Default: all. */
  readonly wanted?: ((name: string) => boolean) | undefined;
  /** Told how many bytes have just arrived. */
  readonly onBytes?: ((count: number) => void) | undefined;
}

/** One weight, in the checkpoint's own dtype and order; `bytes` is a buffer of its own that the caller may keep. */
export interface WeightTensor {
  readonly name: string;
  readonly dtype: FloatDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/**
 * The wanted tensors of a file in file order, holding one at a time. `where` is the file, for messages. Ending the loop
 * early closes the stream. Throws `invalid-model` for what is not a valid file or a wanted tensor that is not F32, F16
 * or BF16, `integrity` for a file longer or shorter than its header says, `network` and `aborted`.
 */
export async function* streamTensors(
  stream: FileStream,
  where: string,
  { signal, wanted = () => true, onBytes }: StreamOptions = {},
): AsyncGenerator<WeightTensor, void, undefined> {
  const reader = new ByteReader(stream.body, where, signal, onBytes);
  try {
    const header = await readHeader(reader, where);
    // Where the size is known, a damaged file is refused before gigabytes of it have been read.
    const expected = header.dataStart + header.dataBytes;
    if (stream.bytes > 0 && stream.bytes < expected)
      throw truncated(where, `the file has ${stream.bytes} of ${expected} bytes`);
    if (stream.bytes > expected) throw tooLong(where);
    for (const entry of header.tensors) {
      if (wanted(entry.name)) yield await readTensor(reader, entry, where);
      else await skipTensor(reader, entry, where);
    }
    if (!(await reader.isAtEnd())) throw tooLong(where);
  } finally {
    await reader.close();
  }
}

/** What a file holds, from its header alone; closes the stream. Throws as `streamTensors`. */
export async function readSafetensorsHeader(
  stream: FileStream,
  where: string,
  signal?: AbortSignal,
): Promise<PlacedHeader> {
  const reader = new ByteReader(stream.body, where, signal);
  try {
    return await readHeader(reader, where);
  } finally {
    await reader.close();
  }
}

async function readHeader(reader: ByteReader, where: string): Promise<PlacedHeader> {
  const length = readHeaderLength(await reader.read(LENGTH_BYTES), where);
  const json = await reader.read(length);
  if (json.length < length) throw truncated(where, `the header ends after ${json.length} of ${length} bytes`);
  return { ...parseHeader(json, where), dataStart: LENGTH_BYTES + length };
}

async function readTensor(reader: ByteReader, entry: TensorEntry, where: string): Promise<WeightTensor> {
  const { name, dtype, shape } = entry;
  const here = `${where}: ${printable(name)}`;
  if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") {
    throw new MixdqError(
      "invalid-model",
      `${here}: got dtype ${printable(dtype)}, expected weights in F32, F16 or BF16. Save the model in one of these ` +
        `(in diffusers: model.to(torch.float16).save_pretrained(...)).`,
    );
  }
  const length = entry.end - entry.begin;
  if (length > MAX_TENSOR_BYTES)
    throw new MixdqError(
      "invalid-model",
      `${here}: got ${length} bytes, expected at most ${MAX_TENSOR_BYTES} in one tensor. Use a smaller model.`,
    );
  const bytes = await reader.read(length);
  if (bytes.length < length) throw truncated(where, `${printable(name)} has ${bytes.length} of ${length} bytes`);
  return { name, dtype, shape, bytes };
}

async function skipTensor(reader: ByteReader, entry: TensorEntry, where: string): Promise<void> {
  const length = entry.end - entry.begin;
  const skipped = await reader.skip(length);
  if (skipped < length) throw truncated(where, `${printable(entry.name)} has ${skipped} of ${length} bytes`);
}

/** A tensor of a file in memory; `bytes` is a view of that file. */
export interface StoredTensor {
  /** As the file says: whoever reads the tensor refuses what it cannot read. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The tensors of a small file, by name. Throws `invalid-model` and `integrity`; `where` is the file, for messages. */
export function parseSafetensors(content: Uint8Array, where = "safetensors"): Map<string, StoredTensor> {
  // Node's Buffer is a Uint8Array whose slice() does not copy: everything below must see a plain one.
  const file = new Uint8Array(content.buffer, content.byteOffset, content.length);
  const length = readHeaderLength(file.subarray(0, LENGTH_BYTES), where);
  const start = LENGTH_BYTES + length;
  if (file.length < start) throw truncated(where, `the header ends after ${file.length - LENGTH_BYTES} bytes`);
  const header = parseHeader(file.subarray(LENGTH_BYTES, start), where);
  const dataBytes = file.length - start;
  if (dataBytes < header.dataBytes) throw truncated(where, `${dataBytes} of ${header.dataBytes} bytes of data`);
  if (dataBytes > header.dataBytes) throw tooLong(where);
  return new Map(
    header.tensors.map(({ name, dtype, shape, begin, end }) => [
      name,
      { dtype, shape, bytes: file.subarray(start + begin, start + end) },
    ]),
  );
}

/** What `writeSafetensors` takes: `data` holds the elements as the dtype stores them (Uint16Array for F16, BF16). */
export interface TensorToWrite {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: ArrayBufferView;
}

/**
 * A safetensors file, laid out as the reference implementation does (widest dtypes first, then by name, the header
 * padded to 8 bytes), so that every tensor is aligned. Throws `invalid-input` where data and shape disagree.
 */
export function writeSafetensors(
  tensors: Readonly<Record<string, TensorToWrite>>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const widthOf = ({ dtype }: TensorToWrite): number => tensorBytes(dtype, []) ?? 0;
  const sorted = Object.entries(tensors).sort(([a, x], [b, y]) => widthOf(y) - widthOf(x) || (a < b ? -1 : 1));
  // Entries, not assignments: a tensor may be called __proto__.
  const header: [string, unknown][] = metadata === undefined ? [] : [["__metadata__", metadata]];
  let dataBytes = 0;
  for (const [name, { dtype, shape, data }] of sorted) {
    const expected = tensorBytes(dtype, shape) ?? data.byteLength;
    if (data.byteLength !== expected) {
      const shapeText = `${dtype} [${shape.join(", ")}]`;
      const message = `${name}: got ${data.byteLength} bytes, expected ${expected} for ${shapeText}. Pass the right data.`;
      throw new MixdqError("invalid-input", message);
    }
    header.push([name, { dtype, shape, data_offsets: [dataBytes, dataBytes + expected] }]);
    dataBytes += expected;
  }

  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(header)));
  const headerBytes = Math.ceil(json.length / 8) * 8;
  const file = new Uint8Array(LENGTH_BYTES + headerBytes + dataBytes);
  new DataView(file.buffer).setUint32(0, headerBytes, true);
  file.fill(0x20, LENGTH_BYTES, LENGTH_BYTES + headerBytes);
  file.set(json, LENGTH_BYTES);
  let offset = LENGTH_BYTES + headerBytes;
  for (const [, { data }] of sorted) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
    offset += data.byteLength;
  }
  return file;
}

function truncated(where: string, what: string): MixdqError {
  const advice = "The file is cut short: download it again.";
  return new MixdqError("integrity", `${where}: ${what}, expected all of them. ${advice}`);
}

function tooLong(where: string): MixdqError {
  const advice = "The file is damaged: download it again.";
  return new MixdqError("integrity", `${where}: got bytes after the last tensor, expected the file's end. ${advice}`);
}
