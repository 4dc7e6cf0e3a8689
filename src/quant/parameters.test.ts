import { expect, test } from "vitest";
import { createGenerator } from "../diffusion/noise.ts";
import { activationQuant, dequantizeActivations, quantizeActivations } from "./activations.ts";
import { storedRow } from "./codes.ts";
import { parameterRows, rowParameters, weightParameters } from "./parameters.ts";
import { dequantizeMatrix, quantizeMatrix, type WeightBits, type WeightQuant } from "./weights.ts";

const quant = (bits: WeightBits, more: Partial<WeightQuant> = {}): WeightQuant => ({
  ...{ bits, symmetric: false, range: "minmax", group: null },
  ...more,
});

/** What a kernel does with the words: y of one row, from one input vector per part. */
function kernelSum(
  words: Uint32Array,
  parts: readonly { matrix: ReturnType<typeof quantizeMatrix>; x: Int8Array; zx: number }[],
  row: number,
  stored: number,
): number {
  const integers = new Int32Array(words.buffer);
  const floats = new Float32Array(words.buffer);
  let y = 0;
  let segment = 0;
  for (const { matrix, x, zx } of parts)
    for (let group = 0; group < matrix.groups; group++, segment++) {
      const from = group * matrix.groupColumns;
      const to = Math.min(from + matrix.groupColumns, matrix.columns);
      let acc = 0;
      let inputSum = 0;
      for (let k = from; k < to; k++) {
        acc = (acc + x[k]! * matrix.codes[row * matrix.columns + k]!) | 0;
        inputSum += x[k]!;
      }
      const at = (segment * parameterRows(matrix.rows) + stored) * 4;
      const exact = (acc + integers[at]! - Math.imul(integers[at + 1]!, inputSum)) | 0;
      y += floats[at + 2]! * (exact - floats[at + 3]! * (inputSum - (to - from) * zx));
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
    const columns = channels * taps;
    const random = createGenerator(columns);
    const parts = [0, 1].map((half) => {
      const matrix = quantizeMatrix(random.randn(rows * columns), rows, columns, format, "layer", taps);
      const act = activationQuant(-0.3 - half, 2.5);
      const x = quantizeActivations(random.randn(columns), act);
      return { matrix, act, x, zx: act.zeroPoint - 128 };
    });
    const words = rowParameters(parts, gated, "layer");
    for (let row = 0; row < rows; row++) {
      let expected = 0;
      for (const { matrix, act, x } of parts) {
        const w = dequantizeMatrix(matrix).subarray(row * columns);
        expected += dequantizeActivations(x, act).reduce((sum, value, k) => sum + value * w[k]!, 0);
      }
      const got = kernelSum(words, parts, row, storedRow(row, { rows, gated }));
      expect(Math.abs(got - expected), JSON.stringify([format, row])).toBeLessThan(1e-4);
    }
  }
});

test("a worked example, word by word", () => {
  // s = 0.5, z = 2: codes 4, 0, 2, 3, less 0; sum 9.
  const matrix = {
    ...quantizeMatrix(Float32Array.of(1, -1, 0, 0.5), 1, 4, quant(4), "layer"),
    codes: Int8Array.of(4, 0, 2, 3),
    scale: Float32Array.of(0.5),
    zeroPoint: Float32Array.of(2.25),
  };
  const words = rowParameters([{ matrix, act: { scale: 0.25, zeroPoint: 28 } }], false, "layer");
  expect(words.length).toBe(16);
  expect(Array.from(new Int32Array(words.buffer, 0, 2))).toEqual([100 * 9 - 4 * 100 * 2, 2]);
  expect(Array.from(new Float32Array(words.buffer, 8, 2))).toEqual([0.125, 0.25]);
  expect(words.subarray(4).every((word) => word === 0)).toBe(true);
  expect(Array.from(weightParameters([matrix], false, "layer"))).toEqual([0.5, 2.25, 0, 0, 0, 0, 0, 0]);
});

test("SDXL's longest row fits 32 bits; a much longer one is refused", () => {
  const row = (columns: number) => quantizeMatrix(new Float32Array(columns).fill(1), 1, columns, quant(8), "layer");
  const act = activationQuant(-1, 1);
  expect(rowParameters([{ matrix: row(23040), act }], false, "layer").length).toBe(16);
  expect(() => rowParameters([{ matrix: row(40000), act }], false, "mid.conv")).toThrow(/mid.conv: got 40000 products/);
});

test("halves must have the same rows", () => {
  const matrices = [1, 2].map((rows) => quantizeMatrix(new Float32Array(rows), rows, 1, quant(4), "layer"));
  expect(() => weightParameters(matrices, false, "up.conv_shortcut")).toThrow(
    /up.conv_shortcut: got halves of 1 and 2/,
  );
});
