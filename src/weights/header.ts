/**
 * The header of a safetensors file: eight bytes of length, then JSON that says of every tensor its dtype, shape and
 * place. Read as what it is, a stranger's file: every number is checked before it is used.
 * Format: https://github.com/huggingface/safetensors#format
 */
import { MixdqError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";

/** Bytes of one element. */
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

/** What weights may be stored in. */
export type FloatDType = "F32" | "F16" | "BF16";

export interface TensorEntry {
  readonly name: string;
  readonly dtype: TensorDType;
  readonly shape: readonly number[];
  /** Bytes from the end of the header. */
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  /** In file order: without gaps, each beginning where the one before ends. */
  readonly tensors: readonly TensorEntry[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Bytes of tensor data that follow the header. */
  readonly dataBytes: number;
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
/** A tensor must fit into one JS buffer and one GPU buffer. CLIP's largest embedding takes 0.25 GB. */
const MAX_TENSOR_BYTES = 2 ** 32;

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
  if (/^\s*[{[]"/.test(text)) return "a JSON file";
  return undefined;
}

/**
 * The header's JSON, validated: names, dtypes and ranks within limits, byte lengths as shape and dtype say, data
 * without gaps or overlaps. Throws `invalid-model`, and `unsupported` for a dtype that we do not know.
 */
export function parseHeader(json: Uint8Array, where: string): SafetensorsHeader {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
  } catch (cause) {
    throw invalid(where, `a header that is not JSON (${String(cause)})`, "JSON in UTF-8", REPLACE);
  }
  if (!isObject(parsed)) throw invalid(where, "a header that is not an object", "one entry per tensor", REPLACE);

  const { __metadata__: metadata = {}, ...entries } = parsed;
  const names = Object.keys(entries);
  if (names.length > MAX_TENSORS) throw invalid(where, `${names.length} tensors`, `at most ${MAX_TENSORS}`, REPLACE);
  const tensors = names.map((name) => parseEntry(name, entries[name], where));
  tensors.sort((a, b) => a.begin - b.begin || a.end - b.end);

  let end = 0;
  for (const tensor of tensors) {
    if (tensor.begin !== end) {
      const got = `data from byte ${tensor.begin}`;
      throw invalid(`${where}: ${tensor.name}`, got, `byte ${end}, where the tensor before ends`, REPLACE);
    }
    end = tensor.end;
  }
  return { tensors, metadata: parseMetadata(metadata, where), dataBytes: end };
}

const REPLACE = "The file is damaged: download or save it again.";

function parseEntry(name: string, entry: unknown, where: string): TensorEntry {
  if (name.length > MAX_NAME_LENGTH) {
    throw invalid(where, `a tensor name of ${name.length} characters`, `at most ${MAX_NAME_LENGTH}`, REPLACE);
  }
  const here = `${where}: ${name}`;
  if (!isObject(entry))
    throw invalid(here, JSON.stringify(entry), "an object with dtype, shape, data_offsets", REPLACE);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    throw new MixdqError(
      "unsupported",
      `${here}: got dtype ${JSON.stringify(dtype)}, expected one of ${Object.keys(DTYPE_BYTES).join(", ")}. ` +
        `Save the model in one of these.`,
    );
  }
  if (!isCounts(shape) || shape.length > MAX_RANK) {
    throw invalid(here, `shape ${JSON.stringify(shape)}`, `at most ${MAX_RANK} sizes of 0 or more`, REPLACE);
  }
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[1] < offsets[0]) {
    throw invalid(here, `data_offsets ${JSON.stringify(offsets)}`, "[begin, end]", REPLACE);
  }
  const expectedBytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype as TensorDType]);
  const [begin, end] = offsets;
  if (end - begin !== expectedBytes) {
    throw invalid(here, `${end - begin} bytes`, `${expectedBytes} for ${dtype} [${shape.join(", ")}]`, REPLACE);
  }
  if (expectedBytes > MAX_TENSOR_BYTES) {
    throw invalid(here, `${expectedBytes} bytes`, `at most ${MAX_TENSOR_BYTES} in one tensor`, "Use a smaller model.");
  }
  return { name, dtype: dtype as TensorDType, shape, begin, end };
}

function parseMetadata(metadata: unknown, where: string): Record<string, string> {
  if (!isObject(metadata) || !Object.values(metadata).every((value) => typeof value === "string")) {
    throw invalid(where, "__metadata__ that is not all strings", "an object of strings", REPLACE);
  }
  return metadata as Record<string, string>;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function invalid(where: string, got: string, expected: string, advice: string): MixdqError {
  return new MixdqError("invalid-model", `${where}: got ${got}, expected ${expected}. ${advice}`);
}
