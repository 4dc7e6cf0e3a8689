/** Numbers of a config with which a model would hang, or give a picture of nothing: refused by name, at once. */
import { describe, expect, test } from "vitest";
import { Config, parseConfigText } from "../base/config.ts";
import { createScheduler } from "./scheduler.ts";
import { buildUNet, readUNetConfig } from "./unet.ts";
import { buildVaeDecoder, readVaeConfig } from "./vae.ts";

const SD15 = {
  _class_name: "UNet2DConditionModel",
  block_out_channels: [32, 64],
  down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
  attention_head_dim: 8,
  cross_attention_dim: 32,
};
const KL = {
  _class_name: "AutoencoderKL",
  block_out_channels: [32, 64],
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D"],
};
const TINY = { _class_name: "AutoencoderTiny", num_decoder_blocks: [1, 1], decoder_block_out_channels: [32, 32] };

const unet = (change: object): (() => unknown) => {
  const config = new Config("c.json", { ...SD15, ...change });
  return () => buildUNet(readUNetConfig(config), { batch: 1, height: 8, width: 8, tokens: 77 }, "unet", "f16");
};
const vae = (base: object, change: object): (() => unknown) => {
  const config = new Config("c.json", { ...base, ...change });
  return () => buildVaeDecoder(readVaeConfig(config), { batch: 1, height: 8, width: 8 }, "f16");
};
const scheduler = (name: string, change: object): (() => unknown) => {
  // As text, because that is where NaN and Infinity come from.
  const text = JSON.stringify({ _class_name: `${name}Scheduler`, ...change }).replace(/"(NaN|-?Infinity)"/g, "$1");
  return () => createScheduler(parseConfigText(text, "c.json"), "c.json")(2);
};

/** The first key is the one at fault. */
function expectRefused(make: () => unknown, change: object, code = "invalid-model"): void {
  expect(make).toThrow(expect.objectContaining({ code }));
  expect(make).toThrow(new RegExp(`^c\\.json: .*${Object.keys(change)[0]}`));
}

test("the configs that are changed here are taken as they are", () => {
  for (const make of [unet({}), vae(KL, {}), vae(TINY, {})]) expect(make).not.toThrow();
});

test.each([
  { layers_per_block: 1e6 },
  { layers_per_block: [1, 2 ** 31] },
  { transformer_layers_per_block: 1e9 },
  { transformer_layers_per_block: [1e6, 1] },
  { transformer_layers_per_block: [[1e6, 1], 1] },
  { transformer_layers_per_block: 64, layers_per_block: 32, block_out_channels: Array(10).fill(32), ...blocks(10) },
  { reverse_transformer_layers_per_block: 1e6 },
  { block_out_channels: Array(1000).fill(32) },
  { block_out_channels: [1e9, 32] },
  { in_channels: 1e9 },
  { attention_head_dim: 1e9 },
  { cross_attention_dim: 1e15 },
  { sample_size: 1e6 },
  { sample_size: [64, 1e6] },
  { sample_size: [64, 64, 64] },
  { norm_eps: 0 },
  { norm_eps: -1e-5 },
  { norm_eps: 1e9 },
  { norm_eps: Number.NaN },
  { mid_block_scale_factor: 0 },
  { mid_block_scale_factor: 1e-300 },
  { freq_shift: 160 },
  { time_cond_proj_dim: 1e12 },
])("a UNet with %j is refused", (change) => expectRefused(unet(change), change));

function blocks(count: number): object {
  const list = (type: string): string[] => Array<string>(count).fill(type);
  return { down_block_types: list("CrossAttnDownBlock2D"), up_block_types: list("CrossAttnUpBlock2D") };
}

describe("a VAE", () => {
  test.each([
    { scaling_factor: 0 },
    { scaling_factor: 1e-300 },
    { scaling_factor: -0.18215 },
    { scaling_factor: 1e30 },
    { scaling_factor: Infinity },
    { scaling_factor: "0.18215" },
    { layers_per_block: 1e6 },
    { block_out_channels: Array(60).fill(32) },
    { latent_channels: 1e9 },
    { latents_mean: [0, 0, 0] },
    { latents_mean: [0, 0, 0, Number.NaN] },
    { latents_std: [1, 1, 1, 0] },
    { latents_std: [1, 1, 1, -1] },
  ])("with %j is refused", (change) => expectRefused(vae(KL, change), change));

  test.each([{ num_decoder_blocks: [1e6, 1] }, { num_decoder_blocks: Array(100).fill(1) }, { scaling_factor: 0 }])(
    "of the tiny kind with %j is refused",
    (change) => expectRefused(vae(TINY, change), change),
  );
});

describe("a scheduler", () => {
  const Euler = "EulerDiscrete";

  test("may keep numbers that nobody computes with, infinite as diffusers writes them", () => {
    expect(scheduler(Euler, { lambda_min_clipped: "-Infinity", solver_order: "NaN", x: "Infinity" })).not.toThrow();
  });

  test.each<[string, object]>([
    [Euler, { beta_start: "NaN" }],
    [Euler, { beta_end: "Infinity" }],
    [Euler, { beta_start: 0 }],
    [Euler, { beta_end: 1e-300, beta_start: 1e-300 }],
    [Euler, { sigma_min: "-Infinity", use_karras_sigmas: true }],
    [Euler, { sigma_max: "Infinity", use_karras_sigmas: true }],
    [Euler, { sigma_max: 0, use_exponential_sigmas: true }],
    [Euler, { sigma_min: 20, sigma_max: 10, use_karras_sigmas: true }],
    [Euler, { num_train_timesteps: 1e9 }],
    [Euler, { num_train_timesteps: "Infinity" }],
    [Euler, { trained_betas: Array(1000).fill("NaN") }],
    ["LCM", { timestep_scaling: 0 }],
    ["LCM", { timestep_scaling: "NaN" }],
    ["LCM", { beta_end: 0.6, beta_schedule: "linear" }],
    ["LCM", { clip_sample_range: 0, clip_sample: true }],
  ])("%s with %j is refused", (name, change) => expectRefused(scheduler(name, change), change));
});
