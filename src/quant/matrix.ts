/**
 * Weights as integers: values that weight stores, packs, CPU twins and sensitivity read alike, and the one way from a
 * layer's floats to them. How floats are rounded is a function that is passed in: nearest.ts has those that look at the
 * weights alone.
 */
import { MixdqError } from "../base/errors.ts";
import type { WeightBits } from "./formats.ts";

/** What a layer's weight is to become. Bits are those of all its rows. */
export interface MatrixFormat {
  /** The layer's module path, for messages. */
  readonly path: string;
  /** Output channels, in the checkpoint's order; `storedRow` of codes.ts says where the GPU has them. */
  readonly rows: number;
  /** Input channels times taps, in PyTorch's order: channel slow, tap fast. Both inputs of a concatenation. */
  readonly columns: number;
  readonly bits: WeightBits;
  /** Whether codes lie evenly around zero: their zero point is then the middle of the codes, or half a code off it. */
  readonly symmetric: boolean;
  /**
   * The first columns of the segments, ascending from 0. A segment is a run of columns with a scale and a zero point of
   * its own in every row: a whole row, half of one where the layer reads a concatenation, or a group of 64 channels.
   */
  readonly segments: readonly number[];
}

/** w[n, k] ~ scales[n, s] * (codes[n, k] - zeroPoints[n, s]), s being the segment of column k. */
export interface QuantizedMatrix extends MatrixFormat {
  /** [rows, columns], as the integer dot product takes them: -128..127 for 8 bits, 0 .. 2^bits - 1 for fewer. */
  readonly codes: Int8Array<ArrayBuffer>;
  /** [rows, segments], > 0. */
  readonly scales: Float32Array<ArrayBuffer>;
  /** [rows, segments], within the codes; integers, except that roundings may take fractions at 2 to 4 bits. */
  readonly zeroPoints: Float32Array<ArrayBuffer>;
}

/** Rows `first` .. `first + count` of a weight. */
export interface RowRange {
  readonly first: number;
  readonly count: number;
}

/** A layer's weight as floats: [count, columns] of some of its rows, in the checkpoint's order. */
export type FloatRows = (rows: RowRange) => Float32Array;

/** Fills the codes, scales and zero points of rows `first` .. of `matrix` from as many rows of `floats`, [count, columns]. */
export type RoundRows = (floats: Float32Array, matrix: QuantizedMatrix, first: number) => void;

/**
 * A way of rounding one layer's weight. It is called once for the layer, prepares what all rows share, and gives what
 * rounds them, some at a time and each by itself. A rounding that looks at the layer's inputs (error feedback from one
 * column to the next, GPTQ) is made for the layer from statistics of them, and has its factors ready here.
 * The rows' function throws `invalid-model` for weights that are not finite.
 */
export type Rounding = (format: MatrixFormat) => RoundRows;

/** Weights that are rounded at a time: their floats take 16 MB, where those of a large layer take 118 MB. */
const CHUNK_WEIGHTS = 2 ** 22;

/** Where segments begin: `channels` of each run of input channels that scales do not cross, in groups of `group` or whole. */
export function segmentStarts(channels: readonly number[], taps: number, group: number | null): number[] {
  let first = 0;
  return channels.flatMap((count) => {
    const size = group ?? Math.max(count, 1);
    const starts = Array.from({ length: Math.ceil(count / size) }, (_, i) => (first + i * size) * taps);
    first += count;
    return starts;
  });
}

/** Where a segment ends: the first column behind it. */
export function segmentEnd({ segments, columns }: MatrixFormat, segment: number): number {
  return segments[segment + 1] ?? columns;
}

/**
 * A layer's weight in integers. `floats` is asked for some rows at a time, in order, each once.
 * Throws `invalid-model` for weights that are not finite, `invalid-input` where `floats` gives another number of them.
 */
export function quantizeMatrix(floats: FloatRows, format: MatrixFormat, rounding: Rounding): QuantizedMatrix {
  const { path, rows, columns, segments } = format;
  const matrix: QuantizedMatrix = {
    ...format,
    codes: new Int8Array(rows * columns),
    scales: new Float32Array(rows * segments.length),
    zeroPoints: new Float32Array(rows * segments.length),
  };
  const round = rounding(format);
  const most = Math.max(1, Math.floor(CHUNK_WEIGHTS / columns));
  for (let first = 0; first < rows; first += most) {
    const count = Math.min(most, rows - first);
    const some = floats({ first, count });
    if (some.length !== count * columns) {
      const expected = `${count * columns} for rows ${first} to ${first + count} of [${rows}, ${columns}]`;
      throw new MixdqError("invalid-input", `${path}: got ${some.length} weights, expected ${expected}.`);
    }
    round(some, matrix, first);
  }
  return matrix;
}

/** A weight that is in memory as a whole, [rows, columns]. */
export function heldRows(values: Float32Array, rows: number): FloatRows {
  const columns = values.length / rows;
  return ({ first, count }) => values.subarray(first * columns, (first + count) * columns);
}

/** The weights that the integers stand for, [rows, columns]. */
export function dequantizeMatrix(matrix: QuantizedMatrix): Float32Array<ArrayBuffer> {
  const { rows, columns, segments, codes, scales, zeroPoints } = matrix;
  const values = new Float32Array(codes.length);
  for (let row = 0; row < rows; row++)
    for (let segment = 0; segment < segments.length; segment++) {
      const scale = scales[row * segments.length + segment];
      const zeroPoint = zeroPoints[row * segments.length + segment];
      const end = row * columns + segmentEnd(matrix, segment);
      for (let i = row * columns + segments[segment]; i < end; i++) values[i] = scale * (codes[i] - zeroPoint);
    }
  return values;
}
