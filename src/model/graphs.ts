/** A model's networks as graphs: which component, in which number formats, for which shape. */
import { STORAGE, quantizedStorage, type KeyedGraph, type LoadOptions } from "../runtime/network.ts";
import { buildUNet, type UNetShape } from "../diffusion/unet.ts";
import { buildVaeDecoder } from "../diffusion/vae.ts";
import { buildVaeEncoder } from "../diffusion/vaeEncoder.ts";
import type { Graph } from "../graph/ops.ts";
import { quantizeGraph } from "../graph/quantize.ts";
import type { MixdqConfig } from "../quant/config.ts";
import { buildTextEncoder } from "../text/encoder.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { Precision } from "../base/types.ts";
import type { ModelDescription, TextEncoderDescription } from "./description.ts";

/** What of a model's description its graphs are made from. */
export interface GraphSource extends Pick<ModelDescription, "unet" | "vae" | "textState"> {
  readonly textEncoders: readonly (Omit<TextEncoderDescription, "tokenizer"> & {
    readonly tokenizer: Pick<Tokenizer, "length">;
  })[];
}

/** A component as a runtime loads it, but for its weights. */
export type ComponentGraphs = Pick<LoadOptions, "component" | "storage" | "graphs">;

/** Storage of activations. Text encoders run once a prompt and their outliers are large: always f32, weights exact. */
const TEXT_TYPE = "f32";

export class ModelGraphs {
  readonly #model: GraphSource;
  readonly #precision: Precision;
  readonly #config: MixdqConfig | undefined;

  /** `config`: which layers of the UNet run in integers. */
  constructor(model: GraphSource, precision: Precision, config: MixdqConfig | undefined) {
    this.#model = model;
    this.#precision = precision;
    this.#config = config;
  }

  /** Of text encoder `i`, for one prompt. */
  text(i: number): KeyedGraph {
    const { config, projects } = this.#model.textEncoders[i];
    const shape = { batch: 1, state: this.#model.textState, projects };
    return { key: "1", build: () => buildTextEncoder(config, shape, TEXT_TYPE) };
  }

  /** `shape` in latents. */
  unet(shape: UNetShape): KeyedGraph {
    const config = this.#config;
    const { activations } = config ? quantizedStorage(this.#precision) : STORAGE[this.#precision];
    const build = (): Graph => {
      const graph = buildUNet(this.#model.unet, shape, "unet", activations);
      return config ? quantizeGraph(graph, config) : graph;
    };
    return { key: Object.values(shape).join("x"), build };
  }

  /** The decoder; `height` and `width` in latents. */
  vae({ height, width }: { readonly height: number; readonly width: number }): KeyedGraph {
    const { vae } = this.#model;
    const shape = { batch: 1, height, width };
    return { key: `${height}x${width}`, build: () => buildVaeDecoder(vae, shape, this.#vaeType) };
  }

  /** The encoder of one picture; `height` and `width` in latents. */
  vaeEncoder({ height, width }: { readonly height: number; readonly width: number }): KeyedGraph {
    const { vae } = this.#model;
    const shape = { batch: 1, height, width };
    return { key: `${height}x${width}`, build: () => buildVaeEncoder(vae, shape, this.#vaeType) };
  }

  get #vaeType(): "f32" | "f16" {
    return this.#model.vae.forceUpcast ? "f32" : STORAGE[this.#precision].activations;
  }

  /** Tokens of a prompt. */
  get tokens(): number {
    return this.#model.textEncoders[0].tokenizer.length;
  }

  /** Every component of a picture from text, in the order in which they are loaded: with the graphs of `shape`, by default of one picture of the model's own size. */
  components(shape = this.#ownShape()): readonly ComponentGraphs[] {
    const storage = STORAGE[this.#precision].weights;
    return [
      ...this.textComponents(),
      { component: "unet", storage, graphs: [this.unet(shape)] },
      { component: "vae", storage, graphs: [this.vae(shape)] },
    ];
  }

  /** What a picture from a picture needs besides. */
  encoderComponent(shape: { readonly height: number; readonly width: number } = this.#ownShape()): ComponentGraphs {
    return { component: "vae_encoder", storage: STORAGE[this.#precision].weights, graphs: [this.vaeEncoder(shape)] };
  }

  textComponents(): readonly ComponentGraphs[] {
    return this.#model.textEncoders.map(({ component }, i) => ({
      component,
      storage: "exact",
      graphs: [this.text(i)],
    }));
  }

  #ownShape(): UNetShape {
    const [height, width] = this.#model.unet.sampleSize;
    return { batch: 1, height, width, tokens: this.tokens };
  }
}
