/**
 * The files of a diffusers folder that a single file comes without, from the shapes of its tensors and what its family has
 * in common: as diffusers' from_single_file takes them from the family's own repository.
 */
import { MixdqError } from "../base/errors.ts";
import {
  hasLinearProjections,
  textWidthOf,
  type Component,
  type Contents,
  type Family,
  type Mapped,
} from "./contents.ts";
import { countOf, type Shapes } from "./shapes.ts";
import type { Level } from "./unetLayout.ts";

export const PREDICTION_TYPES = ["epsilon", "v_prediction", "sample"] as const;
export type PredictionType = (typeof PREDICTION_TYPES)[number];

/** What tensors' values say, and not their shapes. */
export interface Facts {
  readonly prediction: PredictionType;
  /** Trained to a last timestep without signal. */
  readonly isZeroSnr: boolean;
}

type Values = Readonly<Record<string, unknown>>;

/** Each component's encoder class, by family. */
export const ENCODERS: Readonly<Record<Family, Readonly<Partial<Record<Component, string>>>>> = {
  sd1: { text_encoder: "CLIPTextModel" },
  sd2: { text_encoder: "CLIPTextModel" },
  sdxl: { text_encoder: "CLIPTextModel", text_encoder_2: "CLIPTextModelWithProjection" },
};

export function modelIndex({ family }: Contents, facts: Facts): Values {
  const encoders = Object.entries(ENCODERS[family]);
  return {
    _class_name: family === "sdxl" ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline",
    ...(family === "sdxl" && { force_zeros_for_empty_prompt: true }),
    scheduler: ["diffusers", schedulerConfig(family, facts)["_class_name"]],
    ...Object.fromEntries(encoders.map(([component, kind]) => [component, ["transformers", kind]])),
    ...Object.fromEntries(encoders.map(([component]) => [tokenizerOf(component), ["transformers", "CLIPTokenizer"]])),
    unet: ["diffusers", "UNet2DConditionModel"],
    vae: ["diffusers", "AutoencoderKL"],
  };
}

export const tokenizerOf = (component: string): string => component.replace("text_encoder", "tokenizer");

/** Of the repositories that diffusers takes for the family: stable-diffusion-v1-5, -2-1 or -2-base, -xl-base-1.0. */
export function schedulerConfig(family: Family, { prediction, isZeroSnr }: Facts): Values {
  const kind =
    family === "sdxl" ? "EulerDiscreteScheduler" : prediction === "v_prediction" ? "DDIMScheduler" : "PNDMScheduler";
  return {
    _class_name: kind,
    beta_start: 0.00085,
    beta_end: 0.012,
    beta_schedule: "scaled_linear",
    num_train_timesteps: 1000,
    prediction_type: prediction,
    set_alpha_to_one: false,
    steps_offset: 1,
    timestep_spacing: isZeroSnr ? "trailing" : "leading",
    ...(kind !== "PNDMScheduler" ? { rescale_betas_zero_snr: isZeroSnr } : { skip_prk_steps: true }),
    ...(family !== "sdxl" && { clip_sample: false }),
  };
}

/** Throws `invalid-model` for blocks that diffusers has no config for. */
export function unetConfig({ family, layout, unet }: Contents, { prediction }: Facts, where: string): Values {
  const { down, up, middle } = layout;
  const channels = down.map((level) => level.channels);
  const isLinear = hasLinearProjections(unet);
  const shape = (name: string): readonly number[] => {
    const found = unet.get(name);
    if (found) return found;
    throw new MixdqError("invalid-model", `${where}: got no ${name} of the UNet, expected all of it. ${DAMAGED}`);
  };
  const fits =
    up.length === down.length && up.every((level, i) => level.depths.length === down.at(-1 - i)!.depths.length + 1);
  if (!fits) {
    const say = (way: readonly Level[]): string => way.map(({ depths }) => depths.length).join("+");
    const got = `${say(down)} layers down and ${say(up)} up`;
    throw new MixdqError("invalid-model", `${where}: got a UNet of ${got}, expected one more up than down. ${DAMAGED}`);
  }
  const labels = unet.get("label_emb.0.0.weight");
  const widths = channels.some((width) => width % 32 !== 0) || (isLinear && channels.some((width) => width % 64 !== 0));
  if (widths)
    throw new MixdqError(
      "invalid-model",
      `${where}: got a UNet of widths ${channels.join(", ")}, expected multiples of ${isLinear ? 64 : 32}: how it is divided ` +
        `into heads and groups cannot be told from the file. ${CONFIG_FROM}`,
    );
  return {
    _class_name: "UNet2DConditionModel",
    sample_size: family === "sdxl" ? 128 : family === "sd2" && prediction === "v_prediction" ? 96 : 64,
    in_channels: shape("input_blocks.0.0.weight")[1],
    out_channels: shape("out.2.weight")[0],
    block_out_channels: channels,
    layers_per_block: down.map(({ depths }) => depths.length),
    down_block_types: down.map((level) => (hasAttention(level) ? "CrossAttnDownBlock2D" : "DownBlock2D")),
    up_block_types: up.map((level) => (hasAttention(level) ? "CrossAttnUpBlock2D" : "UpBlock2D")),
    mid_block_type: { attention: "UNetMidBlock2DCrossAttn", resnet: "UNetMidBlock2D", none: null }[middle],
    ...depthsOf(layout),
    attention_head_dim: isLinear ? channels.map((width) => width / 64) : 8,
    cross_attention_dim: textWidthOf(unet) ?? 768,
    use_linear_projection: isLinear,
    ...(unet.has("time_embed.cond_proj.weight") && { time_cond_proj_dim: shape("time_embed.cond_proj.weight")[1] }),
    ...(labels && {
      addition_embed_type: "text_time",
      addition_time_embed_dim: 256,
      projection_class_embeddings_input_dim: labels[1],
    }),
  };
}

