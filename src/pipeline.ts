/**
 * The story, once, top to bottom: prompt -> tokens -> text embeddings -> latents -> image.
 * Everything else in this package serves a line of `generate`.
 */
import { createRuntime } from "./runtime/backend.ts";
import type { Component, Runtime, RuntimeOptions } from "./runtime/runtime.ts";
import { debug, setDebug } from "./base/debug.ts";
import { createGenerator } from "./diffusion/noise.ts";
import { MixdqError, throwIfAborted } from "./base/errors.ts";
import { readModel, type ModelDescription } from "./model/model.ts";
import { decodeLatents, denoise, encodePrompt, type Conditioning, type Stages } from "./model/stages.ts";
import { loadStages } from "./model/loading.ts";
import { assertFinite, toRgba } from "./model/output.ts";
import { chooseQuantization } from "./model/quantization.ts";
import { checkRequest, type GenerateRequest } from "./model/request.ts";
import type { MixdqConfig } from "./quant/config.ts";
import type { Backend, EngineInfo, LoadProgress, Precision, RawImage, StepEvent } from "./base/types.ts";
import type { ModelFiles } from "./weights/files.ts";
import { openPack } from "./weights/pack.ts";

export interface PipelineOptions extends Partial<Pick<RuntimeOptions, "shaderF16" | "kernels" | "share">> {
  readonly files: ModelFiles;
  /** Default: fp16, of a pack what it was made for. */
  readonly precision?: Precision | undefined;
  /**
   * Which layers of the UNet run in integers, or the address of the file that says so. Default: the model's own for w8a8
   * and w4a8, else none.
   */
  readonly config?: MixdqConfig | string | undefined;
  /** Default: webgpu. */
  readonly backend?: Backend;
  /** Default: navigator.gpu. */
  readonly gpu?: GPU;
  readonly onProgress?: (progress: LoadProgress) => void;
  readonly signal?: AbortSignal;
  /** The dial of src/base/debug.ts. */
  readonly debug?: number;
}

/** What a run computed on its way, NCHW, for those who want to look (`mixdq generate --dump`). */
export interface Intermediates {
  /** The start noise, unit variance. */
  readonly latents: Float32Array;
  /** [1, tokens, channels]. */
  readonly promptEmbeds: Float32Array;
  readonly tokens: number;
  /** [1, channels], where the model has it. */
  readonly pooled: Float32Array | undefined;
  /** The UNet's output of the first step, before guidance. */
  readonly unetOut: Float32Array;
  readonly finalLatents: Float32Array;
  /** The VAE's output before clamping, nominally -1..1. */
  readonly image: Float32Array;
}

export interface GenerateHooks {
  readonly signal?: AbortSignal | undefined;
  readonly onStep?: ((event: StepEvent) => void) | undefined;
  /** Start noise of unit variance instead of the seed's, NCHW; the seed then makes only the noise between steps. */
  readonly latents?: Float32Array | undefined;
  readonly onIntermediates?: ((values: Intermediates) => void) | undefined;
}

/** A loaded model, ready to make pictures; the worker's client looks the same from outside. */
export interface Pipeline {
  readonly info: EngineInfo;
  /**
   * One picture. Throws `invalid-input` (size, steps, seed), `busy` while another runs, `aborted`, `out-of-memory`,
   * `device-lost`, and `invalid-output` when the model gave NaN or infinity.
   */
  generate(request: GenerateRequest, hooks?: GenerateHooks): Promise<RawImage>;
  dispose(): Promise<void>;
}

