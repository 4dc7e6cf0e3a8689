/** A component's tensors as its graph wants them, whatever runs the graph. */
import { MixdqError, throwIfAborted } from "../errors.ts";
import type { Graph } from "../graph/ops.ts";
import { toFloat16, toFloat32 } from "../weights/convert.ts";
import type { LoadOptions } from "./runtime.ts";

/** A tensor of the checkpoint that the graph wants. */
export interface LoadedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether 16-bit floats hold its values exactly. */
  readonly isHalf: boolean;
  values(dtype: "f32" | "f16"): Float32Array | Uint16Array;
}

/**
 * The layers of each component. A checkpoint that holds one of them which the graph does not read belongs to another
 * config.json, and would make a wrong picture without a word. Everything else (a VAE's encoder, position_ids) may be there.
 */
const LAYERS: Readonly<Record<string, RegExp>> = {
  unet: /^(down_blocks|mid_block|up_blocks|time_embedding|add_embedding|class_embedding|encoder_hid_proj)\./,
  vae: /^(decoder|post_quant_conv)\./,
  text_encoder: /^(text_model\.)?encoder\.layers\./,
  text_encoder_2: /^(text_model\.)?encoder\.layers\./,
};

function refuseUnread(component: string, name: string): false {
  if (!LAYERS[component]?.test(name)) return false;
  throw new MixdqError(
    "invalid-model",
    `${component}: the weights have ${name}, ${component}/config.json describes no such layer. Weights and config do not ` +
      `belong together: take both from one model.`,
  );
}

/** Every tensor that a graph wants, in the files' order, one at a time. */
export async function* streamWeights(
  { component, weights, bos = [], signal, onBytes }: LoadOptions,
  graph: Graph,
): AsyncGenerator<LoadedTensor, void, undefined> {
  const derived = new Map(graph.weights.flatMap(({ name, derivedFrom }) => (derivedFrom ? [[derivedFrom, name]] : [])));
  const names = new Set(graph.weights.flatMap(({ name, aliases = [] }) => [name, ...aliases]));
  let loaded = 0;
  for await (const { name, dtype, shape, bytes } of weights.tensors({
    signal,
    wanted: (name) => names.has(name) || refuseUnread(component, name),
    onBytes: (bytes, file) => onBytes?.((loaded += bytes), file),
  })) {
    throwIfAborted(signal);
    const where = `${component}/${name}`;
    yield {
      name,
      shape,
      isHalf: dtype === "F16",
      values: (type) => (type === "f16" ? toFloat16(bytes, dtype, where) : toFloat32(bytes, dtype)),
    };
    const cache = derived.get(name);
    if (cache !== undefined)
      yield {
        name: cache,
        shape: [bos.length, shape[0]!],
        isHalf: dtype === "F16",
        values: () => firstTokenProducts(toFloat32(bytes, dtype), bos),
      };
  }
}

/** W e of every state e: weight [N, K], states [K] -> [states, N]. In f64, once, for all pictures. */
export function firstTokenProducts(weight: Float32Array, states: readonly Float32Array[]): Float32Array {
  const k = states[0]!.length;
  const n = weight.length / k;
  return Float32Array.from({ length: states.length * n }, (_, i) => {
    const state = states[Math.floor(i / n)]!;
    let sum = 0;
    for (let c = 0, at = (i % n) * k; c < k; c++, at++) sum += weight[at]! * state[c]!;
    return sum;
  });
}
