/** Where a model's parts run: our kernels, or onnxruntime-web. Both run the same graphs and load the same tensors. */
import type { Graph } from "../graph/ops.ts";
import { MixdqError, throwIfAborted } from "../errors.ts";
import { GpuContext } from "../gpu/context.ts";
import { isSoftware, requestAdapter, requestDevice } from "../gpu/device.ts";
import { Executor, type Inputs, type RunOptions } from "../gpu/executor.ts";
import { WeightStore } from "../gpu/store.ts";
import type { OrtRunner } from "../ort/session.ts";
import { chooseKernels, type KernelChoice } from "../gpu/tuner.ts";
import { describePlan, makePlan, type Plan } from "../plan/plan.ts";
import { debug } from "../debug.ts";
import type { Backend, Precision } from "../types.ts";
import { toFloat16, toFloat32 } from "../weights/convert.ts";
import type { ModelFiles } from "../weights/files.ts";
import { streamComponent } from "../weights/folder.ts";

export type { RunOptions } from "../gpu/executor.ts";

/** One part of a model: its weights, and graphs over them for as many shapes as are asked for. */
export interface Component {
  readonly weightBytes: number;
  /** Plans and begins to compile what `run` with this key will need. Throws what cannot run on the device, at once. */
  prepare(key: string, build: () => Graph): void;
  /** `key` names the shape: the same key, the same graph. */
  run(key: string, build: () => Graph, inputs: Inputs, options?: RunOptions): Promise<Record<string, Float32Array>>;
  dispose(): Promise<void>;
}

export interface LoadOptions {
  /** Folder of the component within the model. */
  readonly component: string;
  readonly files: ModelFiles;
  /** Which of the checkpoint's variants to prefer. */
  readonly precision: Precision;
  /**
   * f16: 16-bit weights, rounded where the checkpoint has more. exact: 16 bits only where the checkpoint itself has
   * them, else 32.
   */
  readonly storage: "f16" | "exact";
  readonly key: string;
  readonly build: () => Graph;
  readonly signal?: AbortSignal | undefined;
  /** Bytes read so far, over the component's files. */
  readonly onBytes?: ((loaded: number, file: string) => void) | undefined;
}

export interface Runtime {
  readonly backend: Backend;
  readonly adapter: string;
  readonly features: readonly string[];
  /** Bytes of activation memory. */
  readonly activationBytes: number;
  load(options: LoadOptions): Promise<Component>;
  dispose(): Promise<void>;
}

export interface RuntimeOptions {
  readonly backend: Backend;
  /** navigator.gpu, or Dawn's in Node. */
  readonly gpu: GPU | undefined;
  /** false: do not use shader-f16 even where it is there. */
  readonly shaderF16?: boolean;
  /** Which forms of the kernels; default: measured or known for the device. */
  readonly kernels?: KernelChoice;
  /** false gives every activation memory of its own. */
  readonly share?: boolean;
}

/** How a precision stores a network's weights and activations. */
export const STORAGE = {
  fp32: { weights: "exact", activations: "f32" },
  fp16: { weights: "f16", activations: "f16" },
} as const satisfies Record<Precision, { weights: LoadOptions["storage"]; activations: "f32" | "f16" }>;

export async function createRuntime(options: RuntimeOptions): Promise<Runtime> {
  return options.backend === "webgpu" ? WebGpuRuntime.create(options) : OrtRuntime.create(options.backend, options.gpu);
}

/** A tensor of the checkpoint that the graph wants. */
interface LoadedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether 16-bit floats hold its values exactly. */
  readonly isHalf: boolean;
  values(dtype: "f32" | "f16"): Float32Array | Uint16Array;
}

/**
 * The layers of each component. A checkpoint that holds one of them which the graph does not read belongs to another
 * config.json, and would make a wrong picture without a word. Everything else (a VAE's encoder, position_ids) may be there.
 */
const LAYERS: Readonly<Record<string, RegExp>> = {
  unet: /^(down_blocks|mid_block|up_blocks|time_embedding|add_embedding|class_embedding|encoder_hid_proj)\./,
  vae: /^(decoder|post_quant_conv)\./,
  text_encoder: /^(text_model\.)?encoder\.layers\./,
  text_encoder_2: /^(text_model\.)?encoder\.layers\./,
};

