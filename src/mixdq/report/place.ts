/** Where in the UNet a layer is, read off its module path: for pictures of a model whose graph is not at hand. */

export interface Place {
  /** conv_in, time_embedding, down_blocks.1, mid_block, conv_out, ... */
  readonly block: string;
  /** Of a block: resnets.0, attentions.1, attentions.1.transformer_blocks.3, upsamplers.0; "" elsewhere. */
  readonly unit: string;
  /** What the layer is there, the same name everywhere: attn1.to_q, ff.net.2, conv1, proj_in. */
  readonly type: string;
}

export function placeOf(path: string): Place {
  const match = /^((?:down|up)_blocks\.\d+|mid_block)\.(.+)$/.exec(path);
  if (!match) {
    const [block, ...rest] = path.split(".");
    return { block: block!, unit: "", type: rest.length > 0 ? `${block}.${rest.join(".")}` : block! };
  }
  const unit = /^[a-z]+\.\d+(?:\.transformer_blocks\.\d+)?/.exec(match[2])?.[0] ?? "";
  const rest = match[2].slice(unit.length).replace(/^\./, "");
  // A sampler's only layer is just "conv".
  const type = rest === "conv" ? `${unit.split(".")[0]}.conv` : rest || unit;
  return { block: match[1], unit, type: type.replace(/\.0$/, "") };
}

/** Blocks in the order in which a UNet runs them. */
const BLOCKS = ["conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block", "up_blocks"];
/** Within a resnet or a transformer block; what is not named comes last. */
const TYPES = [
  ...["proj_in", "conv1", "time_emb_proj", "conv2", "conv_shortcut"],
  ...["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out"],
  ...["attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out"],
  ...["ff.net.0.proj", "ff.net.2", "proj_out"],
];

/** Paths in the order in which the network computes them. */
export function inNetworkOrder(paths: Iterable<string>): string[] {
  return Array.from(paths, (path) => ({ path, key: orderOf(path) }))
    .sort((a, b) => compare(a.key, b.key) || (a.path < b.path ? -1 : 1))
    .map(({ path }) => path);
}

function orderOf(path: string): number[] {
  const { block, unit, type } = placeOf(path);
  const [name, number = 0] = block.split(".");
  const at = (list: readonly string[], item: string): number =>
    (list.indexOf(item) + list.length + 1) % (list.length + 1);
  const [, index = 0, , inner] = unit.split(".");
  const isSampler = /^(?:down|up)samplers/.test(unit);
  // resnets.0, attentions.0, resnets.1, ...; in a transformer proj_in, its blocks, proj_out.
  const part = isSampler ? Infinity : 2 * Number(index) + (unit.startsWith("attentions") ? 1 : 0);
  const depth = inner !== undefined ? Number(inner) : type === "proj_out" ? Infinity : -1;
  return [at(BLOCKS, name!), Number(number), part, depth, at(TYPES, type)];
}

function compare(a: readonly number[], b: readonly number[]): number {
  const i = a.findIndex((value, k) => value !== b[k]);
  return i < 0 ? 0 : a[i] < b[i] ? -1 : 1;
}

/** Items by key, keys in the order of their first items. (Map.groupBy, which Node 20 does not have.) */
export function groupBy<T>(items: Iterable<T>, key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const name = key(item);
    const group = groups.get(name);
    if (group) group.push(item);
    else groups.set(name, [item]);
  }
  return groups;
}
