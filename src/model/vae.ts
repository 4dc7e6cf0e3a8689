/** The VAE as it is loaded: latents to a picture, and a picture to latents. */
import type { VaeConfig } from "../diffusion/vae.ts";
import type { Network, PrepareOptions } from "../runtime/network.ts";
import type { Precision } from "../base/types.ts";
import type { ModelGraphs } from "./graphs.ts";
import { sizeOf, toChannelsFirst, toChannelsLast, type ImageShape } from "./layout.ts";
import { assertFinite } from "./output.ts";
import { watched } from "./watched.ts";

/** Loads the encoder, which most pictures do not need. */
export type LoadEncoder = (signal: AbortSignal | undefined) => Promise<Network>;

export interface LoadedVaeOptions {
  readonly network: Network;
  readonly loadEncoder: LoadEncoder;
  readonly precision: Precision;
  /** The latents' mean and deviation count, where the config has them. */
  readonly hasStatistics: boolean;
}

export interface EncodeOptions {
  /** Draws so many values of unit variance, for a sample of the distribution that AutoencoderKL gives. Default: its mean. */
  readonly sample?: ((count: number) => Float32Array) | undefined;
  /** As schedulers take latents; false leaves them as the encoder gives them. Default: true. */
  readonly isScaled?: boolean;
  readonly signal: AbortSignal | undefined;
}

/** What the encoder made of a picture, before any noise is drawn. */
interface Encoded {
  readonly pixels: Float32Array;
  readonly shape: ImageShape;
  /** AutoencoderKL's [2 C, h, w], or AutoencoderTiny's [C, h, w]. */
  readonly output: Float32Array;
}

/** Pictures whose encodings are kept: one that is repainted, and the same with a hole. */
const KEPT_ENCODINGS = 2;
/** Of AutoencoderKL's logarithms of variances, as diffusers bounds them. */
const [LEAST_LOGVAR, MOST_LOGVAR] = [-30, 20];

export class LoadedVae {
  readonly config: VaeConfig;
  readonly network: Network;
  readonly #graphs: ModelGraphs;
  readonly #options: LoadedVaeOptions;
  #encoder: Network | undefined;
  /** Newest first. */
  #encodings: readonly Encoded[] = [];

  constructor(config: VaeConfig, graphs: ModelGraphs, options: LoadedVaeOptions) {
    this.config = config;
    this.network = options.network;
    this.#graphs = graphs;
    this.#options = options;
  }

  /** Decoder, and encoder once it is loaded. */
  get networks(): readonly Network[] {
    return this.#encoder ? [this.network, this.#encoder] : [this.network];
  }

  /** latents [C, h, w] as a scheduler leaves them -> [3, H, W], nominally -1..1. Throws as `Network.run`. */
  async decode(latents: Float32Array, shape: ImageShape, signal: AbortSignal | undefined): Promise<Float32Array> {
    const inputs = { latents: toChannelsLast(this.#unscaled(latents, shape), shape) };
    const graph = this.#graphs.vae(shape);
    const { image } = await watched("vae", { signal }, (options) => this.network.run(graph, inputs, options));
    const { scale } = this.config;
    return toChannelsFirst(image!, { channels: 3, height: shape.height * scale, width: shape.width * scale });
  }

  /** Loads the encoder where it is not yet there, and compiles it for latents of `shape`. Throws as `Network.prepare` and loading. */
  async prepareEncoder(shape: ImageShape, options: PrepareOptions): Promise<void> {
    this.#encoder ??= await this.#options.loadEncoder(options.signal);
    await this.#encoder.prepare(this.#graphs.vaeEncoder(shape), options);
  }

  /**
   * pixels [3, H, W] in -1..1 -> latents [C, h, w] of `shape`. The same picture is not run through the network again. Throws
   * as `Network.run`, what loading throws, and `invalid-output`.
   */
  async encode(
    pixels: Float32Array,
    shape: ImageShape,
    { sample, isScaled = true, signal }: EncodeOptions,
  ): Promise<Float32Array> {
    const output = await this.#encoded(pixels, shape, signal);
    const count = sizeOf(shape);
    const isSampled = this.config.kind === "AutoencoderKL" && sample !== undefined;
    const latents = isSampled ? sampleOf(output, sample(count)) : output.slice(0, count);
    return isScaled ? this.#scaled(latents, shape) : latents;
  }

  async #encoded(pixels: Float32Array, shape: ImageShape, signal: AbortSignal | undefined): Promise<Float32Array> {
    const known = this.#encodings.find((each) => isSame(each, pixels, shape));
    if (known) return known.output;
    const { scale, kind } = this.config;
    const picture = { channels: 3, height: shape.height * scale, width: shape.width * scale };
    const encoder = (this.#encoder ??= await this.#options.loadEncoder(signal));
    const outputs = await watched("vae_encoder", { signal }, (options) =>
      encoder.run(this.#graphs.vaeEncoder(shape), { pixels: toChannelsLast(pixels, picture) }, options),
    );
    const isKl = kind === "AutoencoderKL";
    const values = isKl ? outputs["moments"]! : outputs["latents"]!;
    assertFinite(values, "VAE encoder", this.#options.precision);
    const output = toChannelsFirst(values, { ...shape, channels: (isKl ? 2 : 1) * shape.channels });
    this.#encodings = [{ pixels, shape, output }, ...this.#encodings].slice(0, KEPT_ENCODINGS);
    return output;
  }

  #unscaled(latents: Float32Array, { height, width }: ImageShape): Float32Array {
    const { scalingFactor } = this.config;
    const statistics = this.#statistics();
    if (!statistics) return latents.map((value) => value / scalingFactor);
    const { mean, std } = statistics;
    const plane = height * width;
    return latents.map((value, i) => {
      const channel = Math.floor(i / plane);
      return (value * std[channel]) / scalingFactor + mean[channel];
    });
  }

  #scaled(latents: Float32Array, { height, width }: ImageShape): Float32Array {
    const { scalingFactor } = this.config;
    const statistics = this.#statistics();
    if (!statistics) return latents.map((value) => value * scalingFactor);
    const { mean, std } = statistics;
    const plane = height * width;
    return latents.map((value, i) => {
      const channel = Math.floor(i / plane);
      return ((value - mean[channel]) * scalingFactor) / std[channel];
    });
  }

  /** `shift_factor` is not among them: no pipeline of the family reads it. */
  #statistics(): { readonly mean: readonly number[]; readonly std: readonly number[] } | undefined {
    const { latentsMean: mean, latentsStd: std } = this.config;
    return this.#options.hasStatistics && mean && std ? { mean, std } : undefined;
  }
}

/** DiagonalGaussianDistribution.sample: `moments` are means, then logarithms of variances; `noise` as many as the means. */
function sampleOf(moments: Float32Array, noise: Float32Array): Float32Array {
  return noise.map((value, i) => {
    const logVariance = Math.min(MOST_LOGVAR, Math.max(LEAST_LOGVAR, moments[noise.length + i]));
    const deviation = Math.fround(Math.exp(0.5 * logVariance));
    return moments[i] + Math.fround(deviation * value);
  });
}

function isSame({ pixels, shape }: Encoded, others: Float32Array, { height, width }: ImageShape): boolean {
  if (shape.height !== height || shape.width !== width || pixels.length !== others.length) return false;
  return pixels === others || pixels.every((value, i) => value === others[i]);
}