function refuseUnread(component: string, name: string): false {
  if (!LAYERS[component]?.test(name)) return false;
  throw new MixdqError(
    "invalid-model",
    `${component}: the weights have ${name}, ${component}/config.json describes no such layer. Weights and config do not ` +
      `belong together: take both from one model.`,
  );
}

/** Every tensor that a graph wants, in the files' order, one at a time. */
async function* streamWeights(
  { component, files, precision, signal, onBytes }: LoadOptions,
  graph: Graph,
): AsyncGenerator<LoadedTensor, void, undefined> {
  const names = new Set(graph.weights.flatMap(({ name, aliases = [] }) => [name, ...aliases]));
  let loaded = 0;
  for await (const { name, dtype, shape, bytes } of streamComponent(files, component, {
    precision,
    ...(signal && { signal }),
    wanted: (name) => names.has(name) || refuseUnread(component, name),
    onBytes: (bytes, file) => onBytes?.((loaded += bytes), file),
  })) {
    throwIfAborted(signal);
    const where = `${component}/${name}`;
    yield {
      name,
      shape,
      isHalf: dtype === "F16",
      values: (type) => (type === "f16" ? toFloat16(bytes, dtype, where) : toFloat32(bytes, dtype)),
    };
  }
}

class WebGpuRuntime implements Runtime {
  readonly backend = "webgpu";
  readonly #context: GpuContext;
  readonly #share: boolean;

  static async create({ gpu, shaderF16 = true, kernels, share = true }: RuntimeOptions): Promise<WebGpuRuntime> {
    const device = await requestDevice(gpu, { shaderF16 });
    return new WebGpuRuntime(new GpuContext(device, kernels ?? (await chooseKernels(device))), share);
  }

  constructor(context: GpuContext, share: boolean) {
    this.#context = context;
    this.#share = share;
    debug(1, () =>
      [context.gpu.adapter, ...context.gpu.features, context.caps.gemm, context.caps.attention].join(", "),
    );
  }

  get adapter(): string {
    return this.#context.gpu.adapter;
  }

  get features(): readonly string[] {
    return this.#context.gpu.features;
  }

  get activationBytes(): number {
    return this.#context.arenaBytes;
  }

