import { expect, test } from "vitest";
import { createGenerator } from "../diffusion/noise.ts";
import { joinCodes, quantizeLayer } from "./layer.ts";
import { quantizeMatrix, type WeightBits, type WeightQuant } from "./weights.ts";

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
