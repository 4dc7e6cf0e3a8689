import { expect, test } from "vitest";
import type { LinearOp, Tensor, Weight } from "../graph/ops.ts";
import type { Rounding } from "../quant/matrix.ts";
import type { ComponentWeights } from "../weights/folder.ts";
import type { WeightTensor } from "../weights/safetensors.ts";
import { streamCheckpoint } from "./weightStream.ts";

type Stored = [name: string, shape: number[], values: number[]];

/** A checkpoint in memory. */
const checkpoint = (...stored: Stored[]): ComponentWeights => ({
  bytes: 0,
  async *tensors({ wanted = () => true } = {}) {
    for (const [name, shape, values] of stored) {
      const bytes = new Uint8Array(Float32Array.from(values).buffer);
      if (wanted(name)) yield { name, shape, dtype: "F32", bytes } as WeightTensor;
    }
  },
});

const tensor = (channels: number): Tensor => ({ id: channels, name: "t", shape: [1, 1, 1, channels], dtype: "f32" });
const KEY: Weight = { name: "attn2.to_k.weight", shape: [2, 3], aliases: ["attn2.key.weight"] };
const BOS: Weight = { name: "attn2.to_k.bos", shape: [1, 2], derivedFrom: KEY.name };

/** A layer, in integers where `bits` are given, with the cache of the text's first token. */
function graphOf(bits?: 4): Parameters<typeof streamCheckpoint>[1] {
  const quant = bits && ({ bits, symmetric: false, range: "minmax", group: null } as const);
  const part = { path: "attn2.to_k", weight: KEY, bos: BOS, ...(quant && { quant }) };
  const op: LinearOp = {
    ...{ kind: "linear", path: "attn2", x: tensor(3), y: tensor(2), activation: "none" },
    parts: [part],
  };
  return { ops: [op], weights: [KEY, BOS] };
}

const OLD: Stored = ["attn2.key.weight", [2, 3], [1, 2, 3, 4, 5, 6]];

async function loaded(weights: ComponentWeights, bits?: 4, ...rounding: [] | [() => Rounding]) {
  const found = [];
  const source = { component: "unet", weights, bos: [Float32Array.of(1, 10, 100)] };
  for await (const item of streamCheckpoint(source, graphOf(bits), ...rounding))
    found.push([item.name, "matrix" in item ? item.matrix() : [...item.values("f32")]]);
  return found;
}

test("a tensor under an older name comes under the graph's own, and so does what is derived from it", async () => {
  expect(await loaded(checkpoint(OLD))).toEqual([
    [KEY.name, [1, 2, 3, 4, 5, 6]],
    [BOS.name, [321, 654]],
  ]);
});

test("of two tensors for one weight the first is taken", async () => {
  const other: Stored = [KEY.name, [2, 3], [0, 0, 0, 0, 0, 0]];
  expect((await loaded(checkpoint(OLD, other))).length).toBe(2);
  expect(await loaded(checkpoint(OLD, other))).toEqual(await loaded(checkpoint(OLD)));
});

test("a layer in integers comes as a matrix, rounded as the configuration says or as is asked for", async () => {
  const [[name, matrix], cache] = await loaded(checkpoint(OLD), 4);
  expect(name).toBe(KEY.name);
  expect(matrix).toMatchObject({ path: "attn2.to_k", rows: 2, columns: 3, bits: 4, segments: [0] });
  const scales = Float32Array.of(3 / 15, 6 / 15);
  expect(matrix).toMatchObject({ scales, codes: Int8Array.of(5, 10, 15, 10, 12, 15) });
  expect(cache).toEqual([BOS.name, [321, 654]]);

  const zeros: Rounding =
    () =>
    (_, { scales }) =>
      void scales.fill(7);
  const [[, zeroed]] = await loaded(checkpoint(OLD), 4, () => zeros);
  expect(zeroed).toMatchObject({ scales: Float32Array.of(7, 7), codes: new Int8Array(6) });
});

test("a tensor of another shape is refused under its name in the file; ones at the end of a shape do not matter", async () => {
  await expect(loaded(checkpoint(["attn2.key.weight", [3, 2], [1, 2, 3, 4, 5, 6]]))).rejects.toThrow(
    "unet attn2.key.weight: the file has shape [3, 2], config.json asks for [2, 3]. Weights and config do not belong",
  );
  const pointwise: Stored = ["attn2.key.weight", [2, 3, 1, 1], [1, 2, 3, 4, 5, 6]];
  expect(await loaded(checkpoint(pointwise))).toEqual(await loaded(checkpoint(OLD)));
});

test("a layer that the graph lacks is refused, other tensors are passed over", async () => {
  const more: Stored = ["position_ids", [1], [0]];
  expect(await loaded(checkpoint(more, OLD))).toEqual(await loaded(checkpoint(OLD)));
  await expect(loaded(checkpoint(OLD, ["mid_block.conv.weight", [1], [0]]))).rejects.toThrow(
    "unet: the weights have mid_block.conv.weight, unet/config.json describes no such layer",
  );
});
