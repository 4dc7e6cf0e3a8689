import { expect, test } from "vitest";
import { bfloatToHalf, firstNonFinite, fromBfloat, fromHalf, toHalf } from "./half.ts";
import { createGenerator } from "../diffusion/noise.ts";

const ALL_BITS = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
/** Indices where two arrays differ; comparing thousands of elements one by one with expect takes seconds. */
const differences = (a: Uint16Array, b: Uint16Array) => Array.from(a.keys()).filter((i) => a[i] !== b[i]);

test("every finite half survives the way to float32 and back", () => {
  const finite = ALL_BITS.filter((bits) => (bits & 0x7c00) !== 0x7c00);
  expect(differences(toHalf(fromHalf(finite)), finite)).toEqual([]);
});

test("known halves have their known values", () => {
  const bits = Uint16Array.of(0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x3555, 0x7c00);
  const values = [0, -0, 1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 0.333251953125, Infinity];
  expect(Array.from(fromHalf(bits))).toEqual(values);
  expect(fromHalf(Uint16Array.of(0x7e00))[0]).toBeNaN();
});

test("halfway cases go to the even neighbour, everything else to the nearest", () => {
  const positive = ALL_BITS.subarray(0, 0x7bff);
  const values = fromHalf(ALL_BITS);
  const middles = Float32Array.from(positive, (bits) => (values[bits] + values[bits + 1]) / 2);
  const even = positive.map((bits) => bits + (bits & 1));
  const nudge = (by: number) => {
    const bits = new Uint32Array(middles.slice().buffer);
    return new Float32Array(bits.map((b) => b + by).buffer);
  };
  const cases = [
    [middles, even],
    [nudge(-1), positive],
    [nudge(1), positive.map((bits) => bits + 1)],
    [middles.map((value) => -value), even.map((bits) => bits | 0x8000)],
  ] as const;
  for (const [inputs, expected] of cases) expect(differences(toHalf(inputs), expected)).toEqual([]);
});

test("normal deviates lose at most half a unit in the last place", () => {
  const values = createGenerator(1).randn(10_000);
  const back = fromHalf(toHalf(values));
  const isClose = (value: number, i: number) =>
    Math.abs(back[i] - value) <= Math.max(2 ** -25, Math.abs(value) * 2 ** -11);
  expect([...values].findIndex((value, i) => !isClose(value, i))).toBe(-1);
});

test("what no half holds becomes infinity, and is found", () => {
  const halves = toHalf(Float32Array.of(65519, -65520, Infinity, 1e30, Number.NaN));
  expect(Array.from(fromHalf(halves))).toEqual([65504, -Infinity, Infinity, Infinity, Number.NaN]);
  expect(firstNonFinite(halves)).toBe(1);
  expect(firstNonFinite(halves.subarray(0, 1))).toBe(-1);
});

test("bfloat16 is the upper half of float32, and converts like it", () => {
  const values = fromBfloat(ALL_BITS);
  expect(values[0x3fc0]).toBe(1.5);
  expect(differences(bfloatToHalf(ALL_BITS), toHalf(values))).toEqual([]);
});
