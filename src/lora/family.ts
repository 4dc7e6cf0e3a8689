/** Which family of models a LoRA was trained for, as its names say; for messages. */
import type { Layers } from "./layers.ts";

const FAMILIES: readonly (readonly [keys: RegExp, family: string])[] = [
  [
    /^(transformer|lora_transformer|diffusion_model)\W?.*(double_blocks|single_blocks|single_transformer_blocks)/,
    "FLUX",
  ],
  [/lora_unet_(double|single)_blocks_/, "FLUX"],
  [/^(transformer|lora_transformer)[._]/, "a transformer model (FLUX, Stable Diffusion 3)"],
  [/joint_blocks/, "Stable Diffusion 3"],
  [/^(lora_te3|text_encoder_3)[._]/, "Stable Diffusion 3"],
  [/^(lora_te2|text_encoder_2)[._]/, "SDXL"],
  [/^(lora_unet_|diffusion_model\.).*_label_emb_|add_embedding/, "SDXL"],
];

export function familyOfKey(key: string): string | undefined {
  return FAMILIES.find(([keys]) => keys.test(key))?.[1];
}

export function familyOfModel(layers: Layers): string {
  return layers.components.includes("text_encoder_2") ? "SDXL" : "Stable Diffusion 1 or 2";
}
