/**
 * UNet2DConditionModel as a graph, driven by config.json alone: SDXL and SDXL-Turbo, SD 2.1 and SD-Turbo, SD 1.5, LCM,
 * SSD-1B and their like. Source: diffusers' unet_2d_condition.py and unet_2d_blocks.py, whose module paths name the
 * weights. Settings that would change the computation in ways not built here are refused by name.
 */
import type { Config } from "../base/config.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import { resnet, transformer } from "./blocks.ts";

/** Everything the graph needs to know of config.json, with diffusers' defaults. */
export interface UNetConfig {
  readonly inChannels: number;
  readonly outChannels: number;
  readonly blockOutChannels: readonly number[];
  readonly downBlocks: readonly boolean[];
  readonly upBlocks: readonly boolean[];
  /** The middle has attention, a single resnet, or nothing. */
  readonly middle: "attention" | "resnet" | "none";
  readonly layersPerBlock: readonly number[];
  /** [block][attention] -> transformer blocks, down, middle ([0]) and up, each in its own order. */
  readonly downDepths: readonly (readonly number[])[];
  readonly middleDepth: number;
  readonly upDepths: readonly (readonly number[])[];
  /** Heads per down block (config's `attention_head_dim`, whose name is diffusers' old mistake). */
  readonly heads: readonly number[];
  readonly crossAttentionDim: number;
  readonly onlyCrossAttention: readonly boolean[];
  readonly downsamplePadding: "same" | "end";
  /** The middle's resnets are divided by this. */
  readonly middleScale: number;
  readonly groups: number;
  readonly eps: number;
  readonly flipSinToCos: boolean;
  readonly freqShift: number;
  /** Width of the sinusoidal time projection. */
  readonly timeProjDim: number;
  readonly timeEmbedDim: number;
  readonly timeCondProjDim: number | undefined;
  /** SDXL's text_time conditioning. */
  readonly addition: { readonly timeEmbedDim: number; readonly inputDim: number } | undefined;
  /** Latent height and width the model was trained at. */
  readonly sampleSize: readonly [number, number];
}

export function readUNetConfig(config: Config): UNetConfig {
  config.only("_class_name", "UNet2DConditionModel");
  config.only("act_fn", "silu", "swish");
  config.only("attention_type", "default");
  config.only("center_input_sample", false);
  config.only("class_embed_type");
  config.only("num_class_embeds");
  config.only("conv_in_kernel", 3);
  config.only("conv_out_kernel", 3);
  config.only("downsample_padding", 0, 1);
  config.only("dual_cross_attention", false);
  config.only("encoder_hid_dim");
  config.only("encoder_hid_dim_type");
  config.only("num_attention_heads");
  config.only("resnet_time_scale_shift", "default");
  config.only("time_embedding_type", "positional");
  config.only("time_embedding_act_fn");
  config.only("timestep_post_act");
  config.only("addition_embed_type", "text_time");

  const blockOutChannels = config.integers("block_out_channels", [320, 640, 1280, 1280]);
  const count = blockOutChannels.length;
  const perBlock = <T>(key: string, fallback: T, check: (value: unknown) => boolean, what: string): readonly T[] => {
    const value = config.values[key] ?? fallback;
    const list = Array.isArray(value) ? value : Array(count).fill(value);
    if (list.length !== count || !list.every(check))
      config.fail(key, `${what}, or one per block (block_out_channels has ${count})`);
    return list as T[];
  };
  const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
  const layersPerBlock = perBlock("layers_per_block", 2, (n) => isCount(n) && n !== 0, "a positive integer");
  const heads = perBlock("attention_head_dim", 8, (n) => isCount(n) && n !== 0, "the number of heads");
  const crossDims = perBlock("cross_attention_dim", 1280, isCount, "a positive integer");
  if (new Set(crossDims).size > 1) config.fail("cross_attention_dim", "the same width for every block");
  const depths = perBlock<number | readonly number[]>(
    "transformer_layers_per_block",
    1,
    (d) => isCount(d) || (Array.isArray(d) && d.every(isCount)),
    "a count, or a list of counts per attention",
  );
  const reversed = config.optional("reverse_transformer_layers_per_block", (key) =>
    perBlock<number | readonly number[]>(
      key,
      1,
      (d) => isCount(d) || (Array.isArray(d) && d.every(isCount)),
      "a count",
    ),
  );
  const spreadDepths = (
    list: readonly (number | readonly number[])[],
    layers: (block: number) => number,
    key: string,
  ) =>
    list.map((depth, block) => {
      if (typeof depth === "number") return Array<number>(layers(block)).fill(depth);
      if (depth.length < layers(block)) config.fail(key, `${layers(block)} depths for block ${block}`);
      return depth;
    });
  const lastDepth = depths[count - 1]!;
  const middleType =
    config.values["mid_block_type"] === undefined ? "UNetMidBlock2DCrossAttn" : config.values["mid_block_type"];
  const middle =
    middleType === null
      ? "none"
      : middleType === "UNetMidBlock2DCrossAttn"
        ? "attention"
        : middleType === "UNetMidBlock2D"
          ? "resnet"
          : config.fail("mid_block_type", '"UNetMidBlock2DCrossAttn", "UNetMidBlock2D" or null');
  const sampleSize = config.values["sample_size"] ?? 64;
  const [height, width] = Array.isArray(sampleSize) ? (sampleSize as unknown[]) : [sampleSize, sampleSize];
  for (const size of [height, width])
    if (!isCount(size) || size === 0) config.fail("sample_size", "the latents' size: a positive integer, or two");

  return {
    inChannels: config.integer("in_channels", 4),
    outChannels: config.integer("out_channels", 4),
    blockOutChannels,
    downBlocks: blockTypes(config, "down_block_types", count, "DownBlock2D", "CrossAttnDownBlock2D"),
    upBlocks: blockTypes(config, "up_block_types", count, "UpBlock2D", "CrossAttnUpBlock2D"),
    middle,
    layersPerBlock,
    downDepths: spreadDepths(depths, (block) => layersPerBlock[block]!, "transformer_layers_per_block"),
    middleDepth: typeof lastDepth === "number" ? lastDepth : (lastDepth[0] ?? 1),
    upDepths: spreadDepths(
      reversed ?? depths.toReversed(),
      (block) => layersPerBlock[count - 1 - block]! + 1,
      reversed ? "reverse_transformer_layers_per_block" : "transformer_layers_per_block",
    ),
    heads,
    crossAttentionDim: crossDims[0]!,
    onlyCrossAttention: perBlock("only_cross_attention", false, (b) => typeof b === "boolean", "true or false"),
    downsamplePadding: config.number("downsample_padding", 1) === 1 ? "same" : "end",
    middleScale: config.number("mid_block_scale_factor", 1),
    groups: config.integer("norm_num_groups", 32),
    eps: config.number("norm_eps", 1e-5),
    flipSinToCos: config.boolean("flip_sin_to_cos", true),
    freqShift: config.number("freq_shift", 0),
    timeProjDim: blockOutChannels[0]!,
    timeEmbedDim: config.optional("time_embedding_dim", (key) => config.integer(key)) ?? 4 * blockOutChannels[0]!,
    timeCondProjDim: config.optional("time_cond_proj_dim", (key) => config.integer(key)),
    addition:
      config.values["addition_embed_type"] === "text_time"
        ? {
            timeEmbedDim: config.integer("addition_time_embed_dim"),
            inputDim: config.integer("projection_class_embeddings_input_dim"),
          }
        : undefined,
    sampleSize: [height as number, width as number],
  };
}

