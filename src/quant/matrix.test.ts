import { expect, test } from "vitest";
import { createGenerator } from "../diffusion/noise.ts";
import {
  dequantizeMatrix,
  heldRows,
  quantizeMatrix,
  segmentEnd,
  segmentStarts,
  type MatrixFormat,
  type Rounding,
} from "./matrix.ts";
import { ROUNDINGS } from "./nearest.ts";

const format = (rows: number, columns: number, more: Partial<MatrixFormat> = {}): MatrixFormat => ({
  ...{ path: "mid_block.conv", rows, columns, bits: 4, symmetric: false, segments: [0] },
  ...more,
});

/** Weights are whole numbers, and become codes as they are. */
const asTheyAre: Rounding = ({ columns }) => {
  return (floats, { codes, scales, zeroPoints }, first) => {
    codes.set(floats, first * columns);
    for (let row = first; row < first + floats.length / columns; row++) [scales[row], zeroPoints[row]] = [2, 1];
  };
};

test("segments are rows, halves, or groups that do not cross from one half into the other", () => {
  expect(segmentStarts([70], 9, null)).toEqual([0]);
  expect(segmentStarts([40, 24], 1, null)).toEqual([0, 40]);
  expect(segmentStarts([130], 1, 64)).toEqual([0, 64, 128]);
  expect(segmentStarts([70, 64, 10], 9, 64)).toEqual([0, 576, 630, 1206]);
  expect(segmentStarts([0], 1, null)).toEqual([]);
  const halves = format(2, 64, { segments: [0, 40] });
  expect([0, 1].map((segment) => segmentEnd(halves, segment))).toEqual([40, 64]);
});

test("codes become what they stand for, segment by segment", () => {
  const matrix = {
    ...format(2, 3, { segments: [0, 2] }),
    codes: Int8Array.of(0, 5, 3, 1, 2, 15),
    scales: Float32Array.of(0.5, 2, 1, 0.25),
    zeroPoints: Float32Array.of(1, 3.5, 0, 7),
  };
  expect([...dequantizeMatrix(matrix)]).toEqual([-0.5, 2, -1, 1, 2, 2]);
});

test("the rounding that is passed in makes the codes, of the whole weight", () => {
  const matrix = quantizeMatrix(heldRows(Float32Array.of(1, 2, 3, 4, 5, 6), 3), format(3, 2), asTheyAre);
  expect(matrix).toMatchObject(format(3, 2));
  expect([...matrix.codes]).toEqual([1, 2, 3, 4, 5, 6]);
  expect([...dequantizeMatrix(matrix)]).toEqual([0, 2, 4, 6, 8, 10]);
});

test("a rounding is prepared once for a layer, and reads its rows some at a time, in order", () => {
  const columns = 2 ** 20; // 4 rows a time
  const asked: unknown[] = [];
  let prepared = 0;
  const rounding: Rounding = (format) => {
    prepared++;
    return asTheyAre(format);
  };
  const floats = (rows: { first: number; count: number }): Float32Array => {
    asked.push(rows);
    return new Float32Array(rows.count * columns).map((_, i) => rows.first + Math.floor(i / columns));
  };
  const { codes, scales } = quantizeMatrix(floats, format(9, columns), rounding);
  expect(prepared).toBe(1);
  expect(asked).toEqual([
    { first: 0, count: 4 },
    { first: 4, count: 4 },
    { first: 8, count: 1 },
  ]);
  for (let row = 0; row < 9; row++) {
    const own = codes.subarray(row * columns, (row + 1) * columns);
    expect(own[0] === row && own[columns - 1] === row, `row ${row}`).toBe(true);
  }
  expect(scales.every((scale) => scale === 2)).toBe(true);
});

test("halves have scales of their own, as if each were a weight by itself", () => {
  const random = createGenerator(5);
  const [rows, c1, c2, taps] = [4, 70, 30, 9];
  const [a, b] = [random.randn(rows * c1 * taps), random.randn(rows * c2 * taps).map((value) => 100 * value)];
  const columns = (c1 + c2) * taps;
  const joined = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    joined.set(a.subarray(row * c1 * taps, (row + 1) * c1 * taps), row * columns);
    joined.set(b.subarray(row * c2 * taps, (row + 1) * c2 * taps), row * columns + c1 * taps);
  }
  for (const rounding of Object.values(ROUNDINGS))
    for (const group of [null, 64]) {
      const part = (values: Float32Array, channels: number): Float32Array => {
        const segments = segmentStarts([channels], taps, group);
        return dequantizeMatrix(
          quantizeMatrix(heldRows(values, rows), format(rows, channels * taps, { segments }), rounding),
        );
      };
      const [first, second] = [part(a, c1), part(b, c2)];
      const segments = segmentStarts([c1, c2], taps, group);
      const whole = dequantizeMatrix(
        quantizeMatrix(heldRows(joined, rows), format(rows, columns, { segments }), rounding),
      );
      for (let row = 0; row < rows; row++) {
        const own = whole.subarray(row * columns, (row + 1) * columns);
        expect(own.subarray(0, c1 * taps)).toEqual(first.subarray(row * c1 * taps, (row + 1) * c1 * taps));
        expect(own.subarray(c1 * taps)).toEqual(second.subarray(row * c2 * taps, (row + 1) * c2 * taps));
      }
    }
});

test("a weight that is not finite is named with its place in the whole weight", () => {
  const columns = 2 ** 21; // 2 rows a time
  const floats = ({ first, count }: { first: number; count: number }): Float32Array => {
    const values = new Float32Array(count * columns).fill(0.5);
    if (first === 2) values[columns - 3] = Number.NaN;
    return values;
  };
  const halves = format(3, columns, { segments: [0, 1000] });
  for (const rounding of Object.values(ROUNDINGS))
    expect(() => quantizeMatrix(floats, halves, rounding)).toThrow(
      expect.objectContaining({
        code: "invalid-model",
        message: expect.stringContaining(`mid_block.conv: weight [2, ${columns - 3}] is NaN, expected finite numbers.`),
      }),
    );
});

test("another number of weights than the format says is refused", () => {
  for (const length of [10, 11, 13, 14])
    expect(() => quantizeMatrix(heldRows(new Float32Array(length), 2), format(2, 6), asTheyAre)).toThrow(
      `mid_block.conv: got ${length} weights, expected 12 for rows 0 to 2 of [2, 6]`,
    );
});
