/** The decoders that turn latents into a picture: AutoencoderKL's and AutoencoderTiny's (TAESD), as graphs. */
import type { Config } from "../base/config.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import { resnet, selfAttention } from "./blocks.ts";

export interface VaeConfig {
  readonly config: Config;
  readonly kind: "AutoencoderKL" | "AutoencoderTiny";
  readonly latentChannels: number;
  /** Pixels per latent, along each axis. */
  readonly scale: number;
  /** Latents are divided by this before decoding. */
  readonly scalingFactor: number;
  /** Per-channel statistics of the latents, for the few models that have them. */
  readonly latentsMean: readonly number[] | undefined;
  readonly latentsStd: readonly number[] | undefined;
  /** The activations overflow 16-bit floats: store them in 32. */
  readonly forceUpcast: boolean;
}

/*
 * Limits, far above any model of the family, far below what would stall a page: SDXL's has 4 blocks of 2 layers, widths
 * to 512; TAESD's at most 3 residual blocks a level.
 */
const MAX_BLOCKS = 10;
const MAX_LAYERS = 32;
const MAX_WIDTH = 2 ** 16;
/** What latents are scaled by: 0.13 to 1.5 in published models. Beyond these, the picture is of one colour. */
const [LEAST_FACTOR, MOST_FACTOR] = [1e-3, 1e3];

const readWidths = (config: Config): readonly number[] =>
  config.integers("block_out_channels", undefined, MAX_BLOCKS, MAX_WIDTH);

const readTinyBlocks = (config: Config): readonly number[] =>
  config.integers("num_decoder_blocks", [3, 3, 3, 1], MAX_BLOCKS, MAX_LAYERS);

export function readVaeConfig(config: Config): VaeConfig {
  const kind = config.className;
  if (kind !== "AutoencoderKL" && kind !== "AutoencoderTiny")
    config.fail("_class_name", '"AutoencoderKL" or "AutoencoderTiny"');
  const latentChannels = config.integer("latent_channels", 4, MAX_WIDTH);
  const statistics = (key: string, least: number): readonly number[] | undefined =>
    config.optional(key, () =>
      config
        .get(key)
        .items(latentChannels, latentChannels)
        .map((item) => item.number(least, MOST_FACTOR)),
    );
  const levels = kind === "AutoencoderKL" ? readWidths(config).length : readTinyBlocks(config).length;
  return {
    config,
    kind,
    latentChannels,
    scale: 2 ** (levels - 1),
    scalingFactor: config.number("scaling_factor", kind === "AutoencoderKL" ? 0.18215 : 1, LEAST_FACTOR, MOST_FACTOR),
    latentsMean: statistics("latents_mean", -MOST_FACTOR),
    latentsStd: statistics("latents_std", LEAST_FACTOR),
    forceUpcast: kind === "AutoencoderKL" && config.boolean("force_upcast", true),
  };
}

/** `latents` [batch, height, width, latent_channels], already unscaled -> `image` [batch, H, W, 3], nominally -1..1. */
export function buildVaeDecoder(
  vae: VaeConfig,
  { batch, height, width }: { batch: number; height: number; width: number },
  dtype: "f32" | "f16",
): Graph {
  const g = new GraphBuilder(vae.config.where, dtype);
  const latents = g.input("latents", [batch, height, width, vae.latentChannels]);
  g.output("image", vae.kind === "AutoencoderKL" ? decodeKl(g, vae, latents) : decodeTiny(g, vae, latents));
  return g.finish();
}

/** Fixed in diffusers' AutoencoderKL, whatever the config says. */
const KL_EPS = 1e-6;

/** What VAE checkpoints of 2022 call the parts of the middle's attention. */
const KL_LEGACY = { to_q: "query", to_k: "key", to_v: "value", "to_out.0": "proj_attn" };

