/** What a single file holds: each of its tensors given to a component under diffusers' name, or named as left over. */
import { MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import type { TensorEntry } from "../weights/header.ts";
import { below, byPrefix, countOf, type Shapes } from "./shapes.ts";
import { clipTarget, openClipTarget, type Target } from "./textLayout.ts";
import { readUNetLayout, type UNetLayout } from "./unetLayout.ts";
import { vaeNames } from "./vaeLayout.ts";

export type Family = "sd1" | "sd2" | "sdxl";
export type Component = "unet" | "vae" | "text_encoder" | "text_encoder_2";

/** A tensor of a component, as diffusers' folder would hold it. */
export interface Mapped extends Target {
  readonly entry: TensorEntry;
  /** The file's tensor of scales, for weights in 8-bit floats that have them. */
  readonly scale?: TensorEntry | undefined;
}

export interface Contents {
  readonly family: Family;
  readonly layout: UNetLayout;
  /** Only those that the file holds. */
  readonly components: ReadonlyMap<Component, readonly Mapped[]>;
  /** The UNet's tensors without their prefix. */
  readonly unet: Shapes;
  /** Tensors that say something by being there (`v_pred`, `ztsnr`). */
  readonly flags: ReadonlySet<string>;
  /** Tensors that mean nothing to this engine, by name. */
  readonly unknown: readonly string[];
}

export const UNET_PREFIX = "model.diffusion_model.";
export const VAE_PREFIX = "first_stage_model.";

/** Where text encoders lie, and how they are written. */
const TEXT: readonly { prefix: string; component: Component; isOpen: boolean }[] = [
  { prefix: "cond_stage_model.transformer.", component: "text_encoder", isOpen: false },
  { prefix: "cond_stage_model.model.", component: "text_encoder", isOpen: true },
  { prefix: "conditioner.embedders.0.transformer.", component: "text_encoder", isOpen: false },
  { prefix: "conditioner.embedders.1.model.", component: "text_encoder_2", isOpen: true },
];

const FLAGS = ["v_pred", "ztsnr"];

/** What training left behind, averages (EMA), tables that are computed anew, and parts that no picture needs. */
const IGNORED = new RegExp(
  [
    /^model_ema\./,
    /^(betas|alphas_cumprod(_prev)?|sqrt_\w+|log_one_minus_\w+|posterior_\w+|lvlb_weights|logvar|global_step|scale_factor)$/,
    /^(denoiser\.(sigmas|log_sigmas)|conditioner\.embedders\.\d+\.\w*freqs)$/,
    /^first_stage_model\.(loss|model_ema)\./,
    /^(cond_stage_model|conditioner\.embedders\.\d+)\.(.*\.)?(position_ids|attn_mask|logit_scale)$/,
    /^cond_stage_model\.(transformer\.|model\.)?text_projection(\.weight)?$/,
    /^conditioner\.embedders\.0\.transformer\.text_projection\.weight$/,
    /^(cond_stage_model|conditioner\.embedders\.\d+)\.(.*\.)?visual\./,
    /^embedding_manager\./,
    /(^|\.)(scaled_fp8|scale_input|input_scale|comfy_quant)$/,
  ]
    .map(({ source }) => source)
    .join("|"),
);

/** The tensor that a scale belongs to is named like it, but for the end. */
const SCALE = /\.(scale_weight|weight_scale)$/;

/** Of a file that is known to hold a UNet below `prefix`. Throws `invalid-model` for parts of one that are not known. */
export function readContents(entries: readonly TensorEntry[], prefix: string, where: string): Contents {
  const shapes: Shapes = new Map(entries.map(({ name, shape }) => [name, shape]));
  const unet = below(shapes, prefix);
  const layout = readUNetLayout(unet);
  const family = familyOf(unet);
  const targetsOf = targetFinder(shapes, prefix, layout, family);
  const scales = new Map(
    entries.filter(({ name }) => SCALE.test(name)).map((entry) => [entry.name.replace(SCALE, ".weight"), entry]),
  );
  const components = new Map<Component, Mapped[]>();
  const unknown: string[] = [];
  for (const entry of entries) {
    const { name } = entry;
    if (IGNORED.test(name) || FLAGS.includes(name) || SCALE.test(name)) continue;
    const found = targetsOf(name);
    if (found === undefined) unknown.push(name);
    else if (found === "lost") throw unknownPart(where, name, family);
    else {
      const scale = scales.get(name);
      const mapped = components.get(found.component) ?? [];
      mapped.push(...found.targets.map((target) => ({ ...target, entry, scale })));
      if (mapped.length > 0) components.set(found.component, mapped);
    }
  }
  const flags = new Set(FLAGS.filter((name) => shapes.has(name)));
  return { family, layout, components, unet, flags, unknown };
}

type Found = { readonly component: Component; readonly targets: readonly Target[] };

/** `lost` for a tensor of a component that diffusers' has no name for; undefined for one of no component. */
function targetFinder(
  shapes: Shapes,
  prefix: string,
  { modules }: UNetLayout,
  family: Family,
): (name: string) => Found | "lost" | undefined {
  const vaeName = vaeNames(below(shapes, VAE_PREFIX));
  const layersOf = new Map(
    TEXT.filter(({ isOpen }) => isOpen).map(({ prefix }) => {
      const layers = countOf(shapes, `${prefix}transformer.resblocks.`);
      return [prefix, family === "sd2" ? layers - 1 : layers];
    }),
  );
  return (name) => {
    // A UNet alone has no prefix, and is asked for last.
    if (name.startsWith(VAE_PREFIX)) return single("vae", vaeName(name.slice(VAE_PREFIX.length)));
    for (const { prefix, component, isOpen } of TEXT) {
      if (!name.startsWith(prefix)) continue;
      const inside = name.slice(prefix.length);
      const targets = isOpen ? openClipTarget(inside, layersOf.get(prefix)!) : clipTarget(inside);
      return targets ? { component, targets } : "lost";
    }
    if (!name.startsWith(prefix)) return undefined;
    const found = byPrefix(modules, name.slice(prefix.length));
    return found && isLayer(found[1]) ? single("unet", found.join("")) : "lost";
  };
}

/** The end of a name: what remains below a resnet's layer, a sampler or an attention. */
const isLayer = (rest: string): boolean =>
  /^(((norm|proj_in|proj_out|transformer_blocks\.\d+\.(attn[12]\.to_([qkv]|out\.0)|norm[123]|ff\.net\.(0\.proj|2)))\.)?(weight|bias))$/.test(
    rest,
  );

const single = (component: Component, name: string | undefined): Found | "lost" =>
  name === undefined ? "lost" : { component, targets: [{ name }] };

/** By what its cross-attention reads: 768 channels of CLIP, 1024 of OpenCLIP H, or a pooled text besides. */
function familyOf(unet: Shapes): Family {
  if (unet.has("label_emb.0.0.weight")) return "sdxl";
  return textWidthOf(unet) === 768 || !hasLinearProjections(unet) ? "sd1" : "sd2";
}

/** What the UNet's cross-attention reads, in channels; undefined without any. */
export function textWidthOf(unet: Shapes): number | undefined {
  return [...unet].find(([name]) => name.endsWith("attn2.to_k.weight"))?.[1][1];
}

/** Stable Diffusion 1's attentions begin with a 1x1 convolution, later ones with a linear layer. */
export function hasLinearProjections(unet: Shapes): boolean {
  return [...unet].find(([name]) => name.endsWith(".1.proj_in.weight"))?.[1].length === 2;
}

function unknownPart(where: string, name: string, family: Family): MixdqError {
  return new MixdqError(
    "invalid-model",
    `${where}: got the tensor ${printable(name)}, expected only layers of ${FAMILIES[family]}. The file holds something ` +
      "that this engine does not know, and the picture would be wrong without it: use the plain model.",
  );
}

export const FAMILIES: Readonly<Record<Family, string>> = {
  sd1: "Stable Diffusion 1",
  sd2: "Stable Diffusion 2",
  sdxl: "Stable Diffusion XL",
};
