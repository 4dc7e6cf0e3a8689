import { expect, test } from "vitest";
import { readFloats, toFloat16, toFloat32 } from "./convert.ts";

const bytesOf = (data: ArrayBufferView) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

test("a value that no half holds is an error that names it", () => {
  const values = bytesOf(Float32Array.of(65519, -65520));
  expect(() => toFloat16(values, "F32", "unet: conv_in.weight")).toThrow(
    "unet: conv_in.weight: element 1 is -65520, expected at most 65504 in magnitude",
  );
  expect(() => toFloat16(bytesOf(Float32Array.of(Number.NaN)), "F32", "t")).toThrow(
    expect.objectContaining({ code: "invalid-model" }),
  );
  expect(() => toFloat16(bytesOf(Uint16Array.of(0x3f80, 0x4780)), "BF16", "t")).toThrow("t: element 1 is 65536");
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
  const values = bytesOf(Float32Array.of(9, 1, 2, 9).subarray(1, 3));
  expect(toFloat16(values, "F32", "t")).toEqual(Uint16Array.of(0x3c00, 0x4000));
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
  }
});