  async load(options: LoadOptions): Promise<Component> {
    const graph = options.build();
    const tensors = streamWeights(options, graph);
    try {
      const first = await tensors.next();
      const isHalf = options.storage === "f16" || (first.done !== true && first.value.isHalf);
      const component = await this.#fill(options, graph, isHalf ? "f16" : "f32", first, tensors);
      // A checkpoint that mixes formats: once more, in the one that holds them all.
      return component ?? (await this.#fill(options, graph, "f32", undefined, streamWeights(options, graph)))!;
    } catch (error) {
      this.#context.assertAlive();
      throw error;
    } finally {
      await tensors.return();
    }
  }

  /** undefined where `weightType` cannot hold the weights exactly although they shall be exact. */
  async #fill(
    { component, key, storage }: LoadOptions,
    graph: Graph,
    weightType: "f32" | "f16",
    firstTensor: IteratorResult<LoadedTensor, void> | undefined,
    tensors: AsyncGenerator<LoadedTensor, void, undefined>,
  ): Promise<Component | undefined> {
    const context = this.#context;
    const plan = (graph: Graph): Plan => {
      const made = makePlan(graph, { caps: context.caps, limits: context.limits, weightType, share: this.#share });
      debug(2, () => describePlan(made));
      return made;
    };
    const first = plan(graph);
    const store = await WeightStore.create(context.device, component, first.weights);
    const executors = new Map([[key, new Executor(context, first, store)]]);
    try {
      const compiled = executors.get(key)!.compile();
      compiled.catch(() => {}); // awaited below; a failing download must not leave it unheard
      for (let next = firstTensor ?? (await tensors.next()); next.done !== true; next = await tensors.next()) {
        const { name, shape, isHalf, values } = next.value;
        if (storage === "exact" && weightType === "f16" && !isHalf) {
          store.destroy();
          return undefined;
        }
        await store.accept(name, shape, values);
      }
      store.assertComplete();
      await compiled;
    } catch (error) {
      store.destroy();
      throw error;
    }
    const executorFor = (key: string, build: () => Graph): Executor => {
      let executor = executors.get(key);
      if (!executor) {
        executor = new Executor(context, plan(build()), store);
        executors.set(key, executor);
      }
      return executor;
    };
    return {
      weightBytes: store.bytes,
      prepare(key, build) {
        executorFor(key, build)
          .compile()
          .catch(() => {}); // run() meets the same failure, and reports it
      },
      run: (key, build, inputs, runOptions) => executorFor(key, build).run(inputs, runOptions),
      async dispose() {
        store.destroy();
      },
    };
  }

  async dispose(): Promise<void> {
    this.#context.destroy();
  }
}

/** onnxruntime-web keeps a component's weights in JavaScript memory, and one session per shape. */
class OrtRuntime implements Runtime {
  readonly backend: Exclude<Backend, "webgpu">;
  readonly adapter: string;
  readonly features: readonly string[];
  readonly activationBytes = 0;
  readonly #fusedAttention: boolean | undefined;

  static async create(backend: Exclude<Backend, "webgpu">, gpu: GPU | undefined): Promise<OrtRuntime> {
    if (backend === "ort-wasm") return new OrtRuntime(backend, "onnxruntime-web, WebAssembly", [], undefined);
    // Only to look at: onnxruntime-web makes its device itself, with the same preference.
    const { adapter, name } = await requestAdapter(gpu);
    const features = (["shader-f16"] as const).filter((feature) => adapter.features.has(feature));
    // On software adapters the fused operator is known to be wrong, and they need minutes to find that out (ort/probe.ts).
    return new OrtRuntime(backend, `onnxruntime-web on ${name}`, features, isSoftware(name) ? false : undefined);
  }

  /** `fusedAttention` undefined: the runner asks the device whether it is right. */
  private constructor(
    backend: Exclude<Backend, "webgpu">,
    adapter: string,
    features: readonly string[],
    fusedAttention: boolean | undefined,
  ) {
    this.backend = backend;
    this.adapter = adapter;
    this.features = features;
    this.#fusedAttention = fusedAttention;
  }

  async load(options: LoadOptions): Promise<Component> {
    const { createOrtRunner } = await import("../ort/session.ts");
    const provider = this.backend === "ort-webgpu" ? "webgpu" : "wasm";
    const fusedAttention = this.#fusedAttention;
    // Where there is no 16-bit arithmetic (WebAssembly never has it) every weight would be widened again.
    const float = options.storage === "f16" && this.features.includes("shader-f16") ? "f16" : "f32";
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array | Uint16Array }>();
    const graph = options.build();
    const names = new Map(
      graph.weights.flatMap(({ name, aliases = [] }) => [name, ...aliases].map((n) => [n, name] as const)),
    );
    for await (const { name, shape, values } of streamWeights(options, graph))
      weights.set(names.get(name)!, { shape, data: values(float) });
    const source = (name: string): { shape: readonly number[]; data: Float32Array | Uint16Array } => {
      const weight = weights.get(name);
      if (!weight)
        throw new MixdqError(
          "invalid-model",
          `${options.component}: config.json asks for ${name}, the weights have no such tensor. They do not belong together: take both from one model.`,
        );
      return weight;
    };
    const runners = new Map<string, OrtRunner>();
    return {
      weightBytes: [...weights.values()].reduce((sum, { data }) => sum + data.byteLength, 0),
      prepare() {}, // sessions hold all their weights: one at a time, when it is needed
      async run(key, build, inputs, { signal } = {}) {
        // WebAssembly occupies the thread: without a pause, the message that cancels a run would never be read.
        await new Promise((resolve) => setTimeout(resolve));
        throwIfAborted(signal);
        let runner = runners.get(key);
        if (!runner) {
          runner = await createOrtRunner(build(), source, {
            provider,
            float,
            ...(fusedAttention !== undefined && { fusedAttention }),
          });
          runners.set(key, runner);
          throwIfAborted(signal);
        }
        const outputs = await runner.run(inputs);
        throwIfAborted(signal);
        return outputs;
      },
      async dispose() {
        for (const runner of runners.values()) await runner.release();
      },
    };
  }

  async dispose(): Promise<void> {}
}
