/**
 * Floats of a few bits, for comparisons with integers of as many; no kernel computes with them. A format is a sign,
 * `exponentBits` with the bias 2^(exponentBits - 1) - 1, `mantissaBits`, and subnormals below the smallest exponent,
 * as in IEEE 754 except that there is no infinity. Formats: Micikevicius et al. 2022, arXiv 2209.05433 (E4M3); OCP
 * Microscaling Formats v1.0 (E2M1).
 */
import { MixdqError } from "../../src/base/errors.ts";
import { roundHalfEven, scaleOfRange } from "../../src/quant/rounding.ts";

export interface Minifloat {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  /** The largest value, which is not always what the exponent's bits would reach: one code of E4M3 is a NaN. */
  readonly max: number;
}

/** 8 bits: torch.float8_e4m3fn. */
export const E4M3: Minifloat = { exponentBits: 4, mantissaBits: 3, max: 448 };

/** 4 bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. */
export const E2M1: Minifloat = { exponentBits: 2, mantissaBits: 1, max: 6 };

/**
 * To the nearest value of the format, halfway cases to the one whose last bit is 0; what lies beyond the largest becomes
 * the largest, infinity too (PyTorch's cast makes NaN of that). NaN stays NaN, and zero has no sign.
 */
export function roundToMinifloat(values: Float32Array, format: Minifloat): Float32Array<ArrayBuffer> {
  const { max } = format;
  const steps = stepsOf(format);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Float32Array(values.length);
  for (let i = 0; i < out.length; i++) {
    // A step is a power of two: dividing by it is exact, and rounding up into the next exponent is no special case.
    const step = steps[(bits[i] >>> 23) & 0xff];
    const value = roundHalfEven(values[i] / step) * step;
    out[i] = value > max ? max : value < -max ? -max : value;
  }
  return out;
}

/** The distance between neighbours among values with this f32 exponent, by its 8 bits. */
function stepsOf({ exponentBits, mantissaBits }: Minifloat): Float64Array {
  const least = 2 - 2 ** (exponentBits - 1);
  return Float64Array.from({ length: 256 }, (_, biased) => 2 ** (Math.max(biased - 127, least) - mantissaBits));
}

/**
 * What is left of values when `limit` (at least 0, usually their largest magnitude) is scaled to the format's largest
 * value: round(x / s) s with s = limit / max in f32. No zero point: floats are finest around 0 anyway.
 */
export function roundToRange(values: Float32Array, limit: number, format: Minifloat): Float32Array<ArrayBuffer> {
  const scale = scaleOfRange(0, limit, format.max);
  const out = roundToMinifloat(
    values.map((value) => value / scale),
    format,
  );
  for (let i = 0; i < out.length; i++) out[i] *= scale;
  return out;
}

/**
 * Weights [rows, columns] with a scale for each row, from its largest magnitude; or for each `groupColumns` of a row, the
 * last of which may be fewer. Throws `invalid-input` for sizes that disagree and for weights that are not finite;
 * `where` is the layer, for messages.
 */
export function roundMatrix(
  values: Float32Array,
  rows: number,
  format: Minifloat,
  where: string,
  groupColumns = Infinity,
): Float32Array<ArrayBuffer> {
  const columns = values.length / rows;
  if (!Number.isInteger(columns) || !(groupColumns >= 1))
    throw new MixdqError(
      "invalid-input",
      `${where}: got ${values.length} weights in ${rows} rows, ${groupColumns} columns a group, expected whole rows and groups.`,
    );
  const out = new Float32Array(values.length);
  for (let row = 0; row < rows; row++)
    for (let first = 0; first < columns; first += groupColumns) {
      const from = row * columns + first;
      const group = values.subarray(from, row * columns + Math.min(first + groupColumns, columns));
      const limit = largestMagnitude(group);
      if (!Number.isFinite(limit))
        throw new MixdqError(
          "invalid-input",
          `${where}: row ${row} of the weights holds ${limit}, expected finite numbers. Take undamaged weights.`,
        );
      out.set(roundToRange(group, limit, format), from);
    }
  return out;
}

/** max |x|; NaN where there is one. */
function largestMagnitude(values: Float32Array): number {
  return values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
}
