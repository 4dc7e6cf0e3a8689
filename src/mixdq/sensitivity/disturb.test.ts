import { expect, test } from "vitest";
import { MixdqError } from "../../base/errors.ts";
import type { Tensor } from "../../graph/ops.ts";
import { disturbedInput, disturbedWeights, merged } from "./disturb.ts";
import { QUIET, SignalToNoise } from "./noise.ts";
import type { Site } from "./sites.ts";

const tensor = (shape: Tensor["shape"]): Tensor => ({ id: 0, name: "t", shape, dtype: "f32" });
const conv = (c1: number, c2: number, rows: number): Site =>
  ({
    path: "conv_shortcut",
    weight: { name: "conv_shortcut.weight", shape: [rows, c1 + c2, 1, 1] },
    op: { kind: "conv2d", x: tensor([1, 2, 2, c1]), x2: tensor([1, 2, 2, c2]), kernel: 1 },
  }) as unknown as Site;

test("the halves of a shortcut have scales of their own", () => {
  const quant = { bits: 2, symmetric: false, range: "minmax", group: null } as const;
  // Steps of 1 in the first half, of 100 in the second: with one scale the first half would be lost.
  const values = Float32Array.of(0, 1, 2, 3, 0, 100, 200, 300, 3, 2, 1, 0, 300, 200, 100, 0);
  expect([...disturbedWeights(values, conv(4, 4, 2), quant)]).toEqual([...values]);
});

test("an input becomes what its codes say, but for the first token", () => {
  const quant = { scale: 1, zeroPoint: 2 };
  const values = Float32Array.of(0.4, 0.6, -5, 99, 1.5, -1.4);
  expect([...disturbedInput(values, quant, 4)]).toEqual([0, 1, -2, 13, 2, -1]);
  expect([...disturbedInput(values, quant, 4, { images: 1, kept: 2 })]).toEqual([
    Math.fround(0.4),
    Math.fround(0.6),
    -2,
    13,
    2,
    -1,
  ]);
  expect([...disturbedInput(values, quant, 4, { images: 2, kept: 1 })].map((value) => value.toFixed(1))).toEqual([
    ...["0.4", "1.0", "-2.0", "99.0", "2.0", "-1.0"],
  ]);
});

test("only the layer's channels are taken from the disturbed run", () => {
  const site = { op: { y: tensor([2, 1, 2, 3]) }, firstColumn: 1, columns: 1 } as unknown as Site;
  const before = new Float32Array(12);
  const after = new Float32Array(12).fill(1);
  expect([...merged(before, after, site, false)]).toEqual([0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0]);
  expect([...merged(before, after, site, true)]).toEqual([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
});

test("signal and noise are summed over all samples", () => {
  const ratio = new SignalToNoise();
  ratio.add([3, 0], [3, 1], "a");
  ratio.add([1, 0], [1, 0], "b");
  expect(ratio.decibels).toBeCloseTo(10, 10);
  const silent = new SignalToNoise();
  silent.add([1, 2], [1, 2], "c");
  expect(silent.decibels).toBe(QUIET);
  expect(() => new SignalToNoise().add([1], [NaN], "The output")).toThrow(MixdqError);
  expect(() => new SignalToNoise().add([1], [Infinity], "The output")).toThrow("The output is not finite");
});
