/**
 * config.json of a UNet2DConditionModel: what the graph needs of it, with the defaults of diffusers'
 * unet_2d_condition.py. Settings that would change the computation in ways not built here are refused by name.
 */
import type { Config } from "../base/config.ts";
import type { Json } from "../base/json.ts";

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

/*
 * Limits, far above any model of the family, far below what would stall a page: SDXL has 4 blocks of 2 layers, 10
 * transformer blocks at most in one attention and 70 in all, widths to 2816, 20 heads, latents of 128.
 */
const MAX_BLOCKS = 10;
const MAX_LAYERS = 32;
const MAX_DEPTH = 64;
const MAX_TRANSFORMER_BLOCKS = 1024;
const MAX_WIDTH = 2 ** 16;
const MAX_HEADS = 1024;
const MAX_SAMPLE_SIZE = 4096;
/** What norms add to a variance: below, rounding loses it; above, it is more than what it is added to. */
const [LEAST_EPS, MOST_EPS] = [1e-12, 0.1];

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

  const blockOutChannels = config.integers("block_out_channels", [320, 640, 1280, 1280], MAX_BLOCKS);
  const count = blockOutChannels.length;
  const layersPerBlock = perBlock(config, "layers_per_block", 2, count, (json) => json.integer(1, MAX_LAYERS));
  const heads = perBlock(config, "attention_head_dim", 8, count, (json) => json.integer(1, MAX_HEADS));
  const crossDims = perBlock(config, "cross_attention_dim", 1280, count, (json) => json.integer(1, MAX_WIDTH));
  if (new Set(crossDims).size > 1) config.fail("cross_attention_dim", "the same width for every block");
  const depths = readDepths(config, layersPerBlock);
  const sampleSize = perAxis(config.get("sample_size", 64));

  return {
    inChannels: config.integer("in_channels", 4, MAX_WIDTH),
    outChannels: config.integer("out_channels", 4, MAX_WIDTH),
    blockOutChannels,
    downBlocks: blockTypes(config, "down_block_types", count, "DownBlock2D", "CrossAttnDownBlock2D"),
    upBlocks: blockTypes(config, "up_block_types", count, "UpBlock2D", "CrossAttnUpBlock2D"),
    middle: readMiddle(config),
    layersPerBlock,
    ...depths,
    heads,
    crossAttentionDim: crossDims[0],
    onlyCrossAttention: perBlock(config, "only_cross_attention", false, count, (json) => json.boolean()),
    downsamplePadding: config.number("downsample_padding", 1) === 1 ? "same" : "end",
    middleScale: config.number("mid_block_scale_factor", 1, 1e-3, 1e3),
    groups: config.integer("norm_num_groups", 32, MAX_WIDTH),
    eps: config.number("norm_eps", 1e-5, LEAST_EPS, MOST_EPS),
    flipSinToCos: config.boolean("flip_sin_to_cos", true),
    // Frequencies are divided by half the width less the shift; diffusers' models have 0 or 1.
    freqShift: config.number("freq_shift", 0, 0, 1),
    timeProjDim: blockOutChannels[0],
    timeEmbedDim:
      config.optional("time_embedding_dim", (key) => config.integer(key, undefined, MAX_WIDTH)) ??
      4 * blockOutChannels[0],
    timeCondProjDim: config.optional("time_cond_proj_dim", (key) => config.integer(key, undefined, MAX_WIDTH)),
    addition:
      config.values["addition_embed_type"] === "text_time"
        ? {
            timeEmbedDim: config.integer("addition_time_embed_dim", undefined, MAX_WIDTH),
            inputDim: config.integer("projection_class_embeddings_input_dim", undefined, MAX_WIDTH),
          }
        : undefined,
    sampleSize,
  };
}

/** One value for all of `count` blocks, or a list of one each. */
function perBlock<T>(
  config: Config,
  key: string,
  fallback: unknown,
  count: number,
  read: (json: Json) => T,
): readonly T[] {
  const json = config.get(key, fallback);
  if (!Array.isArray(json.value)) return Array<T>(count).fill(read(json));
  if (json.value.length !== count) config.fail(key, `one value, or one per block (block_out_channels has ${count})`);
  return json.items(count, count).map(read);
}

/** Transformer blocks: of each attention on the way down, in the middle, on the way up. */
function readDepths(
  config: Config,
  layersPerBlock: readonly number[],
): Pick<UNetConfig, "downDepths" | "middleDepth" | "upDepths"> {
  const count = layersPerBlock.length;
  const [key, reversedKey] = ["transformer_layers_per_block", "reverse_transformer_layers_per_block"];
  const read = (json: Json): number | readonly number[] =>
    Array.isArray(json.value)
      ? json.items(0, MAX_LAYERS + 1).map((depth) => depth.integer(0, MAX_DEPTH))
      : json.integer(0, MAX_DEPTH);
  const spread = (list: readonly (number | readonly number[])[], layers: readonly number[], from: string) =>
    list.map((depth, block) => {
      const attentions = layers[block];
      if (typeof depth === "number") return Array<number>(attentions).fill(depth);
      if (depth.length < attentions) config.fail(from, `${attentions} depths for block ${block}`);
      return depth.slice(0, attentions);
    });
  const depths = perBlock(config, key, 1, count, read);
  const reversed = config.optional(reversedKey, () => perBlock(config, reversedKey, 1, count, read));
  const last = depths[count - 1];
  const middleDepth = typeof last === "number" ? last : (last[0] ?? 1);
  const downDepths = spread(depths, layersPerBlock, key);
  const upLayers = layersPerBlock.toReversed().map((layers) => layers + 1);
  const upDepths = spread(reversed ?? depths.toReversed(), upLayers, reversed ? reversedKey : key);
  const total = [...downDepths, [middleDepth], ...upDepths].flat().reduce((sum, depth) => sum + depth, 0);
  if (total > MAX_TRANSFORMER_BLOCKS)
    config.fail(key, `at most ${MAX_TRANSFORMER_BLOCKS} transformer blocks in all, not ${total}`);
  return { downDepths, middleDepth, upDepths };
}

function readMiddle(config: Config): UNetConfig["middle"] {
  // null means no middle block, which a missing key does not.
  if (config.values["mid_block_type"] === null) return "none";
  const type = config.oneOf(
    "mid_block_type",
    ["UNetMidBlock2DCrossAttn", "UNetMidBlock2D", null],
    "UNetMidBlock2DCrossAttn",
  );
  return type === "UNetMidBlock2D" ? "resnet" : "attention";
}

/** A size for both axes, or one for each. */
function perAxis(json: Json): readonly [height: number, width: number] {
  const read = (size: Json): number => size.integer(1, MAX_SAMPLE_SIZE);
  if (!Array.isArray(json.value)) return [read(json), read(json)];
  const [height, width] = json.items(2, 2).map(read);
  return [height!, width!];
}

/** true where a block has attention. */
function blockTypes(config: Config, key: string, count: number, plain: string, attended: string): readonly boolean[] {
  const types = config.strings(key, MAX_BLOCKS).map((type) => type.replace(/^UNetRes/, ""));
  if (types.length !== count) config.fail(key, `${count} blocks, as block_out_channels has`);
  if (types.some((type) => type !== plain && type !== attended)) config.fail(key, `only "${plain}" and "${attended}"`);
  return types.map((type) => type === attended);
}
