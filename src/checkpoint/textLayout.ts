/** CLIP as transformers names it, from the two ways in which single files hold it: transformers' own, and OpenCLIP's. */

/** What a tensor of the file becomes. */
export interface Target {
  /** diffusers' module path and `weight` or `bias`. */
  readonly name: string;
  /** Which of how many equal parts of the rows it is. */
  readonly part?: readonly [index: number, parts: number];
  /** The file has [in, out], transformers [out, in]. */
  readonly isTransposed?: boolean;
}

/** The first years' files leave `text_model.` out. Throws nothing; undefined for a name that CLIP does not have. */
export function clipTarget(name: string): readonly Target[] | undefined {
  const path = name.startsWith("text_model.") ? name : `text_model.${name}`;
  return CLIP.test(path) ? [{ name: path }] : undefined;
}

const CLIP =
  /^text_model\.(embeddings\.(token|position)_embedding\.weight|final_layer_norm\.(weight|bias)|encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|layer_norm[12]|mlp\.fc[12])\.(weight|bias))$/;

const OPEN: Readonly<Record<string, string>> = {
  ln_1: "layer_norm1",
  ln_2: "layer_norm2",
  "mlp.c_fc": "mlp.fc1",
  "mlp.c_proj": "mlp.fc2",
  "attn.out_proj": "self_attn.out_proj",
};

const OPEN_FIXED: Readonly<Record<string, Target>> = {
  positional_embedding: { name: "text_model.embeddings.position_embedding.weight" },
  "token_embedding.weight": { name: "text_model.embeddings.token_embedding.weight" },
  "ln_final.weight": { name: "text_model.final_layer_norm.weight" },
  "ln_final.bias": { name: "text_model.final_layer_norm.bias" },
  text_projection: { name: "text_projection.weight", isTransposed: true },
  // transformers' layout, as some mergers write it
  "text_projection.weight": { name: "text_projection.weight" },
};

/**
 * OpenCLIP's: one matrix for query, key and value, which are its rows' thirds. Layers from `layers` on are not read (the
 * UNets of Stable Diffusion 2 take the state before the last one); [] for those.
 */
export function openClipTarget(name: string, layers: number): readonly Target[] | undefined {
  if (Object.hasOwn(OPEN_FIXED, name)) return [OPEN_FIXED[name]];
  const [, layer, rest = ""] = /^transformer\.resblocks\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (layer === undefined) return undefined;
  const targets = layerTargets(`text_model.encoder.layers.${layer}`, rest);
  return targets && Number(layer) >= layers ? [] : targets;
}

function layerTargets(path: string, rest: string): readonly Target[] | undefined {
  const [, fused] = /^attn\.in_proj_(weight|bias)$/.exec(rest) ?? [];
  if (fused !== undefined)
    return ["q", "k", "v"].map((each, i) => ({ name: `${path}.self_attn.${each}_proj.${fused}`, part: [i, 3] }));
  const [, module = "", kind] = /^(.*)\.(weight|bias)$/.exec(rest) ?? [];
  return Object.hasOwn(OPEN, module) ? [{ name: `${path}.${OPEN[module]}.${kind}` }] : undefined;
}
