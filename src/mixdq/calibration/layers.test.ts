import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { SDXL_TURBO_UNET } from "../../model/known/sdxlTurbo.ts";
import { Config } from "../../base/config.ts";
import { buildUNet, readUNetConfig } from "../../diffusion/unet.ts";
import { layerGroup, layerType, quantizableLayers, type QuantizableLayer } from "./layers.ts";

function layersOf(config: object): QuantizableLayer[] {
  const unet = readUNetConfig(new Config("unet/config.json", config));
  return quantizableLayers(buildUNet(unet, { batch: 1, height: 64, width: 64, tokens: 77 }, "unet", "f32"));
}

/** Layers, weights and input elements by type. */
function census(layers: readonly QuantizableLayer[]): Record<string, [number, number, number]> {
  const totals: Record<string, [number, number, number]> = {};
  for (const { path, weights, activations } of layers) {
    const total = (totals[layerType(path)] ??= [0, 0, 0]);
    total[0]++;
    total[1] += weights;
    total[2] += activations;
  }
  return totals;
}

/** name, kind, weights, input elements, whether BOS-aware, channels before the split, group; sorted. */
const digest = (layers: readonly QuantizableLayer[]): string =>
  createHash("sha256")
    .update(
      layers
        .map(({ path, kind, weights, activations, isCrossKV, hasSkip, input }) =>
          [path, kind, weights, activations, isCrossKV, hasSkip ? input.shape[3] : "-", layerGroup(path)].join(" "),
        )
        .sort()
        .join("\n"),
    )
    .digest("hex");

test("SDXL-Turbo has MixDQ's 794 layers, to the name, size, split and group", () => {
  const layers = layersOf(SDXL_TURBO_UNET);
  expect(layers).toHaveLength(794);
  expect(census(layers)).toEqual({
    convolution: [40, 319_818_240, expect.any(Number)],
    "shortcut convolution": [11, 13_414_400, expect.any(Number)],
    projection: [22, 23_756_800, expect.any(Number)],
    "self-attention": [280, 409_600_000, expect.any(Number)],
    "cross-attention q, out": [140, 204_800_000, expect.any(Number)],
    "cross-attention k, v": [140, 340_787_200, 140 * 77 * 2048],
    "feed-forward": [140, 1_228_800_000, expect.any(Number)],
    embedding: [21, 24_903_680, expect.any(Number)],
  });
  expect(layers.reduce((sum, { activations }) => sum + activations, 0)).toBe(376_015_680);
  expect(layers.filter(({ isCrossKV }) => isCrossKV)).toHaveLength(140);
  expect(layers.filter(({ hasSkip }) => hasSkip).map(({ path, input }) => `${path} ${input.shape[3]}`)).toEqual([
    "up_blocks.0.resnets.0.conv_shortcut 1280",
    "up_blocks.0.resnets.1.conv_shortcut 1280",
    "up_blocks.0.resnets.2.conv_shortcut 1280",
    "up_blocks.1.resnets.0.conv_shortcut 1280",
    "up_blocks.1.resnets.1.conv_shortcut 640",
    "up_blocks.1.resnets.2.conv_shortcut 640",
    "up_blocks.2.resnets.0.conv_shortcut 640",
    "up_blocks.2.resnets.1.conv_shortcut 320",
    "up_blocks.2.resnets.2.conv_shortcut 320",
  ]);
  // Of the same lines written from MixDQ's published tables.
  expect(digest(layers)).toBe("dc4729bac8c8f7319034e094543dfc795c4b05810256f326827cac73dc2cf033");
});

test("SD-Turbo has 282 layers", () => {
  const layers = layersOf({
    block_out_channels: [320, 640, 1280, 1280],
    down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    attention_head_dim: [5, 10, 20, 20],
    cross_attention_dim: 1024,
    use_linear_projection: true,
  });
  expect(layers).toHaveLength(282);
  expect(digest(layers)).toBe("eb752720dc46d04618ad407bc6b2996d2e2edd1b370a46cd5e486fe616e4b91f");
});

test("layers that are fused in one op read one tensor, and only the text's readers are keys and values of it", () => {
  const layers = new Map(layersOf(SDXL_TURBO_UNET).map((layer) => [layer.path, layer]));
  const block = "mid_block.attentions.0.transformer_blocks.3";
  const input = (name: string): number => layers.get(`${block}.${name}`)!.input.id;
  expect(input("attn1.to_q")).toBe(input("attn1.to_k"));
  expect(input("attn1.to_q")).toBe(input("attn1.to_v"));
  expect(input("attn2.to_k")).toBe(input("attn2.to_v"));
  expect(input("attn2.to_q")).not.toBe(input("attn2.to_k"));
  expect(layers.get(`${block}.attn2.to_k`)).toMatchObject({ isCrossKV: true, input: { shape: [1, 1, 77, 2048] } });
  for (const name of ["attn1.to_k", "attn2.to_q", "attn2.to_out.0"])
    expect(layers.get(`${block}.${name}`)!.isCrossKV).toBe(false);
});

test("every layer of SDXL has a type, and strangers have none", () => {
  for (const { path } of layersOf(SDXL_TURBO_UNET)) expect(layerType(path), path).not.toBe("other");
  expect(layerType("decoder.conv_in2")).toBe("other");
});
