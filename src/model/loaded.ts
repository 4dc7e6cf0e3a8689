/** A loaded model: its networks as fields with methods in diffusers' words. */
import type { Precision } from "../base/types.ts";
import type { Network, Runtime } from "../runtime/network.ts";
import type { ModelDescription } from "./description.ts";
import type { ModelGraphs } from "./graphs.ts";
import type { ImageShape } from "./layout.ts";
import { assertFinite } from "./output.ts";
import type { LoadProgressSum } from "./progress.ts";
import { imagesOf, type Settings } from "./request.ts";
import { encodedText, encodePrompt, LoadedTextEncoder, zeros, type EncodedText } from "./text.ts";
import { LoadedUNet } from "./unet.ts";
import { LoadedVae, type LoadEncoder } from "./vae.ts";

export interface LoadedNetworks {
  /** One for each text encoder. */
  readonly text: readonly Network[];
  readonly unet: Network;
  readonly vae: Network;
  readonly loadEncoder: LoadEncoder;
}

export class LoadedModel {
  readonly description: ModelDescription;
  readonly precision: Precision;
  readonly runtime: Runtime;
  readonly graphs: ModelGraphs;
  readonly textEncoders: readonly LoadedTextEncoder[];
  readonly unet: LoadedUNet;
  readonly vae: LoadedVae;
  readonly #textAndUNet: readonly Network[];
  readonly #progress: LoadProgressSum;
  /** The text of the last request: the same prompt with another seed is not encoded again. */
  #text: { readonly key: string; readonly encoded: EncodedText } | undefined;

  /** `bos`: the text state of the first token that the UNet's cache was computed from. `progress` hears of compiling. */
  constructor(
    description: ModelDescription,
    precision: Precision,
    runtime: Runtime,
    graphs: ModelGraphs,
    { text, unet, vae, loadEncoder }: LoadedNetworks,
    { bos, progress }: { readonly bos: readonly Float32Array[] | undefined; readonly progress: LoadProgressSum },
  ) {
    this.description = description;
    this.precision = precision;
    this.runtime = runtime;
    this.graphs = graphs;
    this.textEncoders = description.textEncoders.map(
      (encoder, i) => new LoadedTextEncoder(encoder, graphs.text(i), text[i]),
    );
    this.unet = new LoadedUNet(description.unet, graphs, unet, bos);
    this.vae = new LoadedVae(description.vae, graphs, {
      ...{ network: vae, loadEncoder, precision },
      // Only SDXL's pipelines read the statistics (diffusers, pipeline_stable_diffusion_xl.py).
      hasStatistics: description.unet.addition !== undefined,
    });
    this.#textAndUNet = [...text, unet];
    this.#progress = progress;
  }

  get #networks(): readonly Network[] {
    return [...this.#textAndUNet, ...this.vae.networks];
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
    return { channels: this.vae.config.latentChannels, height: height / scale, width: width / scale };
  }

  /**
   * Plans and compiles what a picture will need. Throws `unsupported` where the device cannot hold it, before anything is
   * compiled, and `aborted`.
   */
  async prepare(settings: Settings, signal?: AbortSignal): Promise<void> {
    const batch = imagesOf(settings, this.description);
    const shape = this.latentShape(settings);
    let isNew = false;
    const onPipeline = (compiled: number, pipelines: number): void => {
      isNew = true;
      this.#progress.compile(compiled, pipelines);
    };
    await Promise.all([
      this.unet.network.prepare(
        this.graphs.unet({ batch, height: shape.height, width: shape.width, tokens: this.graphs.tokens }),
        { signal, onPipeline },
      ),
      this.vae.network.prepare(this.graphs.vae(shape), { signal, onPipeline }),
      ...(settings.edit ? [this.vae.prepareEncoder(shape, { signal, onPipeline })] : []),
    ]);
    if (isNew) this.#progress.finish();
  }

  /** The texts of a request, or those of the last one where they are the same. Throws `invalid-output`. */
  async encode(settings: Settings, signal?: AbortSignal): Promise<EncodedText> {
    const { prompt, negativePrompt } = settings;
    const images = imagesOf(settings, this.description);
    const key = JSON.stringify([prompt, images, negativePrompt]);
    if (this.#text?.key === key) return this.#text.encoded;
    const warnings: string[] = [];
    const encode = (text: string) => encodePrompt(this.textEncoders, this.description, text, { signal, warnings });
    const positive = await encode(prompt);
    const conditioning = [positive];
    if (images > 1) {
      const isNothing = negativePrompt === undefined && this.description.zerosForNoNegative;
      const negative = isNothing ? zeros(positive) : await encode(negativePrompt ?? "");
      // InstructPix2Pix compares with the negative prompt twice, with the picture and without.
      if (images === 3) conditioning.push(negative, negative);
      else conditioning.unshift(negative);
    }
    for (const { hidden, pooled } of conditioning)
      for (const values of [hidden, pooled ?? []]) assertFinite(values, "text encoder", this.precision);
    const encoded = encodedText(positive, conditioning, warnings);
    this.#text = { key, encoded };
    return encoded;
  }

  /** Gives back all that is on the device, and the device. */
  async dispose(): Promise<void> {
    for (const network of this.#networks) await network.dispose();
    await this.runtime.dispose();
  }
}
