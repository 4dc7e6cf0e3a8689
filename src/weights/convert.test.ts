import { expect, test } from "vitest";
import { decodeHalves, encodeHalves, readFloats, readIntegers, toFloat16, toFloat32 } from "./convert.ts";
import { createGenerator } from "../diffusion/noise.ts";

const ALL_BITS = Uint16Array.from({ length: 0x10000 }, (_, i) => i);
/** Indices where two arrays differ; comparing thousands of elements one by one with expect takes seconds. */
const differences = (a: Uint16Array, b: Uint16Array) => Array.from(a.keys()).filter((i) => a[i] !== b[i]);
const bytesOf = (data: ArrayBufferView) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

test("every finite half survives the way to float32 and back", () => {
  const finite = ALL_BITS.filter((bits) => (bits & 0x7c00) !== 0x7c00);
  expect(differences(encodeHalves(decodeHalves(finite), "t"), finite)).toEqual([]);
});

test("known halves have their known values", () => {
  const bits = Uint16Array.of(0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x3555, 0x7c00);
  const values = [0, -0, 1, -2, 65504, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 0.333251953125, Infinity];
  expect(Array.from(decodeHalves(bits))).toEqual(values);
  expect(decodeHalves(Uint16Array.of(0x7e00))[0]).toBeNaN();
});

test("halfway cases go to the even neighbour, everything else to the nearest", () => {
  const positive = ALL_BITS.subarray(0, 0x7bff);
  const values = decodeHalves(ALL_BITS);
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
  for (const [inputs, expected] of cases) expect(differences(encodeHalves(inputs, "t"), expected)).toEqual([]);
});

test("normal deviates lose at most half a unit in the last place", () => {
  const values = createGenerator(1).randn(10_000);
  const back = decodeHalves(encodeHalves(values, "t"));
  const isClose = (value: number, i: number) =>
    Math.abs(back[i] - value) <= Math.max(2 ** -25, Math.abs(value) * 2 ** -11);
  expect([...values].findIndex((value, i) => !isClose(value, i))).toBe(-1);
});

test("a value that no half holds is an error that names it, or saturates", () => {
  const values = Float32Array.of(65519, -65520, Infinity, -Infinity, 1e30, Number.NaN);
  expect(() => encodeHalves(values, "unet: conv_in.weight")).toThrow(
    "unet: conv_in.weight: element 1 is -65520, expected at most 65504 in magnitude",
  );
  expect(() => encodeHalves(Float32Array.of(Number.NaN), "t")).toThrow(
    expect.objectContaining({ code: "invalid-model" }),
  );
  const saturated = encodeHalves(values, "t", "saturate");
  expect(Array.from(decodeHalves(saturated))).toEqual([65504, -65504, 65504, -65504, 65504, Number.NaN]);
  const bfloats = bytesOf(Uint16Array.of(0x3f80, 0x4780));
  expect(() => toFloat16(bfloats, "BF16", "t")).toThrow("t: element 1 is 65536");
  expect(toFloat16(bfloats, "BF16", "t", "saturate")).toEqual(Uint16Array.of(0x3c00, 0x7bff));
});

test("bfloat16 is the upper half of float32, and converts like it", () => {
  const finite = ALL_BITS.filter((bits) => (bits & 0x7fff) < 0x4780);
  const values = toFloat32(bytesOf(finite), "BF16");
  expect(values[finite.indexOf(0x3fc0)]).toBe(1.5);
  expect(differences(toFloat16(bytesOf(finite), "BF16", "t"), encodeHalves(values, "t"))).toEqual([]);
});

test("aligned data of the same format is passed on without a copy, other data is copied", () => {
  const buffer = new ArrayBuffer(16);
  new Uint8Array(buffer).set([0, 0x3c, 0, 0x40], 4);
  expect(toFloat16(new Uint8Array(buffer, 4, 4), "F16", "t").buffer).toBe(buffer);
  expect(toFloat32(new Uint8Array(buffer, 4, 8), "F32").buffer).toBe(buffer);
  const odd = new Uint8Array(buffer).slice();
  odd.copyWithin(5, 4, 8);
  expect(toFloat16(odd.subarray(5, 9), "F16", "t")).toEqual(Uint16Array.of(0x3c00, 0x4000));
  expect(toFloat32(odd.subarray(5, 9), "F16")).toEqual(Float32Array.of(1, 2));
});

test("a part of a larger array is converted alone", () => {
  const values = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
  expect(encodeHalves(values, "t")).toEqual(Uint16Array.of(0x3c00, 0x4000));
});

test("numbers of input files are read whatever their type", () => {
  const cases = [
    ["I64", BigInt64Array.of(-3n, 999n)],
    ["I32", Int32Array.of(-3, 999)],
    ["I16", Int16Array.of(-3, 999)],
    ["F64", Float64Array.of(-3, 999)],
    ["F32", Float32Array.of(-3, 999)],
  ] as const;
  for (const [dtype, data] of cases) {
    const tensor = { dtype, shape: [2], bytes: bytesOf(data) };
    expect(readFloats(tensor, "t")).toEqual(Float32Array.of(-3, 999));
    if (dtype.startsWith("I")) expect(readIntegers(tensor, "t")).toEqual(Int32Array.of(-3, 999));
    else expect(() => readIntegers(tensor, "t")).toThrow(`t: got dtype ${dtype}, expected integers`);
  }
  const large = { dtype: "I64", shape: [1], bytes: bytesOf(BigInt64Array.of(2n ** 31n)) } as const;
  expect(() => readIntegers(large, "ids")).toThrow("ids: got 2147483648, expected integers of 32 bits");
});
