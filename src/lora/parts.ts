/** What the tensors of an adapter's layer are called behind the layer's name, in whichever trainer's spelling. */

export type Part =
  | ("down" | "up" | "core" | "alpha" | "magnitude" | "doraScale" | "biasUp")
  | ("hadaUp1" | "hadaDown1" | "hadaCore1" | "hadaUp2" | "hadaDown2" | "hadaCore2")
  | ("krFirst" | "krUp1" | "krDown1" | "krSecond" | "krUp2" | "krDown2" | "krCore2")
  | ("whole" | "wholeBias");

/** The endings of names. PEFT writes its adapter's name, "default", into some. */
const ENDINGS: readonly (readonly [ending: RegExp, part: Part])[] = [
  // PEFT, and diffusers since it uses PEFT
  [/\.lora_A(\.default)?\.weight$/, "down"],
  [/\.lora_B(\.default)?\.weight$/, "up"],
  [/\.lora_B(\.default)?\.bias$/, "biasUp"],
  [/\.lora_magnitude_vector(\.default)?(\.weight)?$/, "magnitude"],
  // diffusers before that, for the UNet and for text encoders
  [/\.lora(_linear_layer)?\.down\.weight$/, "down"],
  [/\.lora(_linear_layer)?\.up\.weight$/, "up"],
  // the attention processors of diffusers' first years, `to_q_lora`: the layer's name is for its spelling to read
  [/(?<=_lora)\.down\.weight$/, "down"],
  [/(?<=_lora)\.up\.weight$/, "up"],
  // kohya, and LyCORIS after it
  [/\.lora_down\.weight$/, "down"],
  [/\.lora_up\.weight$/, "up"],
  [/\.lora_mid\.weight$/, "core"],
  [/\.alpha$/, "alpha"],
  [/\.dora_scale$/, "doraScale"],
  [/\.hada_w1_a$/, "hadaUp1"],
  [/\.hada_w1_b$/, "hadaDown1"],
  [/\.hada_t1$/, "hadaCore1"],
  [/\.hada_w2_a$/, "hadaUp2"],
  [/\.hada_w2_b$/, "hadaDown2"],
  [/\.hada_t2$/, "hadaCore2"],
  [/\.lokr_w1$/, "krFirst"],
  [/\.lokr_w1_a$/, "krUp1"],
  [/\.lokr_w1_b$/, "krDown1"],
  [/\.lokr_w2$/, "krSecond"],
  [/\.lokr_w2_a$/, "krUp2"],
  [/\.lokr_w2_b$/, "krDown2"],
  [/\.lokr_t2$/, "krCore2"],
  [/\.diff$/, "whole"],
  [/\.diff_b$/, "wholeBias"],
  [/\.w_norm$/, "whole"],
  [/\.b_norm$/, "wholeBias"],
];

/** A tensor's name as the name of its layer and what it is of it; undefined for a name that is no adapter's. */
export function splitKey(key: string): { readonly layer: string; readonly part: Part } | undefined {
  for (const [ending, part] of ENDINGS) {
    const layer = key.replace(ending, "");
    if (layer !== key) return { layer, part };
  }
  return undefined;
}
