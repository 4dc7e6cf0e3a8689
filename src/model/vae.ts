/** The VAE as it is loaded: latents to a picture. */
import type { VaeConfig } from "../diffusion/vae.ts";
import type { Network } from "../runtime/network.ts";
import type { ModelGraphs } from "./graphs.ts";
import { toChannelsFirst, toChannelsLast, type ImageShape } from "./layout.ts";
import { watched } from "./watched.ts";

export class LoadedVae {
  readonly config: VaeConfig;
  readonly network: Network;
  readonly #graphs: ModelGraphs;
  readonly #hasStatistics: boolean;

  /** `hasStatistics`: the latents' mean and deviation count, where the config has them. */
  constructor(config: VaeConfig, graphs: ModelGraphs, network: Network, hasStatistics: boolean) {
    this.config = config;
    this.network = network;
    this.#graphs = graphs;
    this.#hasStatistics = hasStatistics;
  }

  /** latents [C, h, w] as a scheduler leaves them -> [3, H, W], nominally -1..1. Throws as `Network.run`. */
  async decode(latents: Float32Array, shape: ImageShape, signal: AbortSignal | undefined): Promise<Float32Array> {
    const inputs = { latents: toChannelsLast(this.#unscaled(latents, shape), shape) };
    const graph = this.#graphs.vae(shape);
    const { image } = await watched("vae", { signal }, (options) => this.network.run(graph, inputs, options));
    const { scale } = this.config;
    return toChannelsFirst(image!, { channels: 3, height: shape.height * scale, width: shape.width * scale });
  }

  #unscaled(latents: Float32Array, { height, width }: ImageShape): Float32Array {
    const { scalingFactor, latentsMean, latentsStd } = this.config;
    const plane = height * width;
    if (!this.#hasStatistics || !latentsMean || !latentsStd) return latents.map((value) => value / scalingFactor);
    return latents.map((value, i) => {
      const channel = Math.floor(i / plane);
      return (value * latentsStd[channel]) / scalingFactor + latentsMean[channel];
    });
  }
}
