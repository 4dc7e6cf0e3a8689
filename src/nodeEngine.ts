/**
 * `import { createEngine } from "mixdq-web/node"`: the same engine in Node, on the `webgpu` package (Dawn), or on
 * onnxruntime-web where it is installed. Importing this file does nothing.
 */
import { MAX_PICTURE_BYTES } from "./api/inputImage.ts";
import { checkOptions, ENGINE_OPTIONS, TEXT, type OptionTypes } from "./api/options.ts";
import { throwIfAborted } from "./base/errors.ts";
import type { EngineOptions } from "./base/types.ts";
import { type Engine, engineOf } from "./engine.ts";
import { parseMixdqConfig } from "./quant/config.ts";
import { requestNodeGpu } from "./node/adapter.ts";
import type { AdapterChoice } from "./node/adapterChoice.ts";
import { diskFiles } from "./node/diskFiles.ts";
import { readBytes, readText } from "./node/inputFiles.ts";
import { loadPipeline, type Pipeline } from "./pipeline.ts";
import { httpFiles } from "./weights/http.ts";

export { MixdqError, type ErrorCode } from "./base/errors.ts";
export { GeneratedImage } from "./api/image.ts";
export type { AdapterChoice } from "./node/adapterChoice.ts";
export type { Engine, StreamEvent } from "./engine.ts";
export type * from "./base/types.ts";

/** What `createEngine` takes in Node: paths besides addresses, and the choice of an adapter. */
export interface NodeEngineOptions extends Omit<EngineOptions, "worker" | "workerUrl" | "ortUrl"> {
  /** A folder on disk, or an http(s) URL, of a diffusers model or a pack. */
  model: string;
  /** Path of a bit-width configuration, or its http(s) URL. */
  config?: string;
  /** Default: a real GPU, else a software adapter of this machine. */
  adapter?: AdapterChoice;
}

const { worker: _worker, workerUrl: _workerUrl, ortUrl: _ortUrl, ...SHARED_OPTIONS } = ENGINE_OPTIONS;
const NODE_OPTIONS: OptionTypes<NodeEngineOptions> = { ...SHARED_OPTIONS, adapter: TEXT };

/**
 * Loads a model on the calling thread. Throws what createEngine of "mixdq-web" throws, and `unsupported` with the command
 * that helps where the `webgpu` package or a graphics driver is missing.
 */
export async function createEngine(options: NodeEngineOptions): Promise<Engine> {
  checkOptions("createEngine", options, NODE_OPTIONS);
  const { model, adapter, config, backend = "webgpu", stallMs, signal, ...rest } = options;
  throwIfAborted(signal);
  const load = async (): Promise<Pipeline> => {
    const files = isHttp(model)
      ? httpFiles(model, { ...(stallMs !== undefined && { stallMs }) })
      : await diskFiles(model);
    const gpu = backend === "ort-wasm" ? undefined : await requestNodeGpu(adapter);
    return loadPipeline({
      ...rest,
      files,
      backend,
      config: config === undefined || isHttp(config) ? config : parseMixdqConfig(await readText(config), config),
      ...(gpu && { gpu }),
      ...(signal && { signal }),
    });
  };
  return engineOf(load, signal, (path, name) => readBytes(path, { flag: name, most: MAX_PICTURE_BYTES }));
}

const isHttp = (address: string): boolean => /^https?:\/\//.test(address);
