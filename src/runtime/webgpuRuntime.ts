/** Components on our own kernels. */
import { debug } from "../base/debug.ts";
import { GpuContext } from "../gpu/context.ts";
import { requestDevice } from "../gpu/device.ts";
import { Executor } from "../gpu/executor.ts";
import { WeightStore } from "../gpu/store.ts";
import { chooseKernels } from "../gpu/tuner.ts";
import type { Graph } from "../graph/ops.ts";
import { describePlan, makePlan, type Plan } from "../plan/plan.ts";
import type { Component, LoadOptions, Runtime, RuntimeOptions } from "./runtime.ts";
import { streamWeights, type LoadedTensor, type LoadedWords } from "./weightStream.ts";

export class WebGpuRuntime implements Runtime {
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
      const isHalf =
        options.storage === "f16" || (first.done !== true && "isHalf" in first.value && first.value.isHalf);
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
    firstTensor: IteratorResult<LoadedTensor | LoadedWords, void> | undefined,
    tensors: AsyncGenerator<LoadedTensor | LoadedWords, void, undefined>,
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
        if ("words" in next.value) {
          await store.acceptWords(next.value.name, next.value.kind, next.value);
          continue;
        }
        const { name, shape, isHalf, values, rows } = next.value;
        if (storage === "exact" && weightType === "f16" && !isHalf) {
          store.destroy();
          return undefined;
        }
        await store.accept(name, shape, values, rows);
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
      run(key, build, inputs, runOptions) {
        // What one size keeps for its next picture is not worth its memory while another size is being made.
        for (const [other, executor] of executors) if (other !== key) executor.forget();
        return executorFor(key, build).run(inputs, runOptions);
      },
      open: (key, build) => ({ executor: executorFor(key, build), store }),
      get keptBytes() {
        return [...executors.values()].reduce((sum, executor) => sum + executor.keptBytes, 0);
      },
      async dispose() {
        for (const executor of executors.values()) executor.destroy();
        store.destroy();
      },
    };
  }

  async dispose(): Promise<void> {
    this.#context.destroy();
  }
}
