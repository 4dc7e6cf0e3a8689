import { expect, test } from "vitest";
import { createGenerator } from "../diffusion/noise.ts";
import golden from "./golden/quantizer.json" with { type: "json" };
import type { WeightBits, WeightQuant } from "./formats.ts";
import { quantize } from "./matrices.testing.ts";
import { dequantizeMatrix } from "./matrix.ts";

const BITS: readonly WeightBits[] = [2, 3, 4, 8];
const quant = (bits: WeightBits, more: Partial<WeightQuant> = {}): WeightQuant => ({
  ...{ bits, symmetric: true, range: "minmax", group: null },
  ...more,
});
const EVERY: readonly WeightQuant[] = BITS.flatMap((bits) =>
  [true, false].flatMap((symmetric) =>
    (["minmax", "mse"] as const).flatMap((range) =>
      ([null, 64] as const).map((group) => quant(bits, { symmetric, range, group })),
    ),
  ),
);
const codeOffset = (bits: WeightBits, symmetric: boolean) =>
  bits === 8 ? (symmetric ? 0 : -128) : symmetric ? 2 ** (bits - 1) : 0;

/** Distributions that weights have, and some that they should not have. Drawn from one seed. */
function samples(count: number): Record<string, Float32Array> {
  const random = createGenerator(11);
  const draw = (shape: (z: number, i: number) => number) => random.randn(count).map((z, i) => shape(z, i));
  return {
    gaussian: draw((z) => z * 0.03),
    "heavy tails": draw((z) => z ** 3),
    uniform: draw((z) => z - Math.round(z)),
    "one large outlier": draw((z, i) => (i % 1000 === 7 ? 30 : z)),
    "outliers on one side": draw((z, i) => (i % 50 === 3 ? 8 + z : z)),
    sparse: draw((z) => (Math.abs(z) > 1.5 ? z : 0)),
    "far from zero": draw((z) => 5 + z * 0.01),
    "two values": draw((z) => (z > 0.5 ? 0.7 : -0.2)),
    tiny: draw((z) => z * 1e-30),
    large: draw((z) => z * 1e30),
  };
}

function squaredError(values: Float32Array, back: Float32Array): number {
  return values.reduce((sum, value, i) => sum + (value - back[i]) ** 2, 0);
}

function sqnr(values: Float32Array, format: WeightQuant, rows: number): number {
  const back = dequantizeMatrix(quantize(values, rows, values.length / rows, format, "layer"));
  const power = values.reduce((sum, value) => sum + value * value, 0);
  return 10 * Math.log10(power / squaredError(values, back));
}

test("min-max gives PyTorch's scales, zero points and codes, halves included", () => {
  for (const { name, values, cases } of golden)
    for (const { bits, symmetric, scale, zeroPoint, codes } of cases) {
      const format = quant(bits as WeightBits, { symmetric });
      const matrix = quantize(Float32Array.from(values), 1, values.length, format, name);
      const offset = codeOffset(format.bits, symmetric);
      const where = `${name}, ${bits} bits, symmetric ${symmetric}`;
      expect(matrix.scales[0], where).toBe(Math.fround(scale));
      expect(matrix.zeroPoints[0], where).toBe(zeroPoint + offset);
      expect(Array.from(matrix.codes), where).toEqual(codes.map((code) => code + offset));
    }
});

test("every row and every group of 64 channels has its own scale, the last group being shorter", () => {
  // 2 rows of 70 channels with 9 taps; each group constant, so that its scale is known.
  const value = (row: number, column: number) => (row + 1) * (column < 64 * 9 ? 1 : 10);
  const values = Float32Array.from({ length: 2 * 630 }, (_, i) => value(Math.floor(i / 630), i % 630));
  const matrix = quantize(values, 2, 630, quant(4, { symmetric: false, group: 64 }), "layer", 9);
  expect(matrix.segments).toEqual([0, 576]);
  expect(Array.from(matrix.scales)).toEqual([1, 10, 2, 20].map((max) => Math.fround(max / 15)));
  const whole = quantize(values, 2, 630, quant(4, { symmetric: false }), "layer", 9);
  expect(whole.segments).toEqual([0]);
  expect(Array.from(whole.scales)).toEqual([10, 20].map((max) => Math.fround(max / 15)));
});

