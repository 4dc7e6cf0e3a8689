/** AutoencoderKL and AutoencoderTiny (TAESD): their config, the parts that both halves are made of, and the decoders as graphs. */
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
export const MAX_BLOCKS = 10;
export const MAX_LAYERS = 32;
export const MAX_WIDTH = 2 ** 16;
/** What latents are scaled by: 0.13 to 1.5 in published models. Beyond these, the picture is of one colour. */
const [LEAST_FACTOR, MOST_FACTOR] = [1e-3, 1e3];

const readWidths = (config: Config): readonly number[] =>
  config.integers("block_out_channels", undefined, MAX_BLOCKS, MAX_WIDTH);

const readTinyBlocks = (config: Config): readonly number[] =>
  config.integers("num_decoder_blocks", [3, 3, 3, 1], MAX_BLOCKS, MAX_LAYERS, 0);

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

/** What encoder and decoder have in common: widths from the pixels on, and `layers` of each block of the encoder. */
export function klBackbone(g: GraphBuilder, config: Config) {
  config.only("act_fn", "silu", "swish");
  g.aliases((name) =>
    Object.entries(KL_LEGACY).flatMap(([now, then]) =>
      name.includes(`.attentions.0.${now}.`) ? [name.replace(`.${now}.`, `.${then}.`)] : [],
    ),
  );
  return {
    widths: readWidths(config),
    groups: config.integer("norm_num_groups", 32, MAX_WIDTH),
    layers: config.integer("layers_per_block", 1, MAX_LAYERS),
    eps: KL_EPS,
  };
}

/** UNetMidBlock2D without time: [B, H, W, C] -> the same shape. */
export function klMiddle(g: GraphBuilder, path: string, input: Tensor, config: Config): Tensor {
  const groups = config.integer("norm_num_groups", 32, MAX_WIDTH);
  const options = { channels: input.shape[3], groups, eps: KL_EPS };
  let x = resnet(g, `${path}.resnets.0`, input, options);
  if (config.boolean("mid_block_add_attention", true)) {
    const attention = `${path}.attentions.0`;
    const normed = g.groupNorm(`${attention}.group_norm`, x, { groups, eps: KL_EPS });
    x = selfAttention(g, attention, x, normed, 1, true);
  }
  return resnet(g, `${path}.resnets.1`, x, options);
}

function decodeKl(g: GraphBuilder, { config }: VaeConfig, latents: Tensor): Tensor {
  const types = config.strings("up_block_types", MAX_BLOCKS);
  if (types.some((type) => type !== "UpDecoderBlock2D")) config.fail("up_block_types", 'only "UpDecoderBlock2D"');
  const { widths: fromPixels, groups, layers, eps } = klBackbone(g, config);
  const widths = fromPixels.toReversed();

  const z = config.boolean("use_post_quant_conv", true)
    ? g.conv2d("post_quant_conv", latents, latents.shape[3], { kernel: 1 })
    : latents;
  let x = klMiddle(g, "decoder.mid_block", g.conv2d("decoder.conv_in", z, widths[0]), config);
  widths.forEach((channels, block) => {
    const path = `decoder.up_blocks.${block}`;
    for (let layer = 0; layer <= layers; layer++)
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels, groups, eps });
    if (block < widths.length - 1)
      x = g.conv2d(`${path}.upsamplers.0.conv`, x, channels, { upsampleTo: [2 * x.shape[1], 2 * x.shape[2]] });
  });
  const normed = g.groupNorm("decoder.conv_norm_out", x, { groups, eps, activation: "silu" });
  return g.conv2d("decoder.conv_out", normed, config.integer("out_channels", 3, MAX_WIDTH));
}

/** The one width of all stages of a half. Throws `invalid-model`. */
export function tinyWidth(config: Config, half: "encoder" | "decoder", stages: number): number {
  const key = `${half}_block_out_channels`;
  config.only("act_fn", "relu");
  const widths = config.integers(key, [64, 64, 64, 64], MAX_BLOCKS, MAX_WIDTH);
  if (widths.length !== stages) config.fail(key, `${stages} widths, as num_${half}_blocks`);
  if (new Set(widths).size > 1) config.fail(key, `equal widths, as diffusers' own ${half} needs`);
  return widths[0];
}

/** So many of AutoencoderTinyBlock: relu(x + conv(relu(conv(relu(conv(x)))))). `next` names the next layer of the list. */
export function tinyBlocks(g: GraphBuilder, next: () => string, input: Tensor, count: number): Tensor {
  const width = input.shape[3];
  let x = input;
  for (let i = 0; i < count; i++) {
    const path = next();
    const first = g.conv2d(`${path}.conv.0`, x, width, { activation: "relu" });
    const second = g.conv2d(`${path}.conv.2`, first, width, { activation: "relu" });
    x = g.conv2d(`${path}.conv.4`, second, width, { residual: x, activation: "relu" });
  }
  return x;
}

/**
 * TAESD (Ollin Boer Bohan, github.com/madebyollin/taesd) as diffusers names its layers: one flat list in which
 * activations and upsamplers take a number too.
 */
function decodeTiny(g: GraphBuilder, { config }: VaeConfig, latents: Tensor): Tensor {
  config.only("upsampling_scaling_factor", 2);
  config.only("upsample_fn", "nearest");
  const blocks = readTinyBlocks(config);
  const width = tinyWidth(config, "decoder", blocks.length);

  let layer = 0;
  const next = (): string => `decoder.layers.${layer++}`;
  let x = g.unary("decoder.clamp", latents, { name: "soft_clamp" });
  x = g.conv2d(next(), x, width, { activation: "relu" });
  next(); // the activation
  blocks.forEach((count, stage) => {
    const isLast = stage === blocks.length - 1;
    x = tinyBlocks(g, next, x, count);
    if (isLast) x = g.conv2d(next(), x, config.integer("out_channels", 3, MAX_WIDTH));
    else {
      next(); // the upsampler, folded into the convolution after it
      x = g.conv2d(next(), x, width, { upsampleTo: [2 * x.shape[1], 2 * x.shape[2]], bias: false });
    }
  });
  return g.unary("decoder.range", x, { name: "affine", scale: 2, shift: -1 });
}