export async function loadPipeline(options: PipelineOptions): Promise<Pipeline> {
  const { backend = "webgpu", signal, onProgress } = options;
  if (options.debug !== undefined) setDebug(options.debug);
  throwIfAborted(signal);
  onProgress?.({ status: "config", loadedBytes: 0, totalBytes: 0, progress: 0 });
  const pack = await openPack(options.files, signal);
  const { files } = pack ?? options;
  const model = await readModel(files, signal);
  const { precision, config } = await chooseQuantization(files, pack, options, signal);
  throwIfAborted(signal);
  if (config && backend !== "webgpu")
    throw new MixdqError(
      "unsupported",
      `The backend "${backend}" has no integer kernels. Use the backend "webgpu", or --precision fp16 without a configuration.`,
    );
  const gpu = options.gpu ?? (globalThis.navigator as Navigator | undefined)?.gpu;
  const runtime = await createRuntime({ ...options, backend, gpu });
  try {
    const components = await loadStages(model, runtime, { files, pack, precision, config, signal, onProgress });
    return new ModelPipeline(model, precision, runtime, components);
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

class ModelPipeline implements Pipeline {
  readonly info: EngineInfo;
  readonly #model: ModelDescription;
  readonly #runtime: Runtime;
  readonly #stages: Stages;
  readonly #components: readonly Component[];
  #running = false;
  /** The text of the last run: the same prompt with another seed needs no encoding, nor keys and values, again. */
  #text: EncodedText | undefined;

  constructor(model: ModelDescription, precision: Precision, runtime: Runtime, { stages, components }: Loaded) {
    this.#model = model;
    this.#runtime = runtime;
    this.#stages = stages;
    this.#components = components;
    this.info = {
      model: model.location,
      precision,
      backend: runtime.backend,
      adapter: runtime.adapter,
      features: runtime.features,
      defaultWidth: model.defaultWidth,
      defaultHeight: model.defaultHeight,
      defaultSteps: model.defaultSteps,
      latentChannels: model.unet.inChannels,
      vaeScale: model.vae.scale,
      weightBytes: components.reduce((sum, { weightBytes }) => sum + weightBytes, 0),
    };
  }

  async generate(request: GenerateRequest, hooks: GenerateHooks = {}): Promise<RawImage> {
    const settings = checkRequest(request, this.#model);
    const { prompt, negativePrompt, seed, steps, guidanceScale, width, height } = settings;
    const { signal, onStep } = hooks;
    if (this.#running)
      throw new MixdqError("busy", "A picture is being made already. Wait for it, or cancel it with its signal.");
    this.#running = true;
    try {
      const started = performance.now();
      throwIfAborted(signal);

      const isGuided = guidanceScale > 1 && this.#model.unet.timeCondProjDim === undefined;
      const { scale } = this.#model.vae;
      const shape = { channels: this.#model.unet.inChannels, height: height / scale, width: width / scale };
      const tokens = this.#model.textEncoders[0]!.tokenizer.length;
      this.#stages.prepare({ batch: isGuided ? 2 : 1, height: shape.height, width: shape.width, tokens });

      onStep?.({ type: "encode" });
      const { positive, negative, warnings } = await this.#encode(prompt, isGuided, negativePrompt, signal);
      const encoded = performance.now();

      const scheduler = this.#model.createScheduler(steps);
      const count = shape.channels * shape.height * shape.width;
      const noise = createGenerator(seed);
      const latents = hooks.latents ?? noise.randn(count);
      if (latents.length !== count)
        throw new MixdqError(
          "invalid-input",
          `The start latents have ${latents.length} values, ${width}x${height} pixels need [1, ${shape.channels}, ` +
            `${shape.height}, ${shape.width}] = ${count}.`,
        );
      const broken = latents.findIndex((value) => !Number.isFinite(value));
      if (broken >= 0)
        throw new MixdqError(
          "invalid-input",
          `The start latents hold ${latents[broken]} at ${broken}, expected finite numbers of unit variance. Make them again.`,
        );
      const { finalLatents, unetOut } = await denoise(this.#stages, {
        latents,
        shape,
        scheduler,
        conditioning: negative ? [negative, positive] : [positive],
        guidanceScale,
        pixels: { width, height },
        noise: () => noise.randn(count),
        onStep: (step) => onStep?.({ type: "step", step, steps }),
        signal,
      });
      assertFinite(finalLatents, "UNet", this.info.precision);
      const denoised = performance.now();

      onStep?.({ type: "decode" });
      const image = await decodeLatents(this.#stages, finalLatents, shape, signal);
      const finished = performance.now();
      throwIfAborted(signal);

      hooks.onIntermediates?.({
        latents,
        promptEmbeds: positive.hidden,
        tokens: positive.hidden.length / this.#model.unet.crossAttentionDim,
        pooled: positive.pooled,
        unetOut,
        finalLatents,
        image,
      });
      const stats = {
        encodeMs: encoded - started,
        unetMs: denoised - encoded,
        decodeMs: finished - denoised,
        totalMs: finished - started,
        steps,
        weightBytes: this.info.weightBytes,
        activationBytes:
          this.#runtime.activationBytes + this.#components.reduce((sum, { keptBytes }) => sum + keptBytes, 0),
      };
      debug(1, () => JSON.stringify(stats));
      return {
        width,
        height,
        data: toRgba(image, width, height, this.info.precision),
        seed,
        stats,
        warnings,
        parameters: {
          prompt,
          ...(isGuided && negativePrompt !== undefined && { negativePrompt }),
          seed: String(seed),
          steps: String(steps),
          guidanceScale: String(guidanceScale),
          width: String(width),
          height: String(height),
          scheduler: this.#model.schedulerName,
          model: this.#model.location,
          precision: this.info.precision,
          backend: this.info.backend,
        },
      };
    } finally {
      this.#running = false;
    }
  }

  async #encode(
    prompt: string,
    isGuided: boolean,
    negativePrompt: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<EncodedText> {
    const key = JSON.stringify([prompt, isGuided, negativePrompt]);
    if (this.#text?.key === key) return this.#text;
    const warnings: string[] = [];
    const options = { signal, warnings };
    const positive = await encodePrompt(this.#stages, prompt, options);
    const negative = !isGuided
      ? undefined
      : negativePrompt === undefined && this.#model.zerosForNoNegative
        ? zeros(positive)
        : await encodePrompt(this.#stages, negativePrompt ?? "", options);
    for (const part of negative ? [positive, negative] : [positive])
      for (const values of [part.hidden, part.pooled ?? []]) assertFinite(values, "text encoder", this.info.precision);
    return (this.#text = { key, positive, negative, warnings });
  }

  async dispose(): Promise<void> {
    for (const component of this.#components) await component.dispose();
    await this.#runtime.dispose();
  }
}

interface EncodedText {
  /** What was asked for. */
  readonly key: string;
  readonly positive: Conditioning;
  /** With guidance. */
  readonly negative: Conditioning | undefined;
  readonly warnings: readonly string[];
}

interface Loaded {
  readonly stages: Stages;
  readonly components: readonly Component[];
}

function zeros({ hidden, pooled }: Conditioning): Conditioning {
  return { hidden: new Float32Array(hidden.length), pooled: pooled && new Float32Array(pooled.length) };
}
