/**
 * The package's public face. Importing it does nothing (a server-side render may), and the engine itself is fetched
 * only by createEngine. Names follow diffusers in camelCase.
 */
import { throwIfAborted } from "./base/errors.ts";
import { importing } from "./base/offline.ts";
import { checkOptions, ENGINE_OPTIONS } from "./api/options.ts";
import { pageUrl } from "./api/pageUrl.ts";
import { modelUrl } from "./api/support.ts";
import { httpModel } from "./checkpoint/http.ts";
import { type Engine, engineOf } from "./engine.ts";
import type { EngineOptions } from "./base/types.ts";
import type { Pipeline } from "./pipeline.ts";
import { loadInWorker } from "./worker/client.ts";

export { MixdqError, type ErrorCode } from "./base/errors.ts";
export { GeneratedImage } from "./api/image.ts";
export type { Engine, StreamEvent } from "./engine.ts";
export { checkSupport, type Support, type SupportOptions, type SupportReason } from "./api/support.ts";
export type * from "./base/types.ts";

/**
 * Loads a model and returns an engine that makes pictures with it. Throws MixdqError: `invalid-input` for an unknown or
 * unfit option, `network`, `integrity` and `invalid-model` for the model's files, `unsupported`, `out-of-memory` and
 * `device-lost` for the machine, `aborted` for the signal; whatever it throws, nothing of the engine is left.
 */
export async function createEngine(options: EngineOptions): Promise<Engine> {
  checkOptions("createEngine", options, ENGINE_OPTIONS);
  const { model, precision, backend = "webgpu", stallMs, debug = 0, onProgress, signal } = options;
  throwIfAborted(signal);
  const config = options.config === undefined ? undefined : modelUrl(options.config).replace(/\/$/, "");
  const ortUrl = options.ortUrl === undefined ? undefined : pageUrl("ortUrl", options.ortUrl);
  const workerUrl = options.workerUrl === undefined ? undefined : pageUrl("workerUrl", options.workerUrl);
  const partUrl = (name: "vae" | "textEncoder" | "configFrom"): string | undefined =>
    options[name] === undefined ? undefined : pageUrl(name, options[name]);
  const parts = {
    variant: options.variant,
    predictionType: options.predictionType,
    vae: partUrl("vae"),
    textEncoder: partUrl("textEncoder"),
    configFrom: partUrl("configFrom"),
  };
  const request = { model: modelUrl(model), parts, precision, config, backend, ortUrl, stallMs, debug };

  const inWorker = options.worker ?? typeof Worker !== "undefined";
  const load = async (): Promise<Pipeline> => {
    if (inWorker) return loadInWorker({ ...request, workerUrl }, { onProgress, signal });
    const { loadPipeline } = await importing(import("./pipeline.ts"), "The engine");
    const { model: url, parts, ...rest } = request;
    return loadPipeline({ ...rest, files: await httpModel(url, parts, rest, signal), onProgress, signal });
  };
  return engineOf(load, signal);
}
