/** Loads a model's parts onto a runtime: weights stream in one after the other while pipelines compile. */
import { debug, debugLevel, describeValues } from "../base/debug.ts";
import {
  quantizedStorage,
  STORAGE,
  type Component,
  type LoadOptions,
  type Runtime,
  type RunOptions,
} from "../runtime/runtime.ts";
import { buildUNet, type UNetShape } from "../diffusion/unet.ts";
import { buildVaeDecoder } from "../diffusion/vae.ts";
import { elementCount, type Graph } from "../graph/ops.ts";
import { summarize } from "../gpu/profiler.ts";
import { quantizeGraph } from "../graph/quantize.ts";
import type { ModelDescription, TextEncoderDescription } from "./model.ts";
import type { MixdqConfig } from "../quant/config.ts";
import { bosOfPack, checkFirstTokens } from "./quantization.ts";
import { encodePrompt, type Stages } from "./stages.ts";
import { buildTextEncoder } from "../text/encoder.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { LoadProgress, Precision } from "../base/types.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findComponent } from "../weights/folder.ts";
import type { Pack } from "../weights/pack.ts";

export interface StageOptions {
  readonly files: ModelFiles;
  readonly precision: Precision;
  /** Which layers of the UNet run in integers. */
  readonly config?: MixdqConfig | undefined;
  /** Where the weights come from instead of the files. */
  readonly pack?: Pack | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined;
}

/** A component: how its weights are stored, and the graph over them for one size. */
export interface Part extends Pick<LoadOptions, "component" | "storage" | "key"> {
  build(): Graph;
}

/** Storage of activations. Text encoders run once a prompt and their outliers are large: always f32, weights exact. */
const TEXT_TYPE = "f32";

/** What of a model's description its graphs are made from. */
export interface DescribedModel extends Pick<ModelDescription, "unet" | "vae" | "textState"> {
  readonly textEncoders: readonly (Omit<TextEncoderDescription, "tokenizer"> & {
    readonly tokenizer: Pick<Tokenizer, "length">;
  })[];
}

/** A model's parts in the order in which they are loaded. */
export function describeParts(model: DescribedModel, precision: Precision, config: MixdqConfig | undefined) {
  const { weights: storage, activations } = STORAGE[precision];
  const { activations: unetType } = config ? quantizedStorage(precision) : STORAGE[precision];
  const vaeType = model.vae.forceUpcast ? "f32" : activations;
  const text = model.textEncoders.map((encoder): Part => {
    const { component, config, projects } = encoder;
    const build = (): Graph => buildTextEncoder(config, { batch: 1, state: model.textState, projects }, TEXT_TYPE);
    return { component, storage: "exact", key: "1", build };
  });
  const unetGraph = (shape: UNetShape) => ({
    key: Object.values(shape).join("x"),
    build: (): Graph => {
      const graph = buildUNet(model.unet, shape, "unet", unetType);
      return config ? quantizeGraph(graph, config) : graph;
    },
  });
  const vaeGraph = (height: number, width: number) => ({
    key: `${height}x${width}`,
    build: (): Graph => buildVaeDecoder(model.vae, { batch: 1, height, width }, vaeType),
  });
  const [height, width] = model.unet.sampleSize;
  const tokens = model.textEncoders[0]!.tokenizer.length;
  const parts: readonly Part[] = [
    ...text,
    { component: "unet", storage, ...unetGraph({ batch: 1, height, width, tokens }) },
    { component: "vae", storage, ...vaeGraph(height, width) },
  ];
  return { text, unetGraph, vaeGraph, parts };
}

/** The text encoders alone, for what they make of the BOS token: what a BOS cache is computed from, [channels]. */
export async function loadFirstToken(
  model: ModelDescription,
  runtime: Runtime,
  { files, precision, signal }: StageOptions,
): Promise<Float32Array> {
  const { text } = describeParts(model, precision, undefined);
  const components: Component[] = [];
  try {
    for (const part of text) {
      const weights = await findComponent(files, part.component, { precision, signal });
      components.push(await runtime.load({ ...part, weights, signal }));
    }
    return await firstToken({ model, encode: encoderOf(text, components) }, signal);
  } finally {
    for (const component of components) await component.dispose();
  }
}

