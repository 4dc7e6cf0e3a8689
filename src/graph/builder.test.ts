import { expect, test } from "vitest";
import { GraphBuilder, slice } from "./builder.ts";

const builder = (): GraphBuilder => new GraphBuilder("unet", "f16", "f32");

test("shapes follow PyTorch's: stride 2, both paddings, odd enlargements", () => {
  const g = builder();
  const x = g.input("x", [2, 17, 23, 8]);
  expect(g.conv2d("a", x, 12, { stride: 2 }).shape).toEqual([2, 9, 12, 12]);
  expect(g.conv2d("b", x, 12, { stride: 2, padding: "end" }).shape).toEqual([2, 8, 11, 12]);
  expect(g.conv2d("c", x, 3, { upsampleTo: [33, 46] }).shape).toEqual([2, 33, 46, 3]);
  expect(g.linear("d", x, 64, { activation: "geglu" }).shape).toEqual([2, 17, 23, 32]);
});

test("a contradiction is refused with the path, what was got and what was expected", () => {
  const g = builder();
  const x = g.input("x", [1, 8, 8, 8]);
  expect(() => g.linear("up.fc", x, 6)).toThrow("unet up.fc: got 6 output channels, expected a multiple of 4");
  expect(() => g.groupNorm("up.norm", x, { groups: 3, eps: 1e-5 })).toThrow(
    "8 channels, expected a multiple of norm_num_groups = 3",
  );
  expect(() => g.conv2d("up.conv", x, 8, { upsampleTo: [20, 16] })).toThrow(
    "upsampled height 20, expected about twice the input's 8",
  );
  expect(() => g.conv2d("up.conv", x, 8, { residual: g.input("r", [1, 8, 8, 4]) })).toThrow(
    "residual of shape [1, 8, 8, 4], expected [1, 8, 8, 8]",
  );
  const qkv = g.input("qkv", [1, 1, 5, 24]);
  const [q, k, v] = [slice(qkv, 0, 3), slice(qkv, 1, 3), slice(qkv, 2, 3)];
  expect(() => g.attention("attn", { q, k, v, heads: 3 })).toThrow("expected a multiple of 3 heads");
});

test("what is added from block to block is stored as the stream, the rest as activations", () => {
  const g = builder();
  const x = g.input("x", [1, 4, 4, 8]);
  expect(x.dtype).toBe("f32");
  expect(g.layerNorm("norm", x, 1e-5).dtype).toBe("f16");
  expect(g.linear("fc1", x, 8).dtype).toBe("f16");
  expect(g.linear("fc2", x, 8, { residual: x }).dtype).toBe("f32");
  expect(g.conv2d("conv_in", x, 8, { stream: true }).dtype).toBe("f32");
});

test("a weight that two layers share is listed once, and must have one shape", () => {
  const g = builder();
  const x = g.input("x", [1, 1, 4, 8]);
  g.linear("fc", x, 8);
  g.linear("fc", x, 8);
  expect(g.finish().weights.map(({ name }) => name)).toEqual(["fc.weight", "fc.bias"]);
  expect(() => g.linear("fc", x, 12)).toThrow("shape of a weight used twice");
});
