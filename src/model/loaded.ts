/** A loaded model: its networks as fields with methods in diffusers' words. */
import type { Precision } from "../base/types.ts";
import { unmetNeed } from "../lora/needs.ts";
import type { Lora } from "../lora/read.ts";
import type { Network, Runtime } from "../runtime/network.ts";
import type { ModelDescription } from "./description.ts";
import type { ModelGraphs } from "./graphs.ts";
import type { ImageShape } from "./layout.ts";
import { assertFinite } from "./output.ts";
import type { LoadProgressSum } from "./progress.ts";
import { isGuided, type Settings } from "./request.ts";
import { encodedText, encodePrompt, LoadedTextEncoder, zeros, type EncodedText } from "./text.ts";
import { LoadedUNet } from "./unet.ts";
import { LoadedVae } from "./vae.ts";

export interface LoadedNetworks {
  /** One for each text encoder. */
  readonly text: readonly Network[];
  readonly unet: Network;
  readonly vae: Network;
}

interface LoadedParts {
  readonly bos: readonly Float32Array[] | undefined;
  readonly progress: LoadProgressSum;
  readonly loras: readonly Lora[];
}

export class LoadedModel {
  readonly description: ModelDescription;
  readonly precision: Precision;
  readonly runtime: Runtime;
  readonly graphs: ModelGraphs;
  readonly textEncoders: readonly LoadedTextEncoder[];
  readonly unet: LoadedUNet;
  readonly vae: LoadedVae;
  /** What is merged into its weights. */
  readonly loras: readonly Pick<Lora, "address" | "scale">[];
  readonly #networks: readonly Network[];
  readonly #progress: LoadProgressSum;
  /** The text of the last request: the same prompt with another seed is not encoded again. */
  #text: { readonly key: string; readonly encoded: EncodedText } | undefined;

  /** `bos`: the text state of the first token that the UNet's cache was computed from. `progress` hears of compiling. */
  constructor(
    description: ModelDescription,
    precision: Precision,
    runtime: Runtime,
    graphs: ModelGraphs,
    { text, unet, vae }: LoadedNetworks,
    { bos, progress, loras }: LoadedParts,
  ) {
    this.description = description;
    this.precision = precision;
    this.runtime = runtime;
    this.graphs = graphs;
    this.textEncoders = description.textEncoders.map(
      (encoder, i) => new LoadedTextEncoder(encoder, (skip) => graphs.text(i, skip), text[i]),
    );
    this.unet = new LoadedUNet(description.unet, graphs, unet, bos);
    // Only SDXL's pipeline reads the statistics (diffusers, pipeline_stable_diffusion_xl.py).
    this.vae = new LoadedVae(description.vae, graphs, vae, description.unet.addition !== undefined);
    // Not the LoRAs themselves: their numbers are in the weights now.
    this.loras = loras.map(({ address, scale }) => ({ address, scale }));
    this.#networks = [...text, unet, vae];
    this.#progress = progress;
  }

  /** Of all networks. */
  get weightBytes(): number {
    return this.#networks.reduce((sum, { weightBytes }) => sum + weightBytes, 0);
  }

  /** Activation memory that is held now: what all networks share, and what each keeps for its next run. */
  get activationBytes(): number {
    return this.runtime.activationBytes + this.#networks.reduce((sum, { cachedBytes }) => sum + cachedBytes, 0);
  }

  /** The latents of a picture. */
  latentShape({ width, height }: Pick<Settings, "width" | "height">): ImageShape {
    const { scale } = this.vae.config;
    return { channels: this.unet.config.inChannels, height: height / scale, width: width / scale };
  }

  /**
   * Plans and compiles what a picture will need. Throws `unsupported` where the device cannot hold it, before anything is
   * compiled, and `aborted`.
   */
  async prepare(settings: Settings, signal?: AbortSignal): Promise<void> {
    const { height, width } = this.latentShape(settings);
    const batch = isGuided(settings, this.description) ? 2 : 1;
    let isNew = false;
    const onPipeline = (compiled: number, pipelines: number): void => {
      isNew = true;
      this.#progress.compile(compiled, pipelines);
    };
    await Promise.all([
      this.unet.network.prepare(this.graphs.unet({ batch, height, width, tokens: this.graphs.tokens }), {
        signal,
        onPipeline,
      }),
      this.vae.network.prepare(this.graphs.vae({ height, width }), { signal, onPipeline }),
    ]);
    if (isNew) this.#progress.finish();
  }

  /** The texts of a request, or those of the last one where they are the same. Throws `invalid-output`. */
  async encode(settings: Settings, signal?: AbortSignal): Promise<EncodedText> {
    const { prompt, prompt2, negativePrompt, negativePrompt2, clipSkip } = settings;
    const guided = isGuided(settings, this.description);
    const key = JSON.stringify([prompt, prompt2, clipSkip, guided, negativePrompt, negativePrompt2]);
    if (this.#text?.key === key) return this.#text.encoded;
    const warnings: string[] = [];
    const encode = (text: string, second: string | undefined, skip: number) =>
      encodePrompt(this.textEncoders, this.description, [text, second || text], { signal, warnings, clipSkip: skip });
    const positive = await encode(prompt, prompt2, clipSkip);
    const conditioning = [positive];
    if (guided)
      conditioning.unshift(
        negativePrompt === undefined && this.description.zerosForNoNegative
          ? zeros(positive)
          : // clip_skip is the prompt's alone (diffusers, encode_prompt).
            await encode(negativePrompt ?? "", negativePrompt2, 0),
      );
    for (const { hidden, pooled } of conditioning)
      for (const values of [hidden, pooled ?? []]) assertFinite(values, "text encoder", this.precision);
    const encoded = encodedText(conditioning, warnings);
    this.#text = { key, encoded };
    return encoded;
  }

  /** What its LoRAs were made for and `settings` do not do. */
  warnOfLoras(settings: Settings): readonly string[] {
    return this.loras.flatMap(({ address }) => unmetNeed(address, settings) ?? []);
  }

  /** Gives back all that is on the device, and the device. */
  async dispose(): Promise<void> {
    for (const network of this.#networks) await network.dispose();
    await this.runtime.dispose();
  }
}