export async function loadStages(
  model: ModelDescription,
  runtime: Runtime,
  { files, pack, precision, config, signal, onProgress }: StageOptions,
): Promise<{ stages: Stages; components: readonly Component[] }> {
  const { text, unetGraph, vaeGraph, parts } = describeParts(model, precision, config);

  // Found for all parts before the first is read: a part without weights must not cost the download of the others.
  const weights = await Promise.all(
    parts.map(({ component }) => pack?.component(component) ?? findComponent(files, component, { precision, signal })),
  );
  const parameters = ({ build }: Part): number =>
    build().weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const progress = new Progress(
    weights.map(({ bytes }, i) => bytes || 2 * parameters(parts[i]!)),
    onProgress,
  );
  const components: Component[] = [];
  const encode = encoderOf(text, components);
  // A pack says what its cache was computed from; here it only has to be the same.
  let bos = pack && bosOfPack(pack, config, model.unet.crossAttentionDim);
  try {
    for (const [i, part] of parts.entries()) {
      // The text encoders are there by now: what they make of the first token is the same for every prompt.
      if (part.component === "unet" && config?.bos) bos ??= [await firstToken({ model, encode }, signal)];
      const onBytes: LoadOptions["onBytes"] = (loaded, file) => progress.report(i, loaded, file);
      components.push(await runtime.load({ ...part, weights: weights[i]!, bos, signal, onBytes }));
    }
  } catch (error) {
    for (const component of components) await component.dispose();
    throw error;
  }
  progress.finish();

  const [unet, vae] = components.slice(-2) as [Component, Component];
  return {
    components,
    stages: {
      model,
      prepare: (shape) => {
        const [net, decoder] = [unetGraph(shape), vaeGraph(shape.height, shape.width)];
        unet.prepare(net.key, net.build);
        vae.prepare(decoder.key, decoder.build);
      },
      encode,
      unet: async (shape, inputs, options) => {
        const { key, build } = unetGraph(shape);
        if (bos) checkFirstTokens(inputs["encoder_hidden_states"] as Float32Array, shape.batch, bos);
        return watched("unet", options, (o) => unet.run(key, build, inputs, o));
      },
      decode: (shape, latents, options) => {
        const { key, build } = vaeGraph(shape.height, shape.width);
        return watched("vae", options, (o) => vae.run(key, build, { latents }, o));
      },
    },
  };
}

const encoderOf =
  (text: readonly Part[], components: readonly Component[]): Stages["encode"] =>
  (i, ids, eos, options) =>
    watched(text[i]!.component, options, (o) =>
      components[i]!.run(text[i]!.key, text[i]!.build, { ids, ...(eos && { eos }) }, o),
    );

async function firstToken(stages: Pick<Stages, "model" | "encode">, signal?: AbortSignal): Promise<Float32Array> {
  const { hidden } = await encodePrompt(stages, "", { signal, warnings: [] });
  return hidden.slice(0, stages.model.unet.crossAttentionDim);
}

/** Adds what the debug dial asks for: times by kernel from level 2, every tensor's values from level 3. */
async function watched<T>(name: string, options: RunOptions, run: (options: RunOptions) => Promise<T>): Promise<T> {
  const level = debugLevel();
  // Somebody who reads the tensors already goes before the dial.
  if (options.onTensor) return run(options);
  if (level >= 3)
    return run({
      ...options,
      onTensor: (path, _, values) => debug(3, () => describeValues(`${name} ${path}`, values)),
    });
  if (level < 2) return run(options);
  return run({
    ...options,
    onProfile: (rows) =>
      debug(2, () =>
        summarize(rows, ({ shader }) => shader)
          .map(
            ({ key, count, ms, work }) =>
              `${name.padEnd(16)} ${key.padEnd(20)} ${String(count).padStart(5)} x ${ms.toFixed(2).padStart(9)} ms ` +
              `${(work / ms / 1e6).toFixed(2).padStart(9)} G/s`,
          )
          .join("\n"),
      ),
  });
}

/** Bytes over all parts: what their files say, or two bytes a parameter where a server does not tell. */
class Progress {
  readonly #loaded: number[];
  readonly #totals: number[];
  readonly #onProgress: StageOptions["onProgress"];

  constructor(estimates: readonly number[], onProgress: StageOptions["onProgress"]) {
    this.#totals = [...estimates];
    this.#loaded = estimates.map(() => 0);
    this.#onProgress = onProgress;
  }

  report(part: number, loaded: number, file: string): void {
    this.#loaded[part] = loaded;
    this.#totals[part] = Math.max(this.#totals[part]!, loaded);
    const [loadedBytes, totalBytes] = this.#sums();
    const progress = Math.min(99, (100 * loadedBytes) / totalBytes);
    this.#onProgress?.({ status: "download", file, loadedBytes, totalBytes, progress });
  }

  finish(): void {
    const [loadedBytes] = this.#sums();
    this.#onProgress?.({ status: "ready", loadedBytes, totalBytes: loadedBytes, progress: 100 });
  }

  #sums(): [number, number] {
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
    return [sum(this.#loaded), sum(this.#totals)];
  }
}
