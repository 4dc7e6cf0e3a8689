/**
 * UNet2DConditionModel as a graph, driven by config.json alone (unetConfig.ts): SDXL and SDXL-Turbo, SD 2.1 and SD-Turbo,
 * SD 1.5, LCM, SSD-1B and their like. Source: diffusers' unet_2d_condition.py and unet_2d_blocks.py, whose module paths
 * name the weights.
 */
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import { resnet, transformer } from "./blocks.ts";
import type { UNetConfig } from "./unetConfig.ts";

export { readUNetConfig, type UNetConfig } from "./unetConfig.ts";

export interface UNetShape {
  readonly batch: number;
  /** Of the latents: an eighth of the picture's. */
  readonly height: number;
  readonly width: number;
  readonly tokens: number;
}

/**
 * Inputs, channels-last: `sample` [batch, height, width, in_channels]; `time_proj` [batch, 1, 1, block_out_channels[0]],
 * the sinusoidal projection of the timestep (diffusion/timestep.ts); `encoder_hidden_states` [batch, 1, tokens,
 * cross_attention_dim]; SDXL: `add_embeds` [batch, 1, 1, pooled + 6 x addition_time_embed_dim]; LCM: `timestep_cond`
 * [batch, 1, 1, time_cond_proj_dim]. Output `out_sample` [batch, height, width, out_channels].
 */
export function buildUNet(unet: UNetConfig, shape: UNetShape, where: string, dtype: "f32" | "f16"): Graph {
  const { batch, height, width, tokens } = shape;
  const { blockOutChannels: channels, groups, eps } = unet;
  const count = channels.length;
  const g = new GraphBuilder(where, dtype, "f32");
  const sample = g.input("sample", [batch, height, width, unet.inChannels]);
  const encoderHiddenStates = g.input("encoder_hidden_states", [batch, 1, tokens, unet.crossAttentionDim]);
  const timeEmbedding = g.unary("time_embedding.act", embedTime(g, unet, batch), { name: "silu" });

  const attend = (path: string, x: Tensor, depth: number, block: number, onlyCrossAttention: boolean): Tensor =>
    transformer(g, path, x, { depth, heads: unet.heads[block], groups, encoderHiddenStates, onlyCrossAttention });

  let x = g.conv2d("conv_in", sample, channels[0], { stream: true });
  const skips = [x];
  for (let block = 0; block < count; block++) {
    const path = `down_blocks.${block}`;
    for (let layer = 0; layer < unet.layersPerBlock[block]; layer++) {
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels: channels[block], groups, eps, timeEmbedding });
      if (unet.downBlocks[block])
        x = attend(
          `${path}.attentions.${layer}`,
          x,
          unet.downDepths[block][layer],
          block,
          unet.onlyCrossAttention[block],
        );
      skips.push(x);
    }
    if (block < count - 1) {
      x = g.conv2d(`${path}.downsamplers.0.conv`, x, channels[block], {
        stride: 2,
        padding: unet.downsamplePadding,
        stream: true,
      });
      skips.push(x);
    }
  }

  if (unet.middle !== "none") {
    const middleResnet = (path: string): Tensor => {
      const sum = resnet(g, path, x, { channels: channels[count - 1], groups, eps, timeEmbedding });
      if (unet.middleScale === 1) return sum;
      return g.unary(`${path}.output_scale`, sum, { name: "affine", scale: 1 / unet.middleScale, shift: 0 });
    };
    x = middleResnet("mid_block.resnets.0");
    if (unet.middle === "attention") {
      x = attend("mid_block.attentions.0", x, unet.middleDepth, count - 1, false);
      x = middleResnet("mid_block.resnets.1");
    }
  }

  for (let up = 0; up < count; up++) {
    const block = count - 1 - up;
    const path = `up_blocks.${up}`;
    for (let layer = 0; layer <= unet.layersPerBlock[block]; layer++) {
      const skip = skips.pop()!;
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels: channels[block], groups, eps, skip, timeEmbedding });
      if (unet.upBlocks[up])
        x = attend(`${path}.attentions.${layer}`, x, unet.upDepths[up][layer], block, unet.onlyCrossAttention[block]);
    }
    if (up < count - 1) {
      const next = skips.at(-1)!.shape; // odd sizes: enlarge to the next skip connection's size
      x = g.conv2d(`${path}.upsamplers.0.conv`, x, channels[block], { upsampleTo: [next[1], next[2]], stream: true });
    }
  }

  const normed = g.groupNorm("conv_norm_out", x, { groups, eps, activation: "silu" });
  g.output("out_sample", g.conv2d("conv_out", normed, unet.outChannels, { stream: true }));
  return g.finish();
}

/** Timestep, and what else conditions the whole picture -> [batch, 1, 1, 4 x block_out_channels[0]]. */
function embedTime(g: GraphBuilder, unet: UNetConfig, batch: number): Tensor {
  let projection = g.input("time_proj", [batch, 1, 1, unet.timeProjDim]);
  if (unet.timeCondProjDim !== undefined) {
    const condition = g.input("timestep_cond", [batch, 1, 1, unet.timeCondProjDim]);
    projection = g.linear("time_embedding.cond_proj", condition, unet.timeProjDim, {
      bias: false,
      residual: projection,
    });
  }
  const mlp = (path: string, x: Tensor, residual?: Tensor): Tensor =>
    g.linear(
      `${path}.linear_2`,
      g.linear(`${path}.linear_1`, x, unet.timeEmbedDim, { activation: "silu" }),
      unet.timeEmbedDim,
      {
        stream: true,
        ...(residual && { residual }),
      },
    );
  const time = mlp("time_embedding", projection);
  if (!unet.addition) return time;
  return mlp("add_embedding", g.input("add_embeds", [batch, 1, 1, unet.addition.inputDim]), time);
}
