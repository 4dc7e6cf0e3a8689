/**
 * The names that the original code of Stable Diffusion (ldm, and sgm for SDXL) gives a UNet's modules, in which kohya's
 * trainers write SDXL. Everything follows from the diffusers paths: how many blocks there are, and of what.
 */

const RESNET: Readonly<Record<string, string>> = {
  norm1: "in_layers.0",
  conv1: "in_layers.2",
  time_emb_proj: "emb_layers.1",
  norm2: "out_layers.0",
  conv2: "out_layers.3",
  conv_shortcut: "skip_connection",
};

const ENDS: Readonly<Record<string, string>> = {
  conv_in: "input_blocks.0.0",
  "time_embedding.linear_1": "time_embed.0",
  "time_embedding.linear_2": "time_embed.2",
  "add_embedding.linear_1": "label_emb.0.0",
  "add_embedding.linear_2": "label_emb.0.2",
  conv_norm_out: "out.0",
  conv_out: "out.2",
};

/** Of each diffusers path that ldm has a name for, that name. */
export function sgmNames(paths: readonly string[]): ReadonlyMap<string, string> {
  const down = resnetsOf(paths, "down_blocks");
  const up = resnetsOf(paths, "up_blocks");
  const attends = new Set(paths.flatMap((path) => /^up_blocks\.\d+(?=\.attentions)/.exec(path) ?? []));
  const nameOf = (path: string): string | undefined => {
    if (Object.hasOwn(ENDS, path)) return ENDS[path];
    const [, side, block = "", list, index, rest = ""] =
      /^(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$/.exec(
        path,
      ) ?? [];
    if (side === undefined) return undefined;
    const inner = list === "resnets" ? RESNET[rest] : list === "downsamplers" ? "op" : rest;
    if (inner === undefined) return undefined;
    if (side === "mid_block") return `middle_block.${list === "attentions" ? 1 : 2 * Number(index)}.${inner}`;
    // A level's resnets, each with its attention, then (but for the last level) what changes the size. On the way up, that
    // stands in the last resnet's block instead.
    if (side === "down_blocks") {
      const before = 1 + sum(down.slice(0, Number(block))) + Number(block);
      const at = list === "downsamplers" ? before + down[Number(block)] : before + Number(index);
      return `input_blocks.${at}.${list === "attentions" ? 1 : 0}.${inner}`;
    }
    const before = sum(up.slice(0, Number(block)));
    if (list === "upsamplers") {
      const place = attends.has(`up_blocks.${block}`) ? 2 : 1;
      return `output_blocks.${before + up[Number(block)] - 1}.${place}.${inner}`;
    }
    return `output_blocks.${before + Number(index)}.${list === "attentions" ? 1 : 0}.${inner}`;
  };
  return new Map(
    paths.flatMap((path) => {
      const name = nameOf(path);
      return name === undefined ? [] : [[path, name] as const];
    }),
  );
}

/** How many resnets each block has. */
function resnetsOf(paths: readonly string[], side: string): number[] {
  const counts: number[] = [];
  for (const path of paths) {
    const [, block, resnet] = new RegExp(`^${side}\\.(\\d+)\\.resnets\\.(\\d+)\\.`).exec(path) ?? [];
    if (block !== undefined) counts[Number(block)] = Math.max(counts[Number(block)] ?? 0, Number(resnet) + 1);
  }
  return counts;
}

const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);
