/** kohya's sd-scripts, LyCORIS and whoever follows them: module paths with underscores for dots. */
import { type Spelling } from "./spelling.ts";

export const KOHYA: Spelling = {
  prefixes: [
    ["lora_unet_", ["unet"]],
    ["lora_te_", ["text_encoder"]],
    ["lora_te1_", ["text_encoder"]],
    ["lora_te2_", ["text_encoder_2"]],
    ["lycoris_", ["unet"]],
    // ComfyUI's name of the UNet, dots kept.
    ["diffusion_model.", ["unet"]],
  ],
};
