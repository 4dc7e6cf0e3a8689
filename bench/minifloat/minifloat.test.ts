import { expect, test } from "vitest";
import { createGenerator } from "../../src/diffusion/noise.ts";
import golden from "./minifloat.json" with { type: "json" };
import { E2M1, E4M3, roundMatrix, roundToMinifloat, roundToRange } from "./minifloat.ts";

const E2M1_VALUES = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

const round = (values: readonly number[], format = E4M3) => [...roundToMinifloat(Float32Array.from(values), format)];

test("E4M3 rounds as PyTorch's float8_e4m3fn: every value, every middle and its neighbours, subnormals", () => {
  expect(golden.inputs.length).toBeGreaterThan(600);
  expect(new Set(golden.outputs.filter((value) => value >= 0)).size).toBe(127);
  expect(round(golden.inputs)).toEqual(golden.outputs);
});

test("E2M1 has eight magnitudes; halfway goes to the even code", () => {
  expect(round(E2M1_VALUES, E2M1)).toEqual(E2M1_VALUES);
  expect(round([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5], E2M1)).toEqual([0, 1, 1, 2, 2, 4, 4]);
  expect(round([-0.26, -0.74, -1.26, -1.74, -2.51, -3.49, -5.01], E2M1)).toEqual([-0.5, -0.5, -1.5, -1.5, -3, -3, -6]);
  const found = round([...createGenerator(3).randn(4096)], E2M1).map(Math.abs);
  expect([...new Set(found)].filter((value) => !E2M1_VALUES.includes(value))).toEqual([]);
});

test("what lies beyond the largest becomes the largest; NaN stays", () => {
  expect(round([449, 464, 1e30, Infinity, -500, -Infinity])).toEqual([448, 448, 448, 448, -448, -448]);
  expect(round([6.5, 7, -100], E2M1)).toEqual([6, 6, -6]);
  expect(round([NaN])).toEqual([NaN]);
  expect(round([-0, -1e-30, 1e-45])).toEqual([0, 0, 0]);
});

test("the limit of a range falls on the largest value, and what lies beyond on the limit", () => {
  const values = Float32Array.of(12, -12, 2, 2.6, 0, 99);
  expect([...roundToRange(values, 12, E2M1)]).toEqual([12, -12, 2, 3, 0, 12]);
  expect([...roundToRange(Float32Array.of(0, 0), 0, E4M3)]).toEqual([0, 0]);
});

test("every row, and every group of it, has a scale of its own", () => {
  const row = [6, 4, 2.4, 0.6, 0.06, 0.04];
  const values = Float32Array.from([...row, ...row.map((value) => 100 * value)]);
  const far = (out: Float32Array, expected: readonly number[]) =>
    Math.max(...out.map((value, i) => Math.abs(value / Math.fround(expected[i]) - 1)).filter(Number.isFinite));
  const whole = roundMatrix(values, 2, E2M1, "layer");
  expect(far(whole, [6, 4, 2, 0.5, 0, 0, 600, 400, 200, 50, 0, 0])).toBeLessThan(1e-6);
  expect([whole[4], whole[11]]).toEqual([0, 0]);
  const grouped = roundMatrix(values, 2, E2M1, "layer", 4);
  expect(far(grouped, [6, 4, 2, 0.5, 0.06, 0.04, 600, 400, 200, 50, 6, 4])).toBeLessThan(1e-6);
  expect(() => roundMatrix(values, 5, E2M1, "layer")).toThrow("layer: got 12 weights in 5 rows");
  expect(() => roundMatrix(Float32Array.of(1, NaN), 1, E4M3, "layer")).toThrow("layer: row 0 of the weights holds NaN");
});
