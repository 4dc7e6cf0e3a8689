/**
 * The configs of SDXL-Turbo (stabilityai/sdxl-turbo), as diffusers saves them, less what nothing here reads: the shapes of
 * a full-size model, for plans, benchmarks and synthetic weights. There are no weights in this repository.
 */

import { Config } from "../../base/config.ts";
import { readUNetConfig } from "../../diffusion/unet.ts";
import { readVaeConfig } from "../../diffusion/vae.ts";
import type { GraphSource } from "../graphs.ts";

/** unet/config.json of SDXL and SDXL-Turbo (the same UNet). */
export const SDXL_TURBO_UNET = {
  _class_name: "UNet2DConditionModel",
  act_fn: "silu",
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  attention_head_dim: [5, 10, 20],
  block_out_channels: [320, 640, 1280],
  center_input_sample: false,
  conv_in_kernel: 3,
  conv_out_kernel: 3,
  cross_attention_dim: 2048,
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  downsample_padding: 1,
  flip_sin_to_cos: true,
  freq_shift: 0,
  in_channels: 4,
  layers_per_block: 2,
  mid_block_scale_factor: 1,
  mid_block_type: "UNetMidBlock2DCrossAttn",
  norm_eps: 1e-5,
  norm_num_groups: 32,
  only_cross_attention: false,
  out_channels: 4,
  projection_class_embeddings_input_dim: 2816,
  resnet_time_scale_shift: "default",
  sample_size: 64,
  time_embedding_type: "positional",
  transformer_layers_per_block: [1, 2, 10],
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  use_linear_projection: true,
} as const;

/** text_encoder/config.json: CLIP ViT-L/14. */
export const SDXL_TURBO_TEXT_ENCODER = {
  architectures: ["CLIPTextModel"],
  hidden_act: "quick_gelu",
  hidden_size: 768,
  intermediate_size: 3072,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 77,
  num_attention_heads: 12,
  num_hidden_layers: 12,
  projection_dim: 768,
  vocab_size: 49408,
} as const;

/** text_encoder_2/config.json: OpenCLIP ViT-bigG/14. */
export const SDXL_TURBO_TEXT_ENCODER_2 = {
  architectures: ["CLIPTextModelWithProjection"],
  hidden_act: "gelu",
  hidden_size: 1280,
  intermediate_size: 5120,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 77,
  num_attention_heads: 20,
  num_hidden_layers: 32,
  projection_dim: 1280,
  vocab_size: 49408,
} as const;

/** vae/config.json. */
export const SDXL_TURBO_VAE = {
  _class_name: "AutoencoderKL",
  act_fn: "silu",
  block_out_channels: [128, 256, 512, 512],
  down_block_types: ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
  force_upcast: true,
  in_channels: 3,
  latent_channels: 4,
  layers_per_block: 2,
  norm_num_groups: 32,
  out_channels: 3,
  sample_size: 1024,
  scaling_factor: 0.13025,
  up_block_types: ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
} as const;

/** SDXL-Turbo as far as its graphs need it; 77 tokens a prompt. */
export function describeSdxlTurbo(): GraphSource {
  const encoder = (component: string, config: object) => ({
    component,
    config: new Config(`${component}/config.json`, config),
    projects: component === "text_encoder_2",
    tokenizer: { length: 77 },
  });
  return {
    textEncoders: [
      encoder("text_encoder", SDXL_TURBO_TEXT_ENCODER),
      encoder("text_encoder_2", SDXL_TURBO_TEXT_ENCODER_2),
    ],
    textState: "penultimate",
    unet: readUNetConfig(new Config("unet/config.json", SDXL_TURBO_UNET)),
    vae: readVaeConfig(new Config("vae/config.json", SDXL_TURBO_VAE)),
  };
}