/** true where a block has attention. */
function blockTypes(config: Config, key: string, count: number, plain: string, attended: string): readonly boolean[] {
  const types = config.strings(key).map((type) => type.replace(/^UNetRes/, ""));
  if (types.length !== count) config.fail(key, `${count} blocks, as block_out_channels has`);
  if (types.some((type) => type !== plain && type !== attended)) config.fail(key, `only "${plain}" and "${attended}"`);
  return types.map((type) => type === attended);
}

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
    transformer(g, path, x, { depth, heads: unet.heads[block]!, groups, encoderHiddenStates, onlyCrossAttention });

  let x = g.conv2d("conv_in", sample, channels[0]!, { stream: true });
  const skips = [x];
  for (let block = 0; block < count; block++) {
    const path = `down_blocks.${block}`;
    for (let layer = 0; layer < unet.layersPerBlock[block]!; layer++) {
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels: channels[block]!, groups, eps, timeEmbedding });
      if (unet.downBlocks[block])
        x = attend(
          `${path}.attentions.${layer}`,
          x,
          unet.downDepths[block]![layer]!,
          block,
          unet.onlyCrossAttention[block]!,
        );
      skips.push(x);
    }
    if (block < count - 1) {
      x = g.conv2d(`${path}.downsamplers.0.conv`, x, channels[block]!, {
        stride: 2,
        padding: unet.downsamplePadding,
        stream: true,
      });
      skips.push(x);
    }
  }

  if (unet.middle !== "none") {
    const middleResnet = (path: string): Tensor => {
      const sum = resnet(g, path, x, { channels: channels[count - 1]!, groups, eps, timeEmbedding });
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
    for (let layer = 0; layer <= unet.layersPerBlock[block]!; layer++) {
      const skip = skips.pop()!;
      x = resnet(g, `${path}.resnets.${layer}`, x, { channels: channels[block]!, groups, eps, skip, timeEmbedding });
      if (unet.upBlocks[up])
        x = attend(
          `${path}.attentions.${layer}`,
          x,
          unet.upDepths[up]![layer]!,
          block,
          unet.onlyCrossAttention[block]!,
        );
    }
    if (up < count - 1) {
      const next = skips.at(-1)!.shape; // odd sizes: enlarge to the next skip connection's size
      x = g.conv2d(`${path}.upsamplers.0.conv`, x, channels[block]!, { upsampleTo: [next[1], next[2]], stream: true });
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
