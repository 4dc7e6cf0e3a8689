/**
 * Weights as integers of 2, 3, 4 or 8 bits, per output channel or per group of 64 input channels of it:
 * w[n, k] ~ scale * (code - zeroPoint). Formulas: MixDQ (arXiv 2405.17873), rounded as PyTorch rounds in float32, so
 * that "minmax" gives the integers that the method's own code gives. "mse" is ours: see range.ts.
 */
import { MixdqError } from "../base/errors.ts";
import { codeRange, type CodeScale, type WeightBits, type WeightQuant } from "./formats.ts";
import { RangeSearch } from "./range.ts";
import { ROUNDER, roundHalfEven, scaleOfRange } from "./rounding.ts";

export type { WeightBits, WeightQuant } from "./formats.ts";

/**
 * [rows, columns] integers and what gives numbers back: w[n, k] ~ scale[n, g] * (code - zeroPoint[n, g]), g being the
 * group that column k lies in.
 */
export interface QuantizedMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly bits: WeightBits;
  /** Per row. */
  readonly groups: number;
  /** Columns of a group; the last one of a row may have fewer. */
  readonly groupColumns: number;
  /** As the integer dot product takes them: -128..127 for 8 bits, 0 .. 2^bits - 1 for fewer. */
  readonly codes: Int8Array<ArrayBuffer>;
  /** [rows, groups], > 0. */
  readonly scale: Float32Array<ArrayBuffer>;
  /** [rows, groups]; integers, except that "mse" takes fractions at 2 to 4 bits. */
  readonly zeroPoint: Float32Array<ArrayBuffer>;
}

/**
 * Quantizes a layer's weight [rows, channels, kh, kw], flattened in PyTorch's order (channel slow, tap fast), so that
 * columns = channels * taps. A group is 64 input channels with all their taps. `where` is the layer, for messages.
 * Throws `invalid-model` for weights that are not finite, `invalid-input` for sizes that disagree.
 */
export function quantizeMatrix(
  values: Float32Array,
  rows: number,
  columns: number,
  quant: WeightQuant,
  where: string,
  taps = 1,
): QuantizedMatrix {
  if (values.length !== rows * columns || columns % taps !== 0) {
    const got = `${values.length} weights as [${rows}, ${columns}] with ${taps} taps`;
    throw new MixdqError("invalid-input", `${where}: got ${got}, expected rows * columns, columns of whole channels.`);
  }
  const { bits } = quant;
  const [first, last] = codeRange(bits);
  const groupColumns = quant.group === null ? columns : Math.min(quant.group * taps, columns);
  const groups = columns === 0 ? 0 : Math.ceil(columns / groupColumns);
  const scale = new Float32Array(rows * groups);
  const zeroPoint = new Float32Array(rows * groups);
  const codes = new Int8Array(values.length);
  const search = quant.range === "mse" ? new RangeSearch(quant) : undefined;
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const from = row * columns + group * groupColumns;
      const to = Math.min(from + groupColumns, (row + 1) * columns);
      const [min, max] = extremes(values, from, to, columns, where);
      const plain = minMax(min, max, quant);
      const range = search !== undefined && min < max ? search.find(values, from, to, min, max, plain) : plain;
      scale[row * groups + group] = range.scale;
      zeroPoint[row * groups + group] = range.zeroPoint;
      assignCodes(values, from, to, range, first, last, codes);
    }
  }
  return { rows, columns, bits, groups, groupColumns, codes, scale, zeroPoint };
}

/** The weights that the integers stand for, [rows, columns]. */
export function dequantizeMatrix(matrix: QuantizedMatrix): Float32Array<ArrayBuffer> {
  const { rows, columns, groups, groupColumns, codes, scale, zeroPoint } = matrix;
  const values = new Float32Array(codes.length);
  for (let row = 0, i = 0; row < rows; row++)
    for (let column = 0; column < columns; column++, i++) {
      const group = row * groups + Math.floor(column / groupColumns);
      values[i] = scale[group]! * (codes[i]! - zeroPoint[group]!);
    }
  return values;
}

/** The range over all weights, always containing 0, by the method's own formulas. */
function minMax(min: number, max: number, { bits, symmetric }: WeightQuant): CodeScale {
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
  values: Float32Array,
  from: number,
  to: number,
  { scale, zeroPoint }: CodeScale,
  first: number,
  last: number,
  codes: Int8Array,
): void {
  // The reference rounds before it adds the zero point, which matters for halves: add its integer part afterwards.
  const whole = Math.round(zeroPoint);
  const rest = zeroPoint - whole;
  for (let i = from; i < to; i++) {
    const code = Math.fround(values[i]! / scale) + rest + ROUNDER - ROUNDER + whole;
    codes[i] = code < first ? first : code > last ? last : code;
  }
}

/** The least and the largest of a run of weights, checked to be finite. */
function extremes(
  values: Float32Array,
  from: number,
  to: number,
  columns: number,
  where: string,
): [min: number, max: number] {
  let min = Infinity;
  let max = -Infinity;
  let notFinite = 0;
  for (let i = from; i < to; i++) {
    const value = values[i]!;
    if (value < min) min = value;
    if (value > max) max = value;
    notFinite += value - value;
  }
  if (notFinite === 0) return [min, max];
  const at = values.subarray(from, to).findIndex((value) => !Number.isFinite(value)) + from;
  const place = `[${Math.floor(at / columns)}, ${at % columns}]`;
  const advice = "The checkpoint is damaged: download it again, or leave this layer in 16 bits.";
  throw new MixdqError(
    "invalid-model",
    `${where}: weight ${place} is ${values[at]}, expected finite numbers. ${advice}`,
  );
}
