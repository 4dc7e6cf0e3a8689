/**
 * Weights between the float formats that checkpoints use and the two that we compute with. Node 20 and some browsers
 * have no Float16Array, so the bits are handled here, at 90 to 150 million elements a second (Node 20, one server core;
 * F16 to F16 and F32 to F32 cost nothing).
 */
import { MixdqError } from "../errors.ts";
import type { FloatDType } from "./header.ts";
import type { StoredTensor } from "./safetensors.ts";

/** The largest finite half. */
export const MAX_HALF = 65504;

/** What to do with a value that no finite half can hold: report it, or take the nearest, +-65504 (NaN stays NaN). */
export type OverflowPolicy = "error" | "saturate";

/** The bits of the smallest float32 magnitude that rounds to infinity as a half, 65520. Infinities and NaNs are above. */
const OVERFLOW_BITS = 0x477ff000;
/** The bits of 2^-14, the smallest normal half. */
const SUBNORMAL_BITS = 0x38800000;

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
      return decodeHalves(toUint16(bytes));
    case "BF16": {
      const source = toUint16(bytes);
      const bits = new Uint32Array(source.length);
      for (let i = 0; i < source.length; i++) bits[i] = source[i] << 16;
      return new Float32Array(bits.buffer);
    }
  }
}

/**
 * Stored weights as the bits of halves, [elements], rounded to nearest even. F16 that is aligned is a view of `bytes`,
 * everything else a copy. `where` is the tensor, for messages. Throws `invalid-model` for a value beyond the range of
 * halves (or a NaN) unless told to saturate; F16 is passed on unread.
 */
export function toFloat16(
  bytes: Uint8Array,
  dtype: FloatDType,
  where: string,
  overflow: OverflowPolicy = "error",
): Uint16Array {
  switch (dtype) {
    case "F16":
      return toUint16(bytes);
    case "F32":
      return encodeHalves(toFloat32(bytes, dtype), where, overflow);
    case "BF16":
      return bfloatsToHalves(toUint16(bytes), where, overflow);
  }
}

/** float32 values to the bits of halves, as `toFloat16`. */
export function encodeHalves(values: Float32Array, where: string, overflow: OverflowPolicy = "error"): Uint16Array {
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  let mostBits = 0;
  for (let i = 0; i < source.length; i++) {
    const bits = source[i];
    const magnitude = bits & 0x7fffffff;
    if (magnitude > mostBits) mostBits = magnitude;
    if (magnitude >= SUBNORMAL_BITS) {
      // Rebias the exponent; adding 0xfff and the last kept bit before dropping 13 bits rounds to nearest even.
      halves[i] = ((bits >>> 16) & 0x8000) | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    } else {
      // Subnormal halves are multiples of 2^-24, the spacing of float32 in [0.5, 1): adding 0.5 does the rounding.
      FLOAT_SCRATCH[0] = Math.abs(values[i]) + 0.5;
      halves[i] = ((bits >>> 16) & 0x8000) | (BITS_SCRATCH[0] - 0x3f000000);
    }
  }
  if (mostBits >= OVERFLOW_BITS) handleOverflow((i) => values[i], halves, where, overflow);
  return halves;
}

/** The bits of halves to float32 values, exactly. */
export function decodeHalves(halves: Uint16Array): Float32Array {
  const table = (halfTable ??= makeHalfTable());
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i]];
  return values;
}

/**
 * Any stored numbers as float32 (integers and doubles are rounded). For small files of inputs and outputs.
 * Throws `invalid-input` for BOOL.
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
    case "BOOL":
      throw new MixdqError("invalid-input", `${where}: got dtype BOOL, expected numbers. Save the tensor as F32.`);
  }
}

/** Any stored integers as int32. Throws `invalid-input` for floats and for values that int32 does not hold. */
export function readIntegers(tensor: StoredTensor, where: string): Int32Array {
  if (!/^[IU]/.test(tensor.dtype)) {
    const message = `${where}: got dtype ${tensor.dtype}, expected integers. Save the tensor as I32 or I64.`;
    throw new MixdqError("invalid-input", message);
  }
  if (tensor.dtype !== "I64") return Int32Array.from(readIntegersExactly(tensor));
  return Int32Array.from(new BigInt64Array(tensor.bytes.slice().buffer), (big) => {
    if (big !== BigInt.asIntN(32, big)) {
      throw new MixdqError("invalid-input", `${where}: got ${big}, expected integers of 32 bits. Check the tensor.`);
    }
    return Number(big);
  });
}

function readIntegersExactly({ dtype, bytes }: StoredTensor): Int32Array | Int16Array | Int8Array | Uint8Array {
  const { buffer } = bytes.slice();
  if (dtype === "I32") return new Int32Array(buffer);
  if (dtype === "I16") return new Int16Array(buffer);
  return dtype === "I8" ? new Int8Array(buffer) : new Uint8Array(buffer);
}

const FLOAT_SCRATCH = new Float32Array(1);
const BITS_SCRATCH = new Uint32Array(FLOAT_SCRATCH.buffer);
/** Made on first use (importing does no work): 256 KB and 128 KB. */
let halfTable: Float32Array | undefined;
let bfloatTable: Uint16Array | undefined;

function makeHalfTable(): Float32Array {
  return Float32Array.from({ length: 0x10000 }, (_, half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
    return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

function bfloatsToHalves(source: Uint16Array, where: string, overflow: OverflowPolicy): Uint16Array {
  const table = (bfloatTable ??= encodeHalves(
    toFloat32(new Uint8Array(Uint16Array.from({ length: 0x10000 }, (_, i) => i).buffer), "BF16"),
    "every bfloat16",
    "saturate",
  ));
  const halves = new Uint16Array(source.length);
  let mostBits = 0;
  for (let i = 0; i < source.length; i++) {
    const bits = source[i];
    if ((bits & 0x7fff) > mostBits) mostBits = bits & 0x7fff;
    halves[i] = table[bits];
  }
  if (mostBits >= OVERFLOW_BITS >>> 16) {
    const values = toFloat32(new Uint8Array(source.buffer, source.byteOffset, source.byteLength), "BF16");
    handleOverflow((i) => values[i], halves, where, overflow);
  }
  return halves;
}

/** Repairs or reports what the fast loops wrote for values that no half holds. */
function handleOverflow(
  value: (i: number) => number,
  halves: Uint16Array,
  where: string,
  policy: OverflowPolicy,
): void {
  for (let i = 0; i < halves.length; i++) {
    const exact = value(i);
    if (Math.abs(exact) < 65520) continue;
    if (policy === "error") {
      throw new MixdqError(
        "invalid-model",
        `${where}: element ${i} is ${exact}, expected at most ${MAX_HALF} in magnitude, the largest half. ` +
          `Use 32-bit precision, or a checkpoint made for 16 bits (an "fp16-fix").`,
      );
    }
    halves[i] = Number.isNaN(exact) ? 0x7e00 : exact < 0 ? 0xfbff : 0x7bff;
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
