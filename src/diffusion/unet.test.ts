import { TILED } from "../kernels/choices.ts";
import { expect, test } from "vitest";
import { Config } from "../base/config.ts";
import { elementCount, type Graph } from "../graph/ops.ts";
import { makePlan } from "../plan/plan.ts";
import { buildUNet, readUNetConfig } from "./unet.ts";

const COMMON = { in_channels: 4, out_channels: 4, norm_num_groups: 32, act_fn: "silu", sample_size: 64 };

/** Parameters as the published checkpoints have them. */
const PUBLISHED = {
  "SDXL-Turbo": {
    parameters: 2_567_463_684,
    tokens: 77,
    config: {
      ...COMMON,
      block_out_channels: [320, 640, 1280],
      down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
      up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
      transformer_layers_per_block: [1, 2, 10],
      attention_head_dim: [5, 10, 20],
      cross_attention_dim: 2048,
      use_linear_projection: true,
      addition_embed_type: "text_time",
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: 2816,
    },
  },
  "SD-Turbo": {
    parameters: 865_910_724,
    tokens: 77,
    config: {
      ...COMMON,
      block_out_channels: [320, 640, 1280, 1280],
      down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
      up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
      attention_head_dim: [5, 10, 20, 20],
      cross_attention_dim: 1024,
      use_linear_projection: true,
    },
  },
  "SD 1.5": {
    parameters: 859_520_964,
    tokens: 77,
    config: {
      ...COMMON,
      block_out_channels: [320, 640, 1280, 1280],
      down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
      up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
      attention_head_dim: 8,
      cross_attention_dim: 768,
    },
  },
};

const graphOf = ({ config, tokens }: { config: object; tokens: number }): Graph =>
  buildUNet(
    readUNetConfig(new Config("unet/config.json", config)),
    { batch: 1, height: 64, width: 64, tokens },
    "unet",
    "f16",
  );

test.each(Object.entries(PUBLISHED))("%s has as many parameters as published", (_, model) => {
  const count = graphOf(model).weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  expect(count).toBe(model.parameters);
});

test("SDXL-Turbo at 512x512 fits into WebGPU's default limits, and its work is known", () => {
  const plan = makePlan(graphOf(PUBLISHED["SDXL-Turbo"]), {
    caps: {
      shaderF16: true,
      ...TILED,
      packedDot: true,
      maxWorkgroupsPerDimension: 65_535,
    },
    limits: { maxBindingBytes: 128 * 2 ** 20, maxBufferBytes: 256 * 2 ** 20 },
    weightType: "f16",
  });
  expect(Math.max(...plan.weights.map(({ bytes }) => bytes))).toBeLessThanOrEqual(60e6);
  expect(plan.memory.arenaBytes.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(100e6);
  for (const { workgroups } of plan.dispatches) expect(Math.max(...workgroups)).toBeLessThanOrEqual(65_535);
  // 0.794 TMAC counted by hand over the layers; products and attention are what `work` counts as MACs.
  const macs = plan.dispatches
    .filter(({ kind }) => kind !== "group_norm" && kind !== "layer_norm" && kind !== "unary")
    .reduce((sum, { work }) => sum + work, 0);
  expect(macs / 1e12).toBeCloseTo(0.794, 2);
});

test("settings that would change the computation are refused by name", () => {
  const refused =
    (change: object): (() => unknown) =>
    () =>
      readUNetConfig(new Config("unet/config.json", { ...PUBLISHED["SD 1.5"].config, ...change }));
  expect(refused({ class_embed_type: "timestep" })).toThrow('unet/config.json: got "class_embed_type" "timestep"');
  expect(refused({ resnet_time_scale_shift: "scale_shift" })).toThrow('"resnet_time_scale_shift"');
  expect(refused({ down_block_types: ["SimpleCrossAttnDownBlock2D"] })).toThrow('"down_block_types"');
  expect(refused({ attention_head_dim: [8, 8] })).toThrow("one per block (block_out_channels has 4)");
});
