/** diffusers' and PEFT's names: module paths, with the component before them. */
import { COMPONENTS, type Spelling } from "./spelling.ts";

export const DIFFUSERS: Spelling = {
  prefixes: [
    ["unet.", ["unet"]],
    ["text_encoder.", ["text_encoder"]],
    ["text_encoder_2.", ["text_encoder_2"]],
    // PEFT's own files are of one module, and do not say which.
    ["base_model.model.", COMPONENTS],
    // diffusers before 0.15 saved the UNet's alone.
    ["", ["unet"]],
  ],
  // The attention processors of diffusers before 0.22: `attn1.processor.to_q_lora`, of text encoders `self_attn.to_q_lora`.
  modern: (layer, component) =>
    layer.replace(/(?:\.processor)?\.to_(q|k|v|out)_lora$/, (_, name: string) => {
      if (component !== "unet") return `.${name}_proj`;
      return name === "out" ? ".to_out.0" : `.to_${name}`;
    }),
};
