/** What a file of weights is, by the names of its tensors; what is no model of the family is refused by its name. */
import { MixdqError } from "../base/errors.ts";
import type { SafetensorsHeader } from "../weights/header.ts";
import { UNET_PREFIX } from "./contents.ts";

const OF_FAMILY = "Use a model of the Stable Diffusion family.";

type Names = ReadonlySet<string>;

/** The first that fits names the file; then what to do with it. */
const KINDS: readonly { fits: (names: Names) => boolean; what: string; advice: string }[] = [
  {
    fits: some(/lora_(up|down|A|B)|\.hada_w|\.lokr_w|^lora_|lora\.(up|down)/),
    what: "a LoRA (or one of its relatives), which changes a model and is none",
    advice: "Load the model that it was made for, and give this file as its LoRA.",
  },
  {
    fits: some(/^control_model\.|(^|\.)(controlnet_\w+|input_hint_block)\./),
    what: "a ControlNet, which steers a model and is none",
    advice: "Use the model itself.",
  },
  {
    fits: some(/(^|\.)(double_blocks|double_stream_blocks)\.\d/),
    what: "a model of the Flux family, a transformer without a UNet",
    advice: OF_FAMILY,
  },
  {
    fits: some(/(^|\.)joint_blocks\.\d/),
    what: "a Stable Diffusion 3 model, a transformer without a UNet",
    advice: OF_FAMILY,
  },
  {
    fits: some(/^conditioner\.embedders\.0\.model\./),
    what: "SDXL's refiner, which starts from a picture",
    advice: "Use the base model.",
  },
  {
    fits: some(/^edm_(mean|std)$/),
    what: "a Playground 2.5 model, which samples with EDM's noise",
    advice: OF_FAMILY,
  },
  {
    fits: some(/(^|\.)(motion_modules|temporal_transformer|time_stack|time_mixer)\./),
    what: "a video model (AnimateDiff or Stable Video Diffusion)",
    advice: OF_FAMILY,
  },
];

/** What a file without a UNet in this layout may be. */
const OTHERS: typeof KINDS = [
  {
    fits: some(/^(unet\.)?down_blocks\.\d+\.(resnets|attentions)\./),
    what: "a UNet in the layout of a diffusers folder",
    advice: "Give the whole folder: it holds model_index.json, unet/, vae/, text_encoder/, ….",
  },
  {
    fits: some(/^(first_stage_model\.)?decoder\.(mid|mid_block|up|up_blocks|layers)\.|^\d+\.conv\.\d+\.weight$/),
    what: "a VAE alone",
    advice: "Load the model that it belongs to, and give this file as its VAE.",
  },
  {
    fits: some(/(^|\.)(text_model|resblocks)\.|^transformer\.resblocks\.|encoder\.block\.\d+\.layer\./),
    what: "a text encoder alone",
    advice: "Load the model that it belongs to, and give its folder as the text encoder.",
  },
  {
    fits: some(/^(emb_params|string_to_param|clip_[lg])(\.|$)/),
    what: "a textual inversion, a learned word for a model",
    advice: "Load the model that it was made for.",
  },
  {
    fits: some(/(^|\.)(adaLN_modulation|transformer_blocks|x_embedder|caption_projection|patch_embed)/),
    what: "a diffusion transformer without a UNet",
    advice: OF_FAMILY,
  },
];

/** Where the UNet's tensors begin with; "" where the file holds nothing else. Throws `invalid-model` with the file's kind. */
export function unetPrefix({ tensors }: SafetensorsHeader, where: string): string {
  const names = new Set(tensors.map(({ name }) => name));
  const kind = KINDS.find(({ fits }) => fits(names));
  if (kind) throw isNone(where, kind);
  for (const prefix of [UNET_PREFIX, ""]) if (names.has(`${prefix}input_blocks.0.0.weight`)) return prefix;
  throw isNone(
    where,
    OTHERS.find(({ fits }) => fits(names)) ?? {
      what: `${tensors.length} tensors of no diffusion model that is known here`,
      advice: OF_FAMILY,
    },
  );
}

function isNone(where: string, { what, advice }: { readonly what: string; readonly advice: string }): MixdqError {
  return new MixdqError("invalid-model", `${where}: got ${what}, expected ${EXPECTED}. ${advice}`);
}

export const EXPECTED = "a whole model of Stable Diffusion 1, 2 or XL in one safetensors file";

function some(pattern: RegExp): (names: Names) => boolean {
  return (names) => [...names].some((name) => pattern.test(name));
}
