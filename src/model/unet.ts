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
  /** Channels behind the sample's, of each image, [more, H, W]; none for most models. */
  readonly beside: readonly Float32Array[] | undefined;
}

export interface ContextOptions {
  readonly latents: ImageShape;
  /** The picture's size, which SDXL is told. */
  readonly pixels: { readonly width: number; readonly height: number };
  readonly guidanceScale: number;
  readonly beside?: readonly Float32Array[] | undefined;
  /** SDXL's refiner is told an aesthetic score instead of the size that is wanted. */
  readonly requiresAestheticsScore?: boolean;
}

/** diffusers' aesthetic_score and negative_aesthetic_score. */
const [AESTHETIC_SCORE, NEGATIVE_AESTHETIC_SCORE] = [6, 2.5];

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
  context(
    { positive, conditioning, hidden }: EncodedText,
    { latents, pixels, guidanceScale, beside, requiresAestheticsScore = false }: ContextOptions,
  ): UNetContext {
    const { config } = this;
    const images = conditioning.length;
    const tokens = hidden.length / images / config.crossAttentionDim;
    if (this.#bos) checkFirstTokens(hidden, images, this.#bos);
    const { width, height } = pixels;
    const timeIds = (isPositive: boolean): number[] =>
      requiresAestheticsScore
        ? [height, width, 0, 0, isPositive ? AESTHETIC_SCORE : NEGATIVE_AESTHETIC_SCORE]
        : [height, width, 0, 0, height, width];
    return {
      images,
      latents,
      beside,
      shape: { batch: images, height: latents.height, width: latents.width, tokens },
      inputs: {
        encoder_hidden_states: hidden,
        ...(config.addition && {
          add_embeds: joined(
            conditioning.map((text) => addedEmbeddings(config, text.pooled!, timeIds(text === positive))),
          ),
        }),
        ...(config.timeCondProjDim !== undefined && {
          timestep_cond: guidanceScaleEmbedding(guidanceScale - 1, config.timeCondProjDim),
        }),
      },
    };
  }

  /** What the network reads in a step: `sample` [C, H, W], the same for all images. */
  inputs(sample: Float32Array, timestep: number, { images, latents, inputs, beside }: UNetContext): Inputs {
    const repeated = (values: Float32Array): Float32Array => joined(Array<Float32Array>(images).fill(values));
    const wide = { ...latents, channels: this.config.inChannels };
    return {
      ...inputs,
      sample: beside
        ? joined(beside.map((channels) => toChannelsLast(joined([sample, channels]), wide)))
        : repeated(toChannelsLast(sample, latents)),
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