function decodeKl(g: GraphBuilder, { config }: VaeConfig, latents: Tensor): Tensor {
  config.only("act_fn", "silu", "swish");
  const types = config.strings("up_block_types", MAX_BLOCKS);
  if (types.some((type) => type !== "UpDecoderBlock2D")) config.fail("up_block_types", 'only "UpDecoderBlock2D"');
  const widths = readWidths(config).toReversed();
  const groups = config.integer("norm_num_groups", 32, MAX_WIDTH);
  const layers = config.integer("layers_per_block", 1, MAX_LAYERS) + 1;
  g.aliases((name) =>
    Object.entries(KL_LEGACY).flatMap(([now, then]) =>
      name.includes(`.attentions.0.${now}.`) ? [name.replace(`.${now}.`, `.${then}.`)] : [],
    ),
  );

  const z = config.boolean("use_post_quant_conv", true)
    ? g.conv2d("post_quant_conv", latents, latents.shape[3], { kernel: 1 })
    : latents;
  let x = g.conv2d("decoder.conv_in", z, widths[0]);
  const options = { channels: widths[0], groups, eps: KL_EPS };
  x = resnet(g, "decoder.mid_block.resnets.0", x, options);
  if (config.boolean("mid_block_add_attention", true)) {
    const path = "decoder.mid_block.attentions.0";
    const normed = g.groupNorm(`${path}.group_norm`, x, { groups, eps: KL_EPS });
    x = selfAttention(g, path, x, normed, 1, true);
  }
  x = resnet(g, "decoder.mid_block.resnets.1", x, options);
  widths.forEach((channels, block) => {
    const path = `decoder.up_blocks.${block}`;
    for (let layer = 0; layer < layers; layer++)
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels, groups, eps: KL_EPS });
    if (block < widths.length - 1)
      x = g.conv2d(`${path}.upsamplers.0.conv`, x, channels, { upsampleTo: [2 * x.shape[1], 2 * x.shape[2]] });
  });
  const normed = g.groupNorm("decoder.conv_norm_out", x, { groups, eps: KL_EPS, activation: "silu" });
  return g.conv2d("decoder.conv_out", normed, config.integer("out_channels", 3, MAX_WIDTH));
}

/**
 * TAESD (Ollin Boer Bohan, github.com/madebyollin/taesd) as diffusers names its layers: one flat list in which
 * activations and upsamplers take a number too.
 */
function decodeTiny(g: GraphBuilder, { config }: VaeConfig, latents: Tensor): Tensor {
  config.only("act_fn", "relu");
  config.only("upsampling_scaling_factor", 2);
  config.only("upsample_fn", "nearest");
  const blocks = readTinyBlocks(config);
  const widths = config.integers("decoder_block_out_channels", [64, 64, 64, 64], MAX_BLOCKS, MAX_WIDTH);
  if (widths.length !== blocks.length)
    config.fail("decoder_block_out_channels", `${blocks.length} widths, as num_decoder_blocks`);
  if (new Set(widths).size > 1)
    config.fail("decoder_block_out_channels", "equal widths, as diffusers' own decoder needs");
  const width = widths[0];

  let layer = 0;
  const next = (): string => `decoder.layers.${layer++}`;
  let x = g.unary("decoder.clamp", latents, { name: "soft_clamp" });
  x = g.conv2d(next(), x, width, { activation: "relu" });
  next(); // the activation
  blocks.forEach((count, stage) => {
    const isLast = stage === blocks.length - 1;
    for (let i = 0; i < count; i++) {
      const path = next();
      const first = g.conv2d(`${path}.conv.0`, x, width, { activation: "relu" });
      const second = g.conv2d(`${path}.conv.2`, first, width, { activation: "relu" });
      x = g.conv2d(`${path}.conv.4`, second, width, { residual: x, activation: "relu" });
    }
    if (isLast) x = g.conv2d(next(), x, config.integer("out_channels", 3, MAX_WIDTH));
    else {
      next(); // the upsampler, folded into the convolution after it
      x = g.conv2d(next(), x, width, { upsampleTo: [2 * x.shape[1], 2 * x.shape[2]], bias: false });
    }
  });
  return g.unary("decoder.range", x, { name: "affine", scale: 2, shift: -1 });
}
