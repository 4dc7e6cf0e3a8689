/** The UNet as it is loaded: one step's prediction, in diffusers' words and layout. */
import { guidanceScaleEmbedding, timestepEmbedding } from "../diffusion/timestep.ts";
import type { UNetConfig, UNetShape } from "../diffusion/unet.ts";
import type { Inputs, Network, RunOptions } from "../runtime/network.ts";
import type { ModelGraphs } from "./graphs.ts";
import { joined, split, toChannelsFirst, toChannelsLast, type ImageShape } from "./layout.ts";
import { checkFirstTokens } from "./quantization.ts";
import type { EncodedText } from "./text.ts";
import { watched } from "./watched.ts";

/** What is the same in all steps of a picture: its text, its size, and how much guidance a distilled model is told. */
export interface UNetContext {
  /** [negative, positive] with guidance, else one. */
  readonly images: number;
  /** Of one image's latents. */
  readonly latents: ImageShape;
  readonly shape: UNetShape;
  readonly inputs: Readonly<Record<string, Float32Array>>;
}

export interface ContextOptions {
  readonly latents: ImageShape;
  /** The picture's size, which SDXL is told. */
  readonly pixels: { readonly width: number; readonly height: number };
  readonly guidanceScale: number;
}

export class LoadedUNet {
  readonly config: UNetConfig;
  readonly network: Network;
  readonly #graphs: ModelGraphs;
  /** What keys and values of the first token were computed from, with layers in integers. */
  readonly #bos: readonly Float32Array[] | undefined;

  constructor(config: UNetConfig, graphs: ModelGraphs, network: Network, bos: readonly Float32Array[] | undefined) {
    this.config = config;
    this.network = network;
    this.#graphs = graphs;
    this.#bos = bos;
  }

  /** Throws `invalid-input` where a cached first token is not the text's. */
  context({ conditioning, hidden }: EncodedText, { latents, pixels, guidanceScale }: ContextOptions): UNetContext {
    const { config } = this;
    const images = conditioning.length;
    const tokens = hidden.length / images / config.crossAttentionDim;
    if (this.#bos) checkFirstTokens(hidden, images, this.#bos);
    const { width, height } = pixels;
    const timeIds = [height, width, 0, 0, height, width];
    return {
      images,
      latents,
      shape: { batch: images, height: latents.height, width: latents.width, tokens },
      inputs: {
        encoder_hidden_states: hidden,
        ...(config.addition && {
          add_embeds: joined(conditioning.map(({ pooled }) => addedEmbeddings(config, pooled!, timeIds))),
        }),
        ...(config.timeCondProjDim !== undefined && {
          timestep_cond: guidanceScaleEmbedding(guidanceScale - 1, config.timeCondProjDim),
        }),
      },
    };
  }

  /** What the network reads in a step: `sample` [C, H, W], the same for all images. */
  inputs(sample: Float32Array, timestep: number, { images, latents, inputs }: UNetContext): Inputs {
    const repeated = (values: Float32Array): Float32Array => joined(Array<Float32Array>(images).fill(values));
    return {
      ...inputs,
      sample: repeated(toChannelsLast(sample, latents)),
      time_proj: repeated(projectTime(this.config, [timestep])),
    };
  }

  /**
   * The prediction of each image, [C, H, W], from the sample [C, H, W] that the scheduler has scaled. Throws `aborted`,
   * `out-of-memory`, `device-lost`.
   */
  async run(
    sample: Float32Array,
    timestep: number,
    context: UNetContext,
    options: RunOptions = {},
  ): Promise<readonly Float32Array[]> {
    const inputs = this.inputs(sample, timestep, context);
    const graph = this.#graphs.unet(context.shape);
    const outputs = await watched("unet", options, (watching) => this.network.run(graph, inputs, watching));
    return split(outputs["out_sample"], context.images).map((image) => toChannelsFirst(image, context.latents));
  }
}

/** Timesteps -> the UNet's sinusoidal projection, [n, block_out_channels[0]]. */
export function projectTime(unet: UNetConfig, timesteps: ArrayLike<number>): Float32Array {
  const { flipSinToCos, freqShift, timeProjDim } = unet;
  return timestepEmbedding(timesteps, timeProjDim, { flipSinToCos, freqShift });
}

/** SDXL's text_time conditioning of one picture: the pooled prompt, then each of the six numbers projected. */
export function addedEmbeddings(unet: UNetConfig, pooled: Float32Array, timeIds: ArrayLike<number>): Float32Array {
  const { flipSinToCos, freqShift } = unet;
  return joined([pooled, timestepEmbedding(timeIds, unet.addition!.timeEmbedDim, { flipSinToCos, freqShift })]);
}
