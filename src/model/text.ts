/** prompt -> tokens -> states: the text encoders as they are loaded, and what they make of a request. */
import { throwIfAborted } from "../base/errors.ts";
import type { KeyedGraph, Network } from "../runtime/network.ts";
import { pooledToken } from "../text/encoder.ts";
import type { ModelDescription, TextEncoderDescription } from "./description.ts";
import { joined, sideBySide } from "./layout.ts";
import { watched } from "./watched.ts";

/** What the UNet knows of a prompt. */
export interface Conditioning {
  /** [tokens, cross_attention_dim]: the encoders' states side by side. */
  readonly hidden: Float32Array;
  /** [channels], SDXL only. */
  readonly pooled: Float32Array | undefined;
}

/** What the UNet knows of a request. */
export interface EncodedText {
  /** The prompt's. */
  readonly positive: Conditioning;
  /** [negative, positive] with guidance, [positive] without; [positive, negative, negative] for three images. */
  readonly conditioning: readonly Conditioning[];
  /** Their `hidden` one after the other, always the same array: what is computed of it is kept from run to run. */
  readonly hidden: Float32Array;
  /** What did not fit into the tokenizers' length. */
  readonly warnings: readonly string[];
}

export class LoadedTextEncoder {
  readonly description: TextEncoderDescription;
  readonly #graph: KeyedGraph;
  readonly #network: Network;

  constructor(description: TextEncoderDescription, graph: KeyedGraph, network: Network) {
    this.description = description;
    this.#graph = graph;
    this.#network = network;
  }

  /** hidden [tokens, channels]; pooled [channels] where the encoder has a projection; the text that was cut off. */
  async encode(
    prompt: string,
    signal: AbortSignal | undefined,
  ): Promise<{ hidden: Float32Array; pooled: Float32Array | undefined; truncated: string | undefined }> {
    const { component, tokenizer, config, projects } = this.description;
    const { ids, truncated } = tokenizer.encode(prompt);
    const inputs = {
      ids: Uint32Array.from(ids),
      ...(projects && { eos: Uint32Array.of(pooledToken(config, ids)) }),
    };
    const outputs = await watched(component, { signal }, (options) => this.#network.run(this.#graph, inputs, options));
    return { hidden: outputs["hidden"], pooled: outputs["pooled"], truncated };
  }
}

/** A prompt by all encoders. `warnings` gets what was cut off. */
export async function encodePrompt(
  encoders: readonly LoadedTextEncoder[],
  model: Pick<ModelDescription, "unet">,
  prompt: string,
  { signal, warnings }: { readonly signal: AbortSignal | undefined; readonly warnings: string[] },
): Promise<Conditioning> {
  const states: Float32Array[] = [];
  let pooled: Float32Array | undefined;
  const tokens = encoders[0].description.tokenizer.length;
  for (const [i, encoder] of encoders.entries()) {
    throwIfAborted(signal);
    const encoded = await encoder.encode(prompt, signal);
    if (encoded.truncated !== undefined && i === 0)
      warnings.push(`The prompt is longer than the model reads (${tokens} tokens). Cut off: "${encoded.truncated}"`);
    states.push(encoded.hidden);
    pooled = encoded.pooled ?? pooled;
  }
  return { hidden: sideBySide(states, tokens), pooled: model.unet.addition ? pooled : undefined };
}

/** The texts of a request as one, in the UNet's order. */
export function encodedText(
  positive: Conditioning,
  conditioning: readonly Conditioning[],
  warnings: readonly string[],
): EncodedText {
  return { positive, conditioning, hidden: joined(conditioning.map(({ hidden }) => hidden)), warnings };
}

/** SDXL compares with zeros where there is no negative prompt. */
export function zeros({ hidden, pooled }: Conditioning): Conditioning {
  return { hidden: new Float32Array(hidden.length), pooled: pooled && new Float32Array(pooled.length) };
}
