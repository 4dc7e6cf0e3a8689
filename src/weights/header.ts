/**
 * The header of a safetensors file: eight bytes of length, then JSON that says of every tensor its dtype, shape and
 * place. The file is untrusted: every number is checked before it is used.
 * Format: https://github.com/huggingface/safetensors#format
 */
import { MixdqError } from "../base/errors.ts";
import { readJson, type Json, type JsonSource } from "../base/json.ts";
import { printable } from "../base/printable.ts";

/** Bytes of one element, of the dtypes that can be read. */
export const DTYPE_BYTES = {
  F64: 8,
  I64: 8,
  F32: 4,
  I32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;

export type TensorDType = keyof typeof DTYPE_BYTES;

/**
 * Bits of one element of the format's other dtypes (safetensors 0.8). A file may hold them, and more that are not
 * defined yet: what nothing reads is passed over.
 */
const FOREIGN_BITS: ReadonlyMap<string, number> = new Map([
  ["C64", 64],
  ["U64", 64],
  ["U32", 32],
  ["U16", 16],
  ["F8_E4M3", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2", 8],
  ["F8_E5M2FNUZ", 8],
  ["F8_E8M0", 8],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["F4", 4],
]);

/** What weights may be stored in. */
export type FloatDType = "F32" | "F16" | "BF16";

export interface TensorEntry {
  readonly name: string;
  /** A TensorDType (`isReadable`), or any other. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Bytes from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** In file order: without gaps, each beginning where the one before ends. */
  readonly tensors: readonly TensorEntry[];
  readonly metadata: ReadonlyMap<string, string>;
  /** Bytes of tensor data that follow the header. */
  readonly dataBytes: number;
}

/** A header as it stands in its file. */
export interface PlacedHeader extends SafetensorsHeader {
  /** Where its tensors' bytes are counted from, in bytes of the file. */
  readonly dataStart: number;
}

/** The bytes before the JSON: its length, little-endian. */
export const LENGTH_BYTES = 8;
/** The reference implementation's own limit; SDXL's UNet needs 0.2 MB. */
const MAX_HEADER_BYTES = 100_000_000;
/** SDXL's UNet has 1680; more than this is not a model of this family, and would stall the page. */
const MAX_TENSORS = 100_000;
/** Module paths are about 80 characters long; they end up in messages and labels. */
const MAX_NAME_LENGTH = 1024;
/** A convolution has four; one more than any tensor that could be in such a file. */
const MAX_RANK = 8;
/** A tensor that is read must fit into one JS buffer and one GPU buffer. CLIP's largest embedding takes 0.25 GB. */
export const MAX_TENSOR_BYTES = 2 ** 32;

/**
 * The length of the JSON, from the file's first eight bytes. `head` may be shorter than eight where the file is.
 * Throws `invalid-model` with a guess at what the file really is.
 */
export function readHeaderLength(head: Uint8Array, where: string): number {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const length = head.length < LENGTH_BYTES ? 0 : view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
  // A possible length first: 15,392 looks like the beginning of a page (" <"), but no text has the zeros after it.
  if (length < 2 || length > MAX_HEADER_BYTES) {
    const guess = guessContent(head);
    if (guess !== undefined) {
      throw invalid(where, guess, "a safetensors file", "Check the address, or download the file again.");
    }
    const got = head.length < LENGTH_BYTES ? `a file of ${head.length} bytes` : `a header of ${length} bytes`;
    throw invalid(where, got, `2 to ${MAX_HEADER_BYTES} bytes of header`, "This is not a safetensors file.");
  }
  return length;
}

/** What people really point us at when it is not a safetensors file. */
function guessContent(head: Uint8Array): string | undefined {
  const text = String.fromCharCode(...head.subarray(0, LENGTH_BYTES));
  if (/^\s*</.test(text)) return "an HTML or XML page (probably an error page)";
  if (text.startsWith("version ")) return "a Git LFS pointer, not the file itself (run `git lfs pull`)";
  if (text.startsWith("PK\x03\x04")) return "a ZIP or PyTorch .bin file (save the model with safe_serialization=True)";
  // Protocols 2 to 5.
  if (/^\x80[\x02-\x05]/.test(text)) return "a Python pickle, as .ckpt files are, which can run code when it is read";
  if (text.startsWith("GGUF")) return "a GGUF file";
  if (/^\s*[{[]"/.test(text)) return "a JSON file";
  return undefined;
}

/** Whether this package can read tensors of the dtype. */
export function isReadable(dtype: string): dtype is TensorDType {
  return Object.hasOwn(DTYPE_BYTES, dtype);
}

/** Bytes of a tensor, which may be no whole number; undefined for a dtype that is not known. */
export function tensorBytes(dtype: string, shape: readonly number[]): number | undefined {
  const bits = isReadable(dtype) ? 8 * DTYPE_BYTES[dtype] : FOREIGN_BITS.get(dtype);
  return bits === undefined ? undefined : (shape.reduce((product, size) => product * size, 1) * bits) / 8;
}

/**
 * The header's JSON, validated: names and ranks within limits, byte lengths as shape and dtype say, data without gaps or
 * overlaps. Of a dtype that is not known, the bytes are taken as they are given. Throws `invalid-model`.
 */
export function parseHeader(json: Uint8Array, where: string): SafetensorsHeader {
  const source: JsonSource = { where, code: "invalid-model", advice: REPLACE };
  // As the format says: no white space, no byte order mark. Behind the JSON there may be white space.
  if (json[0] !== 0x7b) throw invalid(where, "a header that does not begin with {", "one entry per tensor", REPLACE);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(json);
  } catch {
    throw invalid(where, "a header that is not UTF-8", "JSON in UTF-8", REPLACE);
  }
  const header = readJson(text, source, { most: MAX_HEADER_BYTES, what: "one entry per tensor", uniqueKeys: true });
  const entries = header.entries("tensors", 0, MAX_TENSORS + 1);
  const tensors = entries.filter(([name]) => name !== METADATA).map(([name, entry]) => parseEntry(name, entry, header));
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);

  let end = 0;
  for (const tensor of tensors) {
    if (tensor.begin !== end)
      throw invalid(
        `${where}: ${printable(tensor.name)}`,
        `data from byte ${tensor.begin}`,
        `byte ${end}, where the tensor before ends`,
        REPLACE,
      );
    end = tensor.end;
  }
  const metadata = header
    .get(METADATA)
    .or({})
    .entries("metadata", 0, MAX_TENSORS)
    .map(([key, value]): [string, string] => [key, value.string()]);
  return { tensors, metadata: new Map(metadata), dataBytes: end };
}

const METADATA = "__metadata__";
const REPLACE = "The file is damaged: download or save it again.";

function parseEntry(name: string, entry: Json, header: Json): TensorEntry {
  if (name.length > MAX_NAME_LENGTH)
    throw header.inside(`a tensor name of ${name.length} characters`, `at most ${MAX_NAME_LENGTH}`);
  const dtype = entry.get("dtype").string("the name of a number type");
  const shape = entry
    .get("shape")
    .items(0, MAX_RANK)
    .map((size) => size.integer(0, Number.MAX_SAFE_INTEGER));
  const offsets = entry.get("data_offsets");
  const [begin, end] = offsets.items(2, 2).map((offset) => offset.integer(0, Number.MAX_SAFE_INTEGER)) as [
    number,
    number,
  ];
  if (end < begin) offsets.fail("[begin, end]");
  const expected = tensorBytes(dtype, shape);
  if (expected !== undefined && end - begin !== expected)
    throw entry.inside(`${end - begin} bytes`, `${expected} for ${dtype} [${shape.join(", ")}]`);
  return { name, dtype, shape, begin, end };
}

function invalid(where: string, got: string, expected: string, advice: string): MixdqError {
  return new MixdqError("invalid-model", `${where}: got ${got}, expected ${expected}. ${advice}`);
}
