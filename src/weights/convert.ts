/** What checkpoints and small files store, as the numbers that we compute with (the bits are handled in quant/half.ts). */
import { MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { bfloatToHalf, firstNonFinite, fromBfloat, fromHalf, toHalf } from "../quant/half.ts";
import type { FloatDType } from "./header.ts";
import type { StoredTensor } from "./safetensors.ts";

/** The largest finite half. */
export const MAX_HALF = 65504;

/**
 * Stored weights as float32, [elements]. F32 that is aligned is a view of `bytes`, everything else a copy; the float32
 * of every half and bfloat16 is exact. `bytes` holds whole elements.
 */
export function toFloat32(bytes: Uint8Array, dtype: FloatDType): Float32Array {
  switch (dtype) {
    case "F32":
      return isAligned(bytes, 4)
        ? new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
        : new Float32Array(bytes.slice().buffer);
    case "F16":
      return fromHalf(toUint16(bytes));
    case "BF16":
      return fromBfloat(toUint16(bytes));
  }
}

/**
 * Stored weights as the bits of halves, [elements], rounded to nearest even. F16 that is aligned is a view of `bytes`,
 * everything else a copy. `where` is the tensor, for messages. Throws `invalid-model` for a value beyond the range of
 * halves, or a NaN; F16 is passed on unread.
 */
export function toFloat16(bytes: Uint8Array, dtype: FloatDType, where: string): Uint16Array {
  if (dtype === "F16") return toUint16(bytes);
  const halves = dtype === "BF16" ? bfloatToHalf(toUint16(bytes)) : toHalf(toFloat32(bytes, dtype));
  const broken = firstNonFinite(halves);
  if (broken >= 0)
    throw new MixdqError(
      "invalid-model",
      `${where}: element ${broken} is ${toFloat32(bytes, dtype)[broken]}, expected at most ${MAX_HALF} in magnitude, the ` +
        `largest half. Use 32-bit precision, or a checkpoint made for 16 bits (an "fp16-fix").`,
    );
  return halves;
}

/**
 * Any stored numbers as float32 (integers and doubles are rounded). For small files of inputs and outputs.
 * Throws `invalid-input` for dtypes that hold none, or others than these.
 */
export function readFloats({ dtype, bytes }: StoredTensor, where: string): Float32Array {
  if (dtype === "F32" || dtype === "F16" || dtype === "BF16") return toFloat32(bytes, dtype);
  // A copy, because views of doubles and integers must be aligned.
  const { buffer } = bytes.slice();
  switch (dtype) {
    case "F64":
      return Float32Array.from(new Float64Array(buffer));
    case "I64":
      return Float32Array.from(new BigInt64Array(buffer), Number);
    case "I32":
      return Float32Array.from(new Int32Array(buffer));
    case "I16":
      return Float32Array.from(new Int16Array(buffer));
    case "I8":
      return Float32Array.from(new Int8Array(buffer));
    case "U8":
      return Float32Array.from(new Uint8Array(buffer));
    default:
      throw new MixdqError(
        "invalid-input",
        `${where}: got dtype ${printable(dtype)}, expected numbers. Save the tensor as F32.`,
      );
  }
}

function toUint16(bytes: Uint8Array): Uint16Array {
  return isAligned(bytes, 2)
    ? new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2)
    : new Uint16Array(bytes.slice().buffer);
}

function isAligned(bytes: Uint8Array, size: number): boolean {
  return bytes.byteOffset % size === 0;
}