const hasAttention = ({ depths }: Level): boolean => depths.some((depth) => depth !== undefined);

/** The middle has as many transformer blocks as the last level says, whose own are not read where it has no attention. */
function depthsOf({ down, up, middleDepth }: Contents["layout"]): Values {
  const list = (level: Level): readonly number[] => level.depths.map((depth) => depth ?? 1);
  const ways = down.map(list);
  if (!hasAttention(down.at(-1)!)) ways[ways.length - 1] = list(down.at(-1)!).map(() => middleDepth);
  return { transformer_layers_per_block: ways, reverse_transformer_layers_per_block: up.map(list) };
}

/** AutoencoderKL's. */
export function vaeConfig(family: Family, tensors: readonly Mapped[], where: string): Values {
  const shapes = shapesOf(tensors);
  const levels = countOf(shapes, "decoder.up_blocks.");
  const widths = Array.from(
    { length: levels },
    (_, i) => shapes.get(`decoder.up_blocks.${levels - 1 - i}.resnets.0.conv1.weight`)?.[0],
  );
  const latents = shapes.get("decoder.conv_in.weight")?.[1];
  if (latents === undefined || widths.includes(undefined))
    throw new MixdqError(
      "invalid-model",
      `${where}: got a VAE without a whole decoder, expected all of it. ${DAMAGED}`,
    );
  return {
    _class_name: "AutoencoderKL",
    in_channels: 3,
    out_channels: 3,
    latent_channels: latents,
    block_out_channels: widths,
    down_block_types: widths.map(() => "DownEncoderBlock2D"),
    up_block_types: widths.map(() => "UpDecoderBlock2D"),
    layers_per_block: countOf(shapes, "decoder.up_blocks.0.resnets.") - 1,
    sample_size: family === "sdxl" ? 1024 : 512,
    scaling_factor: SCALING[family],
    force_upcast: family === "sdxl",
  };
}

/** What latents are multiplied by: the standard deviation of the VAE's own, inverted. */
const SCALING: Readonly<Record<Family, number>> = { sd1: 0.18215, sd2: 0.18215, sdxl: 0.13025 };

/** CLIP's, in heads of 64 channels, as all published ones have. `isOpen`: OpenCLIP's, with the exact GELU. */
export function textConfig(tensors: readonly Mapped[], isOpen: boolean, where: string): Values {
  const shapes = shapesOf(tensors);
  const [vocabulary, width] = shapes.get("text_model.embeddings.token_embedding.weight") ?? [];
  const positions = shapes.get("text_model.embeddings.position_embedding.weight")?.[0];
  const inner = shapes.get("text_model.encoder.layers.0.mlp.fc1.weight")?.[0];
  if (vocabulary === undefined || width === undefined || positions === undefined || inner === undefined)
    throw new MixdqError("invalid-model", `${where}: got a part of a text encoder, expected all of it. ${DAMAGED}`);
  if (width % 64 !== 0)
    throw new MixdqError(
      "invalid-model",
      `${where}: got a text encoder of width ${width}, expected a multiple of 64: how it is divided into heads cannot be ` +
        `told from the file. ${CONFIG_FROM}`,
    );
  return {
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: inner,
    num_attention_heads: width / 64,
    num_hidden_layers: countOf(shapes, "text_model.encoder.layers."),
    max_position_embeddings: positions,
    layer_norm_eps: 1e-5,
    hidden_act: isOpen ? "gelu" : "quick_gelu",
    projection_dim: shapes.get("text_projection.weight")?.[0] ?? width,
    // transformers' configs of CLIP name 2, and mean the largest id.
    eos_token_id: 2,
  };
}

/** Names in diffusers' words to shapes, the parts of a fused matrix each with its own rows. */
function shapesOf(tensors: readonly Mapped[]): Shapes {
  return new Map(tensors.map((tensor) => [tensor.name, shapeOf(tensor)]));
}

/** As it will be written. */
export function shapeOf({ entry: { shape }, part, isTransposed }: Mapped): readonly number[] {
  if (isTransposed) return shape.toReversed();
  return part ? [shape[0] / part[1], ...shape.slice(1)] : shape;
}

const DAMAGED = "The file is damaged, or of another kind of model: download it again.";
const CONFIG_FROM = "Name a diffusers folder with the model's configs (config-from).";
