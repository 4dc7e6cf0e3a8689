/**
 * Roundings that give each segment of a row a scale and a zero point by its weights alone, and then every weight the code
 * that is nearest. Formulas: MixDQ (arXiv 2405.17873), rounded as PyTorch rounds in float32, so that min-max gives the
 * integers that the method's own code gives. Least squares is ours: see range.ts.
 */
import { MixdqError } from "../base/errors.ts";
import { codeRange, type CodeScale, type WeightQuant } from "./formats.ts";
import { segmentEnd, type MatrixFormat, type Rounding } from "./matrix.ts";
import { RangeSearch } from "./range.ts";
import { ROUNDER, roundHalfEven, scaleOfRange } from "./rounding.ts";

/** From the least to the largest weight of a segment, always containing 0. */
export const minMax: Rounding = (format) => nearest(format, (min, max) => minMaxScale(min, max, format));

/** The clipped range with the least squared error. Never worse than min-max. */
export const leastSquares: Rounding = (format) => {
  const search = new RangeSearch(format);
  return nearest(format, (min, max, values, from, to) => {
    const plain = minMaxScale(min, max, format);
    return min < max ? search.find(values, from, to, min, max, plain) : plain;
  });
};

/** By the names that a bit-width configuration has for them. */
export const ROUNDINGS: Readonly<Record<WeightQuant["range"], Rounding>> = { minmax: minMax, mse: leastSquares };

/** The scale and zero point for weights[from .. to), whose extremes are `min` and `max`. */
type ScaleOf = (min: number, max: number, weights: Float32Array, from: number, to: number) => CodeScale;

function nearest(format: MatrixFormat, scaleOf: ScaleOf): ReturnType<Rounding> {
  const { columns, segments, bits } = format;
  const [least, greatest] = codeRange(bits);
  return (floats, { codes, scales, zeroPoints }, firstRow) => {
    const own = codes.subarray(firstRow * columns, firstRow * columns + floats.length);
    for (let row = 0; row < floats.length / columns; row++)
      for (let segment = 0; segment < segments.length; segment++) {
        const from = row * columns + segments[segment];
        const to = row * columns + segmentEnd(format, segment);
        const [min, max] = extremes(floats, from, to);
        if (Number.isNaN(min)) throw notFinite(floats, from, format, firstRow);
        const range = scaleOf(min, max, floats, from, to);
        scales[(firstRow + row) * segments.length + segment] = range.scale;
        zeroPoints[(firstRow + row) * segments.length + segment] = range.zeroPoint;
        assignCodes(floats, from, to, range, least, greatest, own);
      }
  };
}

/** By the method's own formulas. */
function minMaxScale(min: number, max: number, { bits, symmetric }: MatrixFormat): CodeScale {
  const low = Math.min(min, 0);
  const high = Math.max(max, 0);
  const [first] = codeRange(bits);
  if (symmetric) {
    const scale = scaleOfRange(0, Math.max(-low, high), 2 ** (bits - 1) - 1);
    return { scale, zeroPoint: first + 2 ** (bits - 1) };
  }
  const scale = scaleOfRange(low, high, 2 ** bits - 1);
  return { scale, zeroPoint: roundHalfEven(Math.fround(-low / scale)) + first };
}

function assignCodes(
  floats: Float32Array,
  from: number,
  to: number,
  { scale, zeroPoint }: CodeScale,
  least: number,
  greatest: number,
  codes: Int8Array,
): void {
  // The reference rounds before it adds the zero point, which matters for halves: add its integer part afterwards.
  const whole = Math.round(zeroPoint);
  const rest = zeroPoint - whole;
  for (let i = from; i < to; i++) {
    const code = Math.fround(floats[i] / scale) + rest + ROUNDER - ROUNDER + whole;
    codes[i] = code < least ? least : code > greatest ? greatest : code;
  }
}

/** The least and the largest of floats[from .. to); NaN where one of them is not finite. */
function extremes(floats: Float32Array, from: number, to: number): [min: number, max: number] {
  let min = Infinity;
  let max = -Infinity;
  let notFinite = 0;
  for (let i = from; i < to; i++) {
    const value = floats[i];
    if (value < min) min = value;
    if (value > max) max = value;
    notFinite += value - value;
  }
  return notFinite === 0 ? [min, max] : [Number.NaN, Number.NaN];
}

function notFinite(floats: Float32Array, from: number, { path, columns }: MatrixFormat, firstRow: number): MixdqError {
  const at = from + floats.subarray(from).findIndex((value) => !Number.isFinite(value));
  const place = `[${firstRow + Math.floor(at / columns)}, ${at % columns}]`;
  const advice = "The checkpoint is damaged: download it again, or leave this layer in 16 bits.";
  return new MixdqError(
    "invalid-model",
    `${path}: weight ${place} is ${floats[at]}, expected finite numbers. ${advice}`,
  );
}
