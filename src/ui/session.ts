/** The page's engine: created at the first picture, kept while the settings that shape it stay the same. */
import { type Engine, type GeneratedImage, createEngine } from "../index.ts";
import { MixdqError } from "../errors.ts";
import type { EngineInfo, LoadProgress, StepEvent } from "../types.ts";
import type { Settings } from "./settings.ts";

interface Hooks {
  signal: AbortSignal;
  onProgress: (progress: LoadProgress) => void;
  onReady: (info: EngineInfo) => void;
  onStep: (event: StepEvent) => void;
}

export class Session {
  #engine: Engine | undefined;
  #key = "";

  async picture(settings: Settings, hooks: Hooks): Promise<GeneratedImage> {
    const engine = await this.#engineFor(settings, hooks);
    hooks.onReady(engine.info);
    try {
      return await engine.generate({
        prompt: settings.prompt,
        negativePrompt: settings.negative || undefined,
        seed: settings.seed,
        numInferenceSteps: settings.steps,
        guidanceScale: settings.guidance,
        width: settings.width,
        height: settings.height,
        signal: hooks.signal,
        onStep: hooks.onStep,
      });
    } catch (error) {
      // A lost device never comes back: the next picture starts with a new engine.
      if (error instanceof MixdqError && (error.code === "device-lost" || error.code === "out-of-memory")) {
        await this.dispose();
      }
      throw error;
    }
  }

  async dispose(): Promise<void> {
    const engine = this.#engine;
    this.#engine = undefined;
    await engine?.dispose();
  }

  async #engineFor({ model, precision, backend, debug }: Settings, hooks: Hooks): Promise<Engine> {
    const key = JSON.stringify([model, precision, backend, debug]);
    if (this.#engine && this.#key === key) return this.#engine;
    await this.dispose(); // two models at once may not fit
    this.#engine = await createEngine({
      model,
      precision,
      backend,
      debug,
      onProgress: hooks.onProgress,
      signal: hooks.signal,
    });
    this.#key = key;
    return this.#engine;
  }
}
