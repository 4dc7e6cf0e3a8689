import { expect, test } from "vitest";
import type { DType, Shape, Tensor } from "../graph/ops.ts";
import { tensorBytes } from "../plan/plan.ts";
import { decodeValues, encodeValues } from "./values.ts";

const tensor = (dtype: DType, shape: Shape): Tensor => ({ id: 1, name: "x", shape, dtype });

/** What a GPU gives back of memory that was written to: all that the plan set apart, in bytes. */
function memoryOf(values: Float32Array | Uint32Array, of: Tensor): ArrayBuffer {
  const { buffer, byteOffset, byteLength } = encodeValues(values, of);
  const memory = new Uint8Array(tensorBytes(of)).fill(0xaa); // what lay there before
  memory.set(new Uint8Array(buffer, byteOffset, byteLength));
  return memory.buffer;
}

test.each<[DType, Shape]>(
  (["f32", "f16", "i8", "u32"] as const).flatMap((dtype) => [
    [dtype, [1, 3, 5, 8]],
    [dtype, [2, 1, 3, 6]],
    [dtype, [1, 1, 1, 1]],
  ]),
)("%s values of %j are read as they were written", (dtype, shape) => {
  const of = tensor(dtype, shape);
  const count = shape.reduce((product, size) => product * size, 1);
  const values = Float32Array.from({ length: count }, (_, i) => (dtype === "u32" ? i : i - 17));
  expect(decodeValues(memoryOf(values, of), of)).toEqual(values);
});

test("channels that fill no quad are followed by zeros, and halves are rounded to even", () => {
  expect([...encodeValues(Float32Array.of(1, 2, 3, 4, 5, 6), tensor("i8", [1, 1, 2, 3]))]).toEqual([
    1, 2, 3, 0, 4, 5, 6, 0,
  ]);
  expect([...encodeValues(Float32Array.of(1, 2049), tensor("f16", [1, 1, 2, 1]))]).toEqual([
    0x3c00, 0, 0, 0, 0x6800, 0, 0, 0,
  ]);
  expect([...encodeValues(Uint32Array.of(2 ** 32 - 1, 7, 1), tensor("u32", [1, 1, 1, 3]))]).toEqual([
    2 ** 32 - 1,
    7,
    1,
  ]);
});