test("every format stays in its codes, and comes back within half a step where nothing is clipped", () => {
  for (const [name, values] of Object.entries(samples(2000)))
    for (const format of EVERY) {
      const matrix = quantize(values, 4, 500, format, name);
      const [first, last] = format.bits === 8 ? [-128, 127] : [0, 2 ** format.bits - 1];
      const where = `${name} ${JSON.stringify(format)}`;
      expect(
        matrix.codes.every((code) => code >= first && code <= last),
        where,
      ).toBe(true);
      expect(
        matrix.scales.every((scale) => scale > 0 && Number.isFinite(scale)),
        where,
      ).toBe(true);
      expect(
        matrix.zeroPoints.every((zero) => zero >= first && zero <= last),
        where,
      ).toBe(true);
      if (format.range === "mse" || (format.bits === 2 && format.symmetric)) continue;
      // The zero point is rounded, which can move either end of the range out by half a step.
      const back = dequantizeMatrix(matrix);
      const steps = values.map((value, i) => {
        const segment = matrix.segments.findLastIndex((first) => first <= i % 500);
        return Math.abs(value - back[i]) / matrix.scales[Math.floor(i / 500) * matrix.segments.length + segment];
      });
      expect(Math.max(...steps), where).toBeLessThan(1.001);
    }
});

test("least squares is never worse than min-max", () => {
  for (const [name, values] of Object.entries(samples(6400)))
    for (const [rows, taps] of [
      [2, 1],
      [10, 9],
      [50, 1],
      [200, 1],
    ] as const)
      for (const format of EVERY.filter(({ range }) => range === "minmax")) {
        const columns = values.length / rows;
        if (columns % taps !== 0) continue;
        const error = (range: "minmax" | "mse") =>
          squaredError(values, dequantizeMatrix(quantize(values, rows, columns, { ...format, range }, name, taps)));
        // Dequantized values are rounded to f32, whose own error may tip a draw.
        const rounding = values.reduce((sum, value) => sum + (value * 2 ** -24) ** 2, 0);
        expect(error("mse"), `${name} [${rows}, ${columns}] ${JSON.stringify(format)}`).toBeLessThanOrEqual(
          error("minmax") * (1 + 1e-6) + rounding,
        );
      }
});

test("signal to noise of 200 channels of 1280: at least what the formulas can give", () => {
  const random = createGenerator(3);
  const gaussian = random.randn(200 * 1280);
  const [u, v] = [random.randn(gaussian.length), random.randn(gaussian.length)];
  const [x, y] = [random.randn(gaussian.length), random.randn(gaussian.length)];
  // The difference of two products of normal deviates is exactly Laplacian.
  const laplace = gaussian.map((_, i) => u[i] * v[i] + x[i] * y[i]);
  /** dB at 2, 3, 4, 8 bits, [Gaussian, Laplace]: MixDQ's formulas, and what the best clipping was found to give. */
  const table: [Partial<WeightQuant>, [number, number][]][] = [
    [
      { symmetric: true },
      [
        [1.1, 0.8],
        [9.4, 6.3],
        [16.7, 12.9],
        [41.9, 37.9],
      ],
    ],
    [
      { symmetric: false },
      [
        [4.0, 2.6],
        [11.2, 8.1],
        [17.8, 14.3],
        [42.4, 38.8],
      ],
    ],
    [
      { symmetric: false, group: 64 },
      [
        [6.8, 5.9],
        [14.2, 12.5],
        [20.8, 19.0],
        [45.4, 43.5],
      ],
    ],
    [
      { symmetric: true, range: "mse" },
      [
        [9.25, 7.1],
        [14.2, 11.5],
        [19.4, 16.1],
        [41.9, 38.0],
      ],
    ],
    [
      { symmetric: true, range: "mse", group: 64 },
      [
        [9.6, 8.0],
        [15.2, 13.1],
        [20.9, 18.5],
        [44.6, 42.1],
      ],
    ],
    [
      { symmetric: false, range: "mse" },
      [
        [9.25, 7.2],
        [14.3, 11.6],
        [19.4, 16.2],
        [42.4, 38.8],
      ],
    ],
    [
      { symmetric: false, range: "mse", group: 64 },
      [
        [9.9, 8.2],
        [15.6, 13.7],
        [21.5, 19.6],
        [45.5, 43.6],
      ],
    ],
  ];
  for (const [format, expected] of table)
    BITS.forEach((bits, i) => {
      const where = JSON.stringify({ bits, ...format });
      expect(sqnr(gaussian, quant(bits, format), 200), where).toBeGreaterThan(expected[i][0] - 0.05);
      expect(sqnr(laplace, quant(bits, format), 200), `${where}, Laplace`).toBeGreaterThan(expected[i][1] - 0.1);
      if (format.range === "mse") return;
      expect(sqnr(gaussian, quant(bits, format), 200), where).toBeLessThan(expected[i][0] + 0.15);
    });
});

