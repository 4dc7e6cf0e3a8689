import { expect, test } from "vitest";
import { createGenerator } from "../diffusion/noise.ts";
import { joinCodes, kurtosis, quantizeLayer, quantizeRows, splitByKurtosis } from "./layer.ts";
import { dequantizeMatrix, quantizeMatrix, type WeightBits, type WeightQuant } from "./weights.ts";

const quant = (bits: WeightBits, group: null | 64 = null): WeightQuant => ({
  ...{ bits, symmetric: false, range: "minmax", group },
});

test("the halves of a concatenation have their own scales, and their codes lie side by side", () => {
  // 2 rows of 3 + 2 channels with 2 taps; the second half a hundred times larger.
  const values = Float32Array.from({ length: 20 }, (_, i) => (i % 10 < 6 ? i + 1 : 100 * (i + 1)));
  const halves = quantizeLayer(values, 2, [3, 2], 2, quant(8), "layer");
  const first = Float32Array.of(1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16);
  const second = Float32Array.of(700, 800, 900, 1000, 1700, 1800, 1900, 2000);
  expect(halves).toEqual([
    quantizeMatrix(first, 2, 6, quant(8), "layer", 2),
    quantizeMatrix(second, 2, 4, quant(8), "layer", 2),
  ]);
  const [a, b] = halves.map(({ codes }) => Array.from(codes));
  const rows = [a!.slice(0, 6), b!.slice(0, 4), a!.slice(6), b!.slice(4)];
  expect(Array.from(joinCodes(halves))).toEqual(rows.flat());
});

test("a layer with one input is one matrix", () => {
  const values = createGenerator(1).randn(4 * 70);
  const [matrix, ...others] = quantizeLayer(values, 4, [70], 1, quant(4, 64), "layer");
  expect(others).toEqual([]);
  expect(matrix).toEqual(quantizeMatrix(values, 4, 70, quant(4, 64), "layer"));
  expect(joinCodes([matrix!])).toBe(matrix!.codes);
});

test("blocks of rows have their own bits, and come back where they belong", () => {
  const values = createGenerator(2).randn(6 * 40);
  const blocks = [
    { rows: Int32Array.of(4, 0), quant: quant(8) },
    { rows: Int32Array.of(1, 2, 3, 5), quant: quant(3) },
  ];
  const [eight, three] = quantizeRows(values, 6, 40, blocks, "layer").map(dequantizeMatrix);
  const row = (i: number) => values.slice(i * 40, (i + 1) * 40);
  const alone = (i: number, bits: WeightBits) => dequantizeMatrix(quantizeMatrix(row(i), 1, 40, quant(bits), "layer"));
  expect(eight!.subarray(0, 40)).toEqual(alone(4, 8));
  expect(eight!.subarray(40)).toEqual(alone(0, 8));
  expect(three!.subarray(3 * 40)).toEqual(alone(5, 3));
});

test("blocks that leave rows out or name them twice are refused", () => {
  const values = new Float32Array(12);
  for (const rows of [
    [0, 1],
    [0, 1, 1],
    [0, 1, 3],
  ])
    expect(() => quantizeRows(values, 3, 4, [{ rows: Int32Array.from(rows), quant: quant(4) }], "conv1")).toThrow(
      /^conv1: got blocks of \d rows, expected each of the 3 rows once/,
    );
});

test("kurtosis has its known values", () => {
  // Mean 0; fourth powers 2 + 16 + 16 = 34 over 5, variance 10 / 4: 6.8 / 6.25.
  expect(kurtosis(Float32Array.of(-2, -1, 0, 1, 2))).toBeCloseTo(1.088, 6);
  expect(kurtosis(new Float32Array(10).fill(3))).toBe(0);
  const normal = createGenerator(3).randn(50_000);
  expect(kurtosis(normal)).toBeCloseTo(3, 0);
  expect(kurtosis(normal.map((z, i) => z * (i % 2 === 0 ? 1 : 5)))).toBeGreaterThan(4.5);
});

test("rows with outliers get more bits, the flattest fewer, the average staying", () => {
  const random = createGenerator(4);
  const rows = Array.from({ length: 10 }, (_, row) =>
    random.randn(200).map((z) => (row === 7 || row === 2 ? z ** 3 : row === 5 || row === 9 ? Math.tanh(3 * z) : z)),
  );
  const split = splitByKurtosis(Float32Array.from(rows.flatMap((row) => Array.from(row))), 10, 2);
  expect(split).toEqual({
    higher: Int32Array.of(2, 7),
    same: Int32Array.of(0, 1, 3, 4, 6, 8),
    lower: Int32Array.of(5, 9),
  });
  expect(() => splitByKurtosis(new Float32Array(10), 5, 3)).toThrow(/got 3 of 5 rows/);
});
