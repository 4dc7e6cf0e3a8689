/**
 * The UNet of a single file: its blocks are numbered through (`input_blocks.4.1.…`), diffusers' lie in levels
 * (`down_blocks.1.attentions.0.…`). Which is which shows in the blocks themselves, so that pruned relatives (SSD-1B, Vega,
 * KOALA, BK-SDM) need no table.
 */
import { countOf, type Shapes } from "./shapes.ts";

/** One level of the way down or up. */
export interface Level {
  readonly channels: number;
  /** Of each layer: its transformer blocks; undefined where it has no attention. */
  readonly depths: readonly (number | undefined)[];
}

export interface UNetLayout {
  readonly down: readonly Level[];
  readonly up: readonly Level[];
  readonly middle: "attention" | "resnet" | "none";
  readonly middleDepth: number;
  /** The file's module paths to diffusers', each ending in a dot. */
  readonly modules: ReadonlyMap<string, string>;
}

const RESNET: readonly (readonly [string, string])[] = [
  ["in_layers.0.", "norm1."],
  ["in_layers.2.", "conv1."],
  ["emb_layers.1.", "time_emb_proj."],
  ["out_layers.0.", "norm2."],
  ["out_layers.3.", "conv2."],
  ["skip_connection.", "conv_shortcut."],
];

const FIXED: readonly (readonly [string, string])[] = [
  ["time_embed.0.", "time_embedding.linear_1."],
  ["time_embed.2.", "time_embedding.linear_2."],
  ["time_embed.cond_proj.", "time_embedding.cond_proj."],
  ["label_emb.0.0.", "add_embedding.linear_1."],
  ["label_emb.0.2.", "add_embedding.linear_2."],
  ["input_blocks.0.0.", "conv_in."],
  ["out.0.", "conv_norm_out."],
  ["out.2.", "conv_out."],
];

/** `shapes` are those of the UNet's tensors, without the prefix that they have in the file. */
export function readUNetLayout(shapes: Shapes): UNetLayout {
  const modules = new Map<string, string>(FIXED);
  const resnet = (from: string, to: string): void => {
    for (const [ours, theirs] of RESNET) modules.set(`${from}.${ours}`, `${to}.${theirs}`);
  };
  /** The layers of one way, level by level; a level ends with its sampler. */
  const walk = (blocks: string, levels: string, first: number, sampler: string): Level[] => {
    const way: { channels: number; depths: (number | undefined)[] }[] = [];
    let isOpen = false;
    const end = countOf(shapes, `${blocks}.`);
    for (let n = first; n < end; n++) {
      const block = `${blocks}.${n}`;
      const channels = shapes.get(`${block}.0.in_layers.2.weight`)?.[0];
      const samples = [`${block}.0.op`, `${block}.1.conv`, `${block}.2.conv`].find((at) => shapes.has(`${at}.weight`));
      if (channels !== undefined && !isOpen) {
        way.push({ channels, depths: [] });
        isOpen = true;
      }
      const level = `${levels}.${way.length - 1}`;
      if (channels !== undefined) {
        const { depths } = way.at(-1)!;
        resnet(`${block}.0`, `${level}.resnets.${depths.length}`);
        const depth = depthOf(shapes, `${block}.1`);
        if (depth !== undefined) modules.set(`${block}.1.`, `${level}.attentions.${depths.length}.`);
        depths.push(depth);
      }
      if (samples === undefined) continue;
      modules.set(`${samples}.`, `${level}.${sampler}.0.conv.`);
      isOpen = false;
    }
    return way;
  };
  const down = walk("input_blocks", "down_blocks", 1, "downsamplers");
  const up = walk("output_blocks", "up_blocks", 0, "upsamplers");
  const middleDepth = depthOf(shapes, "middle_block.1");
  resnet("middle_block.0", "mid_block.resnets.0");
  if (middleDepth !== undefined) modules.set("middle_block.1.", "mid_block.attentions.0.");
  resnet("middle_block.2", "mid_block.resnets.1");
  const hasMiddle = shapes.has("middle_block.0.in_layers.2.weight");
  const middle = middleDepth !== undefined ? "attention" : hasMiddle ? "resnet" : "none";
  return { down, up, middle, middleDepth: middleDepth ?? 1, modules };
}

/** How many transformer blocks an attention has; undefined where there is none. */
function depthOf(shapes: Shapes, path: string): number | undefined {
  if (!shapes.has(`${path}.proj_in.weight`)) return undefined;
  let depth = 0;
  while (shapes.has(`${path}.transformer_blocks.${depth}.norm1.weight`)) depth++;
  return depth;
}
