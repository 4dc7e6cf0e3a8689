/** The encoders that turn a picture into latents: AutoencoderKL's and AutoencoderTiny's (TAESD), as graphs. */
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import {
  klBackbone,
  klMiddle,
  MAX_BLOCKS,
  MAX_LAYERS,
  MAX_WIDTH,
  tinyBlocks,
  tinyWidth,
  type VaeConfig,
} from "./vae.ts";
import { resnet } from "./blocks.ts";

/**
 * `pixels` [batch, H, W, 3] in -1..1, H and W `scale` times `height` and `width` -> what AutoencoderKL says of the latents,
 * `moments` [batch, height, width, 2 latent_channels] (means, then logarithms of variances), or AutoencoderTiny's `latents`
 * [batch, height, width, latent_channels]. Both before `scaling_factor`. Throws `invalid-model`.
 */
export function buildVaeEncoder(
  vae: VaeConfig,
  { batch, height, width }: { batch: number; height: number; width: number },
  dtype: "f32" | "f16",
): Graph {
  const g = new GraphBuilder(vae.config.where, dtype);
  if (vae.config.integer("in_channels", 3, MAX_WIDTH) !== 3)
    vae.config.fail("in_channels", "3, for red, green and blue");
  const pixels = g.input("pixels", [batch, height * vae.scale, width * vae.scale, 3]);
  if (vae.kind === "AutoencoderKL") g.output("moments", encodeKl(g, vae, pixels));
  else g.output("latents", encodeTiny(g, vae, pixels));
  return g.finish();
}

function encodeKl(g: GraphBuilder, { config, latentChannels }: VaeConfig, pixels: Tensor): Tensor {
  const { widths, groups, layers, eps } = klBackbone(g, config);
  const types = config.strings("down_block_types", MAX_BLOCKS);
  if (types.length !== widths.length || types.some((type) => type !== "DownEncoderBlock2D"))
    config.fail("down_block_types", `${widths.length} times "DownEncoderBlock2D", as block_out_channels`);
  let x = g.conv2d("encoder.conv_in", pixels, widths[0]);
  widths.forEach((channels, block) => {
    const path = `encoder.down_blocks.${block}`;
    for (let layer = 0; layer < layers; layer++)
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels, groups, eps });
    if (block < widths.length - 1)
      x = g.conv2d(`${path}.downsamplers.0.conv`, x, channels, { stride: 2, padding: "end" });
  });
  x = klMiddle(g, "encoder.mid_block", x, config);
  const normed = g.groupNorm("encoder.conv_norm_out", x, { groups, eps, activation: "silu" });
  const moments = g.conv2d("encoder.conv_out", normed, 2 * latentChannels);
  return config.boolean("use_quant_conv", true)
    ? g.conv2d("quant_conv", moments, 2 * latentChannels, { kernel: 1 })
    : moments;
}

/** Of one flat list, too, but without numbers for what has no weights. */
function encodeTiny(g: GraphBuilder, { config, latentChannels, scale }: VaeConfig, pixels: Tensor): Tensor {
  const blocks = config.integers("num_encoder_blocks", [1, 3, 3, 3], MAX_BLOCKS, MAX_LAYERS, 0);
  if (2 ** (blocks.length - 1) !== scale) config.fail("num_encoder_blocks", "as many stages as num_decoder_blocks");
  const width = tinyWidth(config, "encoder", blocks.length);
  let layer = 0;
  const next = (): string => `encoder.layers.${layer++}`;
  let x = g.unary("encoder.range", pixels, { name: "affine", scale: 0.5, shift: 0.5 });
  blocks.forEach((count, stage) => {
    x = g.conv2d(next(), x, width, stage === 0 ? {} : { stride: 2, bias: false });
    x = tinyBlocks(g, next, x, count);
  });
  return g.conv2d(next(), x, latentChannels);
}
