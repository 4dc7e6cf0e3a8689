/**
 * The package's public face. Importing it does nothing (a server-side render may), and the engine itself is fetched
 * only by createEngine. Names follow diffusers in camelCase.
 */
import { pageMemory, persistStorage } from "./api/cache.ts";
import { throwIfAborted } from "./base/errors.ts";
import { importing } from "./base/offline.ts";
import { checkOptions, ENGINE_OPTIONS } from "./api/options.ts";
import { pageUrl } from "./api/pageUrl.ts";
import { modelAddress, modelUrl } from "./api/env.ts";
import { type Engine, engineOf } from "./engine.ts";
import type { EngineOptions } from "./base/types.ts";
import type { Pipeline } from "./pipeline.ts";
import { openAddress } from "./weights/cache/open.ts";
import { loadInWorker } from "./worker/client.ts";

export { MixdqError, type ErrorCode } from "./base/errors.ts";
export { GeneratedImage } from "./api/image.ts";
export type { Engine, StreamEvent } from "./engine.ts";
export { deleteModelInCache, hasModelInCache, listCachedModels, type CachedModel } from "./api/cache.ts";
export { env, type Env } from "./api/env.ts";
export { KNOWN_MODELS, type KnownModel, type KnownNeed } from "./api/knownModels.ts";
export { checkSupport, type Support, type SupportOptions, type SupportReason } from "./api/support.ts";
export type * from "./base/types.ts";

/**
 * Loads a model and returns an engine that makes pictures with it. Throws MixdqError: `invalid-input` for an unknown or
 * unfit option, `network`, `integrity` and `invalid-model` for the model's files, `unsupported`, `out-of-memory` and
 * `device-lost` for the machine, `aborted` for the signal; whatever it throws, nothing of the engine is left.
 */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  checkOptions("createEngine", options, ENGINE_OPTIONS);
  const { model, precision, backend = "webgpu", cache, stallMs, debug = 0, onProgress, signal } = options;
  throwIfAborted(signal);
  const config = options.config === undefined ? undefined : modelUrl(options.config).replace(/\/$/, "");
  const ortUrl = options.ortUrl === undefined ? undefined : pageUrl("ortUrl", options.ortUrl);
  const workerUrl = options.workerUrl === undefined ? undefined : pageUrl("workerUrl", options.workerUrl);
  const request = { model: modelAddress(model), precision, config, backend, ortUrl, cache, stallMs, debug };

  const inWorker = options.worker ?? typeof Worker !== "undefined";
  const page = { memory: pageMemory(), persist: persistStorage };
  const load = async (): Promise<Pipeline> => {
    if (inWorker) return loadInWorker({ ...request, workerUrl }, { onProgress, signal, page });
    const { loadPipeline } = await importing(import("./pipeline.ts"), "The engine");
    const { model: address, ...rest } = request;
    const files = await openAddress(address, { cache, stallMs, ...page });
    return loadPipeline({ ...rest, files, onProgress, signal });
  };
  return engineOf(load, signal);
}
