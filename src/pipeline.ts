/** The story, once, top to bottom: request -> text -> latents -> image. */
import { createRuntime } from "./runtime/backend.ts";
import type { RuntimeOptions } from "./runtime/network.ts";
import { setDebug } from "./base/debug.ts";
import { MixdqError, throwIfAborted } from "./base/errors.ts";
import { Queue } from "./base/queue.ts";
import { denoise, type Denoised } from "./model/denoise.ts";
import { readModel } from "./model/description.ts";
import { loadModel } from "./model/load.ts";
import type { LoadedModel } from "./model/loaded.ts";
import { describeEngine, finishImage } from "./model/output.ts";
import { chooseQuantization } from "./model/quantization.ts";
import { checkRequest, type GenerateRequest, type Settings } from "./model/request.ts";
import type { MixdqConfig } from "./quant/config.ts";
import type { Backend, EngineInfo, LoadProgress, Precision, RawImage, StepEvent } from "./base/types.ts";
import type { ModelFiles } from "./weights/files.ts";
import { openModel } from "./weights/pack.ts";

export interface PipelineOptions extends Partial<
  Pick<RuntimeOptions, "shaderF16" | "kernels" | "choices" | "share" | "ortUrl">
> {
  readonly files: ModelFiles;
  /** Default: fp16, of a pack what it was made for. */
  readonly precision?: Precision | undefined;
  /**
   * Which layers of the UNet run in integers, or the address of the file that says so. Default: the model's own for w8a8
   * and w4a8, else none.
   */
  readonly config?: MixdqConfig | string | undefined;
  /** Of the address in `config`: milliseconds of silence after which it is given up. */
  readonly stallMs?: number | undefined;
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
export interface Intermediates extends Denoised {
  /** The prompt's, [1, tokens, channels]. */
  readonly promptEmbeds: Float32Array;
  readonly tokens: number;
  /** [1, channels], where the model has it. */
  readonly pooled: Float32Array | undefined;
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
   * One picture. Throws `invalid-input` (size, steps, seed), `busy` while another runs that was not aborted, `aborted`,
   * `out-of-memory` (a smaller one may follow), `device-lost`, and `invalid-output` when the model gave NaN or infinity.
   */
  generate(request: GenerateRequest, hooks?: GenerateHooks): Promise<RawImage>;
  dispose(): Promise<void>;
}

/**
 * Loads a diffusers folder or a pack onto a backend. Throws `unsupported`, `invalid-input`, `invalid-model`, `integrity`,
 * `network`, `out-of-memory`, `device-lost`, `aborted`; nothing stays on the device then.
 */
export async function loadPipeline(options: PipelineOptions): Promise<Pipeline> {
  const { backend = "webgpu", signal, onProgress } = options;
  if (options.debug !== undefined) setDebug(options.debug);
  throwIfAborted(signal);
  onProgress?.({ status: "config", loadedBytes: 0, totalBytes: 0, progress: 0 });
  const { files, pack } = await openModel(options.files, signal);
  const description = await readModel(files, signal);
  const { precision, config } = await chooseQuantization(files, pack, options, signal);
  throwIfAborted(signal);
  if (config && backend !== "webgpu")
    throw new MixdqError(
      "unsupported",
      `The backend "${backend}" has no integer kernels. Use the backend "webgpu", or precision fp16 or fp32 without a bit-width configuration.`,
    );
  const gpu = options.gpu ?? (globalThis.navigator as Navigator | undefined)?.gpu;
  const runtime = await createRuntime({ ...options, backend, gpu });
  try {
    throwIfAborted(signal); // choosing the kernels takes a while
    return new ModelPipeline(
      await loadModel(description, runtime, { files, pack, precision, config, signal, onProgress }),
    );
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

class ModelPipeline implements Pipeline {
  readonly info: EngineInfo;
  readonly #model: LoadedModel;
  readonly #queue = new Queue();

  constructor(model: LoadedModel) {
    this.#model = model;
    this.info = describeEngine(model);
  }

  async generate(request: GenerateRequest, hooks: GenerateHooks = {}): Promise<RawImage> {
    const settings = checkRequest(request, this.#model.description);
    return this.#queue.run(() => this.#generate(settings, hooks), hooks.signal);
  }

  async #generate(settings: Settings, { signal, onStep, latents, onIntermediates }: GenerateHooks): Promise<RawImage> {
    const model = this.#model;
    const times = [performance.now()];
    throwIfAborted(signal);
    // Before the clock of the stages: what a driver takes to compile says nothing about the next picture.
    await model.prepare(settings, signal);
    times.push(performance.now());

    onStep?.({ type: "encode" });
    const text = await model.encode(settings, signal);
    times.push(performance.now());

    const denoised = await denoise(model, text, settings, {
      latents,
      onStep: (step, steps) => onStep?.({ type: "step", step, steps }),
      signal,
    });
    times.push(performance.now());

    onStep?.({ type: "decode" });
    const image = await model.vae.decode(denoised.finalLatents, model.latentShape(settings), signal);
    times.push(performance.now());
    throwIfAborted(signal);

    const { hidden, pooled } = text.positive;
    onIntermediates?.({ ...denoised, promptEmbeds: hidden, tokens: model.graphs.tokens, pooled, image });
    return finishImage(model, settings, image, { warnings: text.warnings, times });
  }

  async dispose(): Promise<void> {
    await this.#queue.idle();
    await this.#model.dispose();
  }
}
