/** The page's engines: created at the first picture, kept while the settings that shape them stay the same. */
import { type Engine, type GeneratedImage, createEngine } from "../index.ts";
import { MixdqError } from "../base/errors.ts";
import type { EngineInfo, LoadProgress, StepEvent } from "../base/types.ts";
import { isQuantized, type Settings } from "./settings.ts";

export interface Hooks {
  signal: AbortSignal;
  onProgress: (progress: LoadProgress) => void;
  onReady: (info: EngineInfo) => void;
  onStep: (event: StepEvent) => void;
}

/**
 * The most GPU bytes that an engine may hold to be kept while a second one loads. WebGPU tells neither how much memory
 * there is nor how much is left, and past its end some systems swap for minutes instead of failing: so only what any
 * adapter can spare. Larger models take turns.
 */
const KEEP_BYTES = 1e9;

interface Loaded {
  readonly engine: Engine;
  /** Weights, and once a picture is made what that took besides. */
  bytes: number;
}

export class Session {
  readonly #loaded = new Map<string, Loaded>();
  /** Two engines together have run out of memory before. */
  #oneAtATime = false;

  has(settings: Settings): boolean {
    return this.#loaded.has(keyOf(settings));
  }

  /**
   * One picture. The engine for `companion` may stay beside this picture's; all others go first. Out of memory with a
   * companion: once more without. Throws as `createEngine` and `generate`.
   */
  async picture(settings: Settings, hooks: Hooks, companion?: Settings): Promise<GeneratedImage> {
    try {
      return await this.#picture(settings, hooks, companion);
    } catch (error) {
      if (!(error instanceof MixdqError)) throw error;
      if (error.code !== "device-lost" && error.code !== "out-of-memory") throw error;
      const hadCompany = [...this.#loaded.keys()].some((key) => key !== keyOf(settings));
      // An engine that found no memory makes a smaller picture; a lost one makes none.
      if (error.code === "out-of-memory" && !hadCompany) throw error;
      await this.dispose();
      if (error.code === "device-lost") throw error;
      this.#oneAtATime = true;
      return this.#picture(settings, hooks);
    }
  }

  async dispose(): Promise<void> {
    await this.#keepOnly(() => false);
  }

  async #picture(settings: Settings, hooks: Hooks, companion?: Settings): Promise<GeneratedImage> {
    const loaded = await this.#load(settings, hooks, companion);
    hooks.onReady(loaded.engine.info);
    const image = await loaded.engine.generate({
      prompt: settings.prompt,
      negativePrompt: settings.negative || undefined,
      seed: settings.seed,
      numInferenceSteps: settings.steps,
      scheduler: settings.scheduler || undefined,
      timesteps: settings.timesteps === "" ? undefined : settings.timesteps.split(",").map(Number),
      eta: settings.eta,
      guidanceScale: settings.guidance,
      guidanceRescale: settings.rescale,
      width: settings.width,
      height: settings.height,
      signal: hooks.signal,
      onStep: hooks.onStep,
    });
    loaded.bytes = image.stats.weightBytes + image.stats.activationBytes;
    return image;
  }

  async #load(settings: Settings, { onProgress, signal }: Hooks, companion?: Settings): Promise<Loaded> {
    const key = keyOf(settings);
    const beside = companion && !this.#oneAtATime ? keyOf(companion) : undefined;
    await this.#keepOnly((each, { bytes }) => each === key || (each === beside && bytes <= KEEP_BYTES));
    const known = this.#loaded.get(key);
    if (known) return known;
    const { model, precision, backend, debug } = settings;
    const config = configOf(settings);
    const engine = await createEngine({ model, precision, config, backend, debug, onProgress, signal });
    const loaded = { engine, bytes: engine.info.weightBytes };
    this.#loaded.set(key, loaded);
    return loaded;
  }

  async #keepOnly(keep: (key: string, loaded: Loaded) => boolean): Promise<void> {
    for (const [key, loaded] of [...this.#loaded]) {
      if (keep(key, loaded)) continue;
      this.#loaded.delete(key);
      await loaded.engine.dispose();
    }
  }
}

/** With fp16 a configuration would put that side's layers into integers, too. */
function configOf({ precision, config }: Settings): string | undefined {
  return isQuantized(precision) && config !== "" ? config : undefined;
}

function keyOf(settings: Settings): string {
  const { model, precision, backend, debug } = settings;
  return JSON.stringify([model, precision, configOf(settings), backend, debug]);
}
