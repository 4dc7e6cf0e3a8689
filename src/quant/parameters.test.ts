import { expect, test } from "vitest";
import { createGenerator } from "../diffusion/noise.ts";
import { activationQuant, dequantizeActivations, quantizeActivations, type ActivationQuant } from "./activations.ts";
import { storedRow } from "./codes.ts";
import { parameterRows, rowParameters, weightParameters } from "./parameters.ts";
import type { WeightBits, WeightQuant } from "./formats.ts";
import { formatOf, quantize } from "./matrices.testing.ts";
import {
  dequantizeMatrix,
  heldRows,
  quantizeMatrix,
  segmentEnd,
  segmentStarts,
  type QuantizedMatrix,
} from "./matrix.ts";
import { ROUNDINGS } from "./nearest.ts";

const quant = (bits: WeightBits, more: Partial<WeightQuant> = {}): WeightQuant => ({
  ...{ bits, symmetric: false, range: "minmax", group: null },
  ...more,
});

/** What a kernel does with the words: y of one row, from one input vector whose codes differ in meaning by segment. */
function kernelSum(
  words: Uint32Array,
  matrix: QuantizedMatrix,
  x: Int8Array,
  acts: readonly ActivationQuant[],
  row: number,
  stored: number,
): number {
  const integers = new Int32Array(words.buffer);
  const floats = new Float32Array(words.buffer);
  let y = 0;
  for (const [segment, from] of matrix.segments.entries()) {
    const to = segmentEnd(matrix, segment);
    let acc = 0;
    let inputSum = 0;
    for (let k = from; k < to; k++) {
      acc = (acc + x[k] * matrix.codes[row * matrix.columns + k]) | 0;
      inputSum += x[k];
    }
    const at = (segment * parameterRows(matrix.rows) + stored) * 4;
    const exact = (acc + integers[at] - Math.imul(integers[at + 1], inputSum)) | 0;
    const zx = acts[segment].zeroPoint - 128;
    y += floats[at + 2] * (exact - floats[at + 3] * (inputSum - (to - from) * zx));
  }
  return y;
}

test("the kernel's formula gives the product of the dequantized matrices", () => {
  const cases: [WeightQuant, number, number, boolean][] = [
    [quant(8, { symmetric: true }), 1, 100, false],
    [quant(8), 9, 20, false],
    [quant(4, { group: 64 }), 1, 150, false],
    [quant(4, { group: 64, range: "mse" }), 9, 70, true],
    [quant(3, { range: "mse", symmetric: true }), 1, 33, false],
    [quant(2, { range: "mse", symmetric: true, group: 64 }), 4, 65, true],
  ];
  for (const [format, taps, channels, gated] of cases) {
    const rows = gated ? 16 : 6;
    const half = channels * taps;
    const random = createGenerator(half);
    // Two halves, each with inputs of its own.
    const { bits, symmetric, group, range } = format;
    const segments = segmentStarts([channels, channels], taps, group);
    const shape = { path: "layer", rows, columns: 2 * half, bits, symmetric, segments };
    const matrix = quantizeMatrix(heldRows(random.randn(rows * 2 * half), rows), shape, ROUNDINGS[range]);
    const inputs = [0, 1].map((i) => activationQuant(-0.3 - i, 2.5));
    const codes = inputs.map((act) => quantizeActivations(random.randn(half), act));
    const x = Int8Array.from(codes.flatMap((half) => Array.from(half)));
    const values = codes.flatMap((half, i) => Array.from(dequantizeActivations(half, inputs[i])));
    const acts = segments.map((first) => inputs[first < half ? 0 : 1]);
    const words = rowParameters(matrix, acts, gated);
    const weights = dequantizeMatrix(matrix);
    for (let row = 0; row < rows; row++) {
      const expected = values.reduce((sum, value, k) => sum + value * weights[row * 2 * half + k], 0);
      const got = kernelSum(words, matrix, x, acts, row, storedRow(row, { rows, gated }));
      expect(Math.abs(got - expected), JSON.stringify([format, row])).toBeLessThan(1e-4);
    }
  }
});

test("a worked example, word by word", () => {
  // s = 0.5, z = 2: codes 4, 0, 2, 3, less 0; sum 9.
  const matrix = {
    ...formatOf(1, 4, quant(4)),
    codes: Int8Array.of(4, 0, 2, 3),
    scales: Float32Array.of(0.5),
    zeroPoints: Float32Array.of(2.25),
  };
  const words = rowParameters(matrix, [{ scale: 0.25, zeroPoint: 28 }], false);
  expect(words.length).toBe(16);
  expect(Array.from(new Int32Array(words.buffer, 0, 2))).toEqual([100 * 9 - 4 * 100 * 2, 2]);
  expect(Array.from(new Float32Array(words.buffer, 8, 2))).toEqual([0.125, 0.25]);
  expect(words.subarray(4).every((word) => word === 0)).toBe(true);
  expect(Array.from(weightParameters(matrix, false))).toEqual([0.5, 2.25, 0, 0, 0, 0, 0, 0]);
});

test("SDXL's longest row fits 32 bits; a much longer one is refused", () => {
  const row = (columns: number) => quantize(new Float32Array(columns).fill(1), 1, columns, quant(8), "mid.conv");
  const act = activationQuant(-1, 1);
  expect(rowParameters(row(23040), [act], false).length).toBe(16);
  expect(() => rowParameters(row(40000), [act], false)).toThrow(/mid.conv: got 40000 products/);
});
