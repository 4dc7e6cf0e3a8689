/** AutoencoderKL of a single file: names like diffusers' own, but its decoder's levels are counted from the picture. */
import { countOf, type Shapes } from "./shapes.ts";

const ATTENTION: Readonly<Record<string, string>> = {
  norm: "group_norm",
  q: "to_q",
  k: "to_k",
  v: "to_v",
  proj_out: "to_out.0",
};

/** Of a tensor's name, without the prefix that it has in the file: diffusers' name. undefined where it has none. */
export function vaeNames(shapes: Shapes): (name: string) => string | undefined {
  const levels = countOf(shapes, "decoder.up.");
  return (name) => {
    const [, module, kind] = /^(.*)\.(weight|bias)$/.exec(name) ?? [];
    const path = module === undefined ? undefined : renamed(module, levels);
    return path === undefined ? undefined : `${path}.${kind}`;
  };
}

function renamed(module: string, levels: number): string | undefined {
  if (/^(quant_conv|post_quant_conv|(encoder|decoder)\.(conv_in|conv_out))$/.test(module)) return module;
  const [, half, rest = ""] = /^(encoder|decoder)\.(.*)$/.exec(module) ?? [];
  if (half === undefined) return undefined;
  if (rest === "norm_out") return `${half}.conv_norm_out`;
  const [, attention] = /^mid\.attn_1\.(\w+)$/.exec(rest) ?? [];
  if (attention !== undefined)
    return Object.hasOwn(ATTENTION, attention) ? `${half}.mid_block.attentions.0.${ATTENTION[attention]}` : undefined;
  const [, middle, inMiddle] = /^mid\.block_([12])\.(\w+)$/.exec(rest) ?? [];
  if (inMiddle !== undefined) return resnet(`${half}.mid_block.resnets.${Number(middle) - 1}`, inMiddle);
  const way = half === "encoder" ? "down" : "up";
  const levelOf = (n: string): string => `${half}.${way}_blocks.${way === "down" ? n : levels - 1 - Number(n)}`;
  const [, level, layer, inLayer] = new RegExp(`^${way}\\.(\\d+)\\.block\\.(\\d+)\\.(\\w+)$`).exec(rest) ?? [];
  if (level !== undefined) return resnet(`${levelOf(level)}.resnets.${layer}`, inLayer!);
  const [, sampled] = new RegExp(`^${way}\\.(\\d+)\\.${way}sample\\.conv$`).exec(rest) ?? [];
  return sampled === undefined ? undefined : `${levelOf(sampled)}.${way}samplers.0.conv`;
}

function resnet(path: string, layer: string): string | undefined {
  if (layer === "nin_shortcut") return `${path}.conv_shortcut`;
  return /^(norm|conv)[12]$/.test(layer) ? `${path}.${layer}` : undefined;
}
