/**
 * Runs a graph on onnxruntime-web: where WebGPU is missing, as a baseline, and as a second opinion.
 *
 * The only file that imports onnxruntime-web, and only when a runner is created: 14 MB of WebAssembly for the CPU,
 * 27 MB for the build that also has WebGPU kernels. Nothing has to be copied or configured; one thread, unless the page
 * is cross-origin isolated.
 */
import type * as Ort from "onnxruntime-web";
import { MixdqError } from "../base/errors.ts";
import type { ErrorCode } from "../base/errors.ts";
import { importOptional } from "../base/optional.ts";
import { elementCount } from "../graph/ops.ts";
import type { Graph } from "../graph/ops.ts";
import type { WeightSource } from "./model.ts";
import { graphToOnnx } from "./onnx.ts";
import type { Port } from "./onnx.ts";
import { attentionIsCorrect } from "./probe.ts";

export type Arrays = Record<string, Float32Array | Uint32Array>;

export interface OrtRunner {
  /** Inputs under the graph's names, channels-last; the outputs likewise. Throws `invalid-input`, `invalid-output`. */
  run(inputs: Readonly<Arrays>): Promise<Record<string, Float32Array>>;
  release(): Promise<void>;
}

export interface OrtOptions {
  readonly provider: "webgpu" | "wasm";
  /** How weights and activations are stored. Default: f32. */
  readonly float?: "f32" | "f16";
  /** The device to share; ONNX Runtime makes its own otherwise. It uses the first one it is given for good. */
  readonly device?: GPUDevice;
  /** Where its modules lie (its `dist`), as an absolute URL. Default: where the bundler or Node finds the package. */
  readonly folder?: string | undefined;
  /** The layout of ONNX Runtime's WebGPU convolutions. Default: its own, NHWC. */
  readonly convLayout?: "NHWC" | "NCHW";
  /** For comparisons: whether attention is one operator. Default: true where ONNX Runtime computes it correctly. */
  readonly fusedAttention?: boolean;
  /** ONNX Runtime's log: 0 verbose (which node runs where) .. 4 fatal. Default: 3. */
  readonly logLevel?: 0 | 1 | 2 | 3 | 4;
}

/**
 * WebAssembly addresses 4 GiB, which hold the weights, the activations and, while kernels reorder their weights, some
 * of them twice. On WebGPU the weights go to the GPU one by one and the limit is the device's.
 */
const WASM_WEIGHT_BYTES = 3 * 2 ** 30;

/**
 * ONNX Runtime keeps one global table of external data, emptied after each load, and its WebGPU build can be suspended
 * in one call at a time: everything waits for its turn, whichever runner it belongs to.
 */
let last: Promise<unknown> = Promise.resolve();

export function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const turn = last.then(work, work);
  last = turn;
  return turn;
}

/** Throws `unsupported` where the graph cannot run there, `out-of-memory`, `invalid-model`. */
export async function createOrtRunner(graph: Graph, weights: WeightSource, options: OrtOptions): Promise<OrtRunner> {
  const where = `${graph.name} on onnxruntime-web (${options.provider}, ${options.float ?? "f32"})`;
  const { ort, session, inputs, outputs } = await open(graph, weights, options, where);
  return {
    async run(arrays) {
      const feeds: Record<string, Ort.Tensor> = {};
      for (const port of inputs) feeds[port.name] = inputTensor(ort, where, port, arrays[port.key]);
      const results = await inTurn(() => session.run(feeds)).catch((error: unknown) => {
        throw translated(error, `${where}: the run failed`);
      });
      return Object.fromEntries(outputs.map((port) => [port.key, outputData(where, port, results[port.name])]));
    },
    async release() {
      await inTurn(() => session.release());
    },
  };
}

/** A function of its own, so that nothing that lives on keeps the weights alive. */
async function open(graph: Graph, weights: WeightSource, options: OrtOptions, where: string) {
  const { provider, float = "f32", device, convLayout, logLevel = 3 } = options;
  const ort = await loadOrt(provider, logLevel, options.folder);
  const fusedAttention = options.fusedAttention ?? (await mayFuseAttention(graph, options));
  const onnx = graphToOnnx(graph, weights, { float, fusedAttention });
  checkSize(where, onnx.externalBytes, options);
  const webgpu = { name: "webgpu", ...(device && { device }), ...(convLayout && { preferredLayout: convLayout }) };
  const create = async () => {
    const session = await ort.InferenceSession.create(onnx.model, {
      executionProviders: [provider === "webgpu" ? webgpu : "wasm"],
      externalData: [...onnx.externalData],
      graphOptimizationLevel: "all",
      logSeverityLevel: logLevel,
    });
    if (provider === "webgpu" && float === "f16") checkHalf(where, device ?? (await ort.env.webgpu.device));
    return session;
  };
  const session = await inTurn(create).catch((error: unknown) => {
    throw translated(error, `${where}: the graph could not be loaded`);
  });
  return { ort, session, inputs: onnx.inputs, outputs: onnx.outputs };
}

/** The plain build is three times as fast on the CPU as the one that can also drive a GPU. */
export async function loadOrt(
  provider: OrtOptions["provider"],
  logLevel: number,
  folder?: string,
): Promise<typeof Ort> {
  const ort = await importOrt(provider, folder);
  // Read once, when the first session is made. Without isolation there is no shared memory and so no threads.
  const isolated = globalThis.crossOriginIsolated === true;
  ort.env.wasm.numThreads = isolated ? Math.max(1, Math.min(8, (navigator.hardwareConcurrency ?? 2) >> 1)) : 1;
  ort.env.logLevel = logLevel === 0 ? "verbose" : "error";
  return ort;
}