test("the search comes close to trying everything", () => {
  // Exhaustive: every pair of ends on a fine grid, then least squares to the end.
  const best = (values: Float32Array, levels: number) => {
    let least = Infinity;
    const low = Math.min(0, ...values);
    const high = Math.max(0, ...values);
    for (let a = 1; a > 0.06; a *= 0.86)
      for (let b = 1; b > 0.06; b *= 0.86) least = Math.min(least, settle(values, levels, a * low, b * high));
    return least;
  };
  const all = samples(1280);
  let [losses, cases] = [0, 0];
  for (const name of ["gaussian", "heavy tails", "outliers on one side", "sparse"])
    for (const bits of [2, 3, 4] as const) {
      const values = all[name].subarray(0, 320);
      const format = quant(bits, { symmetric: false, range: "mse" });
      const back = dequantizeMatrix(quantize(values, 1, 320, format, name));
      const loss = 10 * Math.log10(squaredError(values, back) / best(values, 2 ** bits));
      expect(loss, `${name}, ${bits} bits`).toBeLessThan(1);
      losses += loss;
      cases++;
    }
  expect(losses / cases).toBeLessThan(0.2);
});

/** The squared error after alternating least squares from the range low .. high. */
function settle(values: Float32Array, levels: number, low: number, high: number): number {
  let scale = (high - low) / (levels - 1);
  let zero = -low / scale;
  let error = Infinity;
  for (let round = 0; round < 20; round++) {
    const codes = values.map((value) => Math.min(Math.max(Math.round(value / scale + zero), 0), levels - 1));
    const next = values.reduce((sum, value, i) => sum + (value - scale * (codes[i] - zero)) ** 2, 0);
    if (!(next < error * (1 - 1e-6))) break;
    error = next;
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const meanCode = codes.reduce((sum, code) => sum + code, 0) / codes.length;
    const covariance = values.reduce((sum, value, i) => sum + (value - mean) * (codes[i] - meanCode), 0);
    scale = covariance / codes.reduce((sum, code) => sum + (code - meanCode) ** 2, 0);
    zero = meanCode - mean / scale;
  }
  return error;
}

test("a dead channel comes back as exact zeros, and leaves its neighbours alone", () => {
  const values = Float32Array.of(0, 0, 0, -0, 1, -0.5, 0.25, -1);
  for (const format of EVERY) {
    const matrix = quantize(values, 2, 4, format, "layer");
    expect(matrix.scales[0]).toBe(1);
    expect(Array.from(dequantizeMatrix(matrix).subarray(0, 4)).every((value) => value === 0)).toBe(true);
    const alone = quantize(values.subarray(4), 1, 4, format, "layer");
    expect(Array.from(matrix.codes.subarray(4))).toEqual(Array.from(alone.codes));
  }
});

test("a constant channel comes back to f32 precision", () => {
  for (const constant of [0.3, -0.3, 1e-20, 65504])
    for (const format of EVERY) {
      const back = dequantizeMatrix(quantize(new Float32Array(96).fill(constant), 1, 96, format, "layer"));
      const worst = Math.max(...back.map((value) => Math.abs(value / constant - 1)));
      expect(worst, `${constant} ${JSON.stringify(format)}`).toBeLessThan(2e-7);
    }
});

test("ranges at the ends of f32 keep a scale that a GPU can multiply with", () => {
  const smallest = 2 ** -149;
  const largest = 3.4028234663852886e38;
  for (const format of EVERY) {
    const denormal = quantize(Float32Array.of(smallest, -smallest, 0, 3 * smallest), 1, 4, format, "layer");
    expect(denormal.scales[0], JSON.stringify(format)).toBeGreaterThanOrEqual(2 ** -126);
    expect(Math.max(...dequantizeMatrix(denormal).map(Math.abs))).toBeLessThan(2 ** -125);
    const huge = quantize(Float32Array.of(largest, -largest, 0, largest / 2), 1, 4, format, "layer");
    expect(Number.isFinite(huge.scales[0]), JSON.stringify(format)).toBe(true);
    expect(dequantizeMatrix(huge)[0] / largest, JSON.stringify(format)).toBeGreaterThan(0.4);
  }
});

test("weights that are not finite are named with their place", () => {
  for (const [bad, text] of [
    [Number.NaN, "NaN"],
    [Infinity, "Infinity"],
    [-Infinity, "-Infinity"],
  ] as const)
    for (const format of EVERY) {
      const values = new Float32Array(300).fill(0.5);
      values[2 * 100 + 70] = bad;
      values[2 * 100 + 71] = bad;
      expect(() => quantize(values, 3, 100, format, "mid_block.attentions.0.proj_in")).toThrow(
        expect.objectContaining({
          code: "invalid-model",
          message: expect.stringMatching(
            new RegExp(`^mid_block.attentions.0.proj_in: weight \\[2, 70\\] is ${text}, `),
          ),
        }),
      );
    }
});