async function importOrt(provider: OrtOptions["provider"], folder: string | undefined): Promise<typeof Ort> {
  if (folder === undefined) {
    const load = () => (provider === "webgpu" ? import("onnxruntime-web/webgpu") : import("onnxruntime-web/wasm"));
    const instead = "in a browser, serve that package's folder dist and name its address with ortUrl";
    return importOptional<typeof Ort>(load, "onnxruntime-web", `The backend ort-${provider}`, instead);
  }
  const address = `${folder.replace(/\/$/, "")}/ort.${provider}.bundle.min.mjs`;
  try {
    return await import(/* @vite-ignore */ /* webpackIgnore: true */ /* turbopackIgnore: true */ address);
  } catch (error) {
    throw translated(error, `ortUrl: ${address} could not be loaded`, "network");
  }
}

/** ONNX Runtime itself would fail in the middle of the first run. */
function checkHalf(where: string, device: GPUDevice): void {
  if (device.features.has("shader-f16")) return;
  throw new MixdqError(
    "unsupported",
    `${where}: got a GPU without the shader-f16 feature, which it needs for 16-bit weights. ` +
      `Use precision fp32, or the webgpu backend, which reads them without it.`,
  );
}

/** What the attention probe said, by device (or ONNX Runtime's own) and float type. */
const probed = new WeakMap<object, Map<string, Promise<boolean>>>();
const ownDevice = {};

async function mayFuseAttention(graph: Graph, options: OrtOptions): Promise<boolean> {
  if (options.provider === "wasm" || graph.ops.every((op) => op.kind !== "attention")) return true;
  const { device = ownDevice, float = "f32" } = options;
  const answers = probed.get(device) ?? new Map<string, Promise<boolean>>();
  probed.set(device, answers);
  const known = answers.get(float);
  if (known) return known;
  const answer = attentionIsCorrect(async (probe, inputs) => {
    const noWeights = (name: string): never => {
      throw new MixdqError("invalid-model", `${probe.name}: got a request for the weight ${name}, expected none.`);
    };
    const runner = await createOrtRunner({ ...probe, name: graph.name }, noWeights, {
      ...options,
      fusedAttention: true,
    });
    return runner.run(inputs).finally(() => runner.release());
  });
  answers.set(float, answer);
  // A failure may be a passing one: the next runner asks again.
  answer.catch(() => answers.delete(float));
  return answer;
}

function checkSize(where: string, bytes: number, { provider, float }: OrtOptions): void {
  if (provider === "webgpu") return;
  // The CPU has no kernels for 16-bit floats: ONNX Runtime puts a 32-bit copy beside the weights.
  const needed = float === "f16" ? 3 * bytes : bytes;
  if (needed <= WASM_WEIGHT_BYTES) return;
  throw new MixdqError(
    "unsupported",
    `${where}: got ${gib(needed)} of weights, expected at most ${gib(WASM_WEIGHT_BYTES)}: WebAssembly ` +
      `addresses 4 GiB in all. Use the webgpu backend, or a smaller model.`,
  );
}

function inputTensor(ort: typeof Ort, where: string, { key, shape, dtype }: Port, data: Arrays[string] | undefined) {
  const expected = `${dtype === "u32" ? "Uint32Array" : "Float32Array"} of ${elementCount(shape)}`;
  const matches = dtype === "u32" ? data instanceof Uint32Array : data instanceof Float32Array;
  if (!data || !matches || data.length !== elementCount(shape))
    throw new MixdqError(
      "invalid-input",
      `${where}: got ${data ? `${data.constructor.name} of ${data.length}` : "nothing"} for input "${key}", ` +
        `expected ${expected} ([${shape.join(", ")}]).`,
    );
  if (data instanceof Float32Array) return new ort.Tensor("float32", data, shape);
  return new ort.Tensor("int32", new Int32Array(data.buffer, data.byteOffset, data.length), shape);
}

function outputData(where: string, { key, shape }: Port, tensor: Ort.Tensor | undefined): Float32Array {
  const data = tensor?.data;
  if (data instanceof Float32Array && data.length === elementCount(shape)) return data;
  throw new MixdqError(
    "invalid-output",
    `${where}: got ${tensor ? `${tensor.type} [${tensor.dims.join(", ")}]` : "nothing"} for output "${key}", ` +
      `expected float32 [${shape.join(", ")}]. This is a bug in the graph's translation; please report it.`,
  );
}

const ADVICE: Partial<Record<ErrorCode, string>> = {
  "out-of-memory": "Use a smaller picture or model, or the webgpu backend.",
  "device-lost": "Create the engine again.",
  network: "Check the connection and reload.",
};

/** ONNX Runtime throws Errors with long texts, and bare numbers for C++ exceptions without one (bad_alloc mostly). */
function translated(error: unknown, what: string, fallback: ErrorCode = "unsupported"): MixdqError {
  if (error instanceof MixdqError) return error;
  const text = (error instanceof Error ? error.message : String(error)).replace(/\.$/, "");
  const memory = typeof error === "number" || /bad_alloc|out of memory|allocat|Array buffer allocation/i.test(text);
  const code = memory ? "out-of-memory" : /device.{0,20}lost/i.test(text) ? "device-lost" : fallback;
  return new MixdqError(code, `${what}: ${text}. ${ADVICE[code] ?? "Use another backend."}`, { cause: error });
}

function gib(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
