/** A component on our own kernels: a store of weights, and an executor for each of its graphs. */
import { debug } from "../base/debug.ts";
import { listenTo } from "../gpu/cancellation.ts";
import type { GpuContext } from "../gpu/context.ts";
import { Executor } from "../gpu/executor.ts";
import { WeightStore } from "../gpu/store.ts";
import type { Graph } from "../graph/ops.ts";
import type { PackedWeight } from "../kernels/kernel.ts";
import { describePlan, makePlan, type Plan } from "../plan/plan.ts";
import type { Inputs, KeyedGraph, Network, PrepareOptions, RunOptions } from "./network.ts";

export interface WebGpuNetworkOptions {
  /** For messages and GPU labels. */
  readonly component: string;
  /** The weights of all of them are stored. */
  readonly graphs: readonly KeyedGraph[];
  readonly weightType: "f32" | "f16";
  /** false gives every activation memory of its own. */
  readonly share: boolean;
}

export class WebGpuNetwork implements Network {
  /** Where the weights of the checkpoint go. */
  readonly store: WeightStore;
  readonly #context: GpuContext;
  readonly #options: WebGpuNetworkOptions;
  readonly #executors = new Map<string, Executor>();

  /** With room for the weights, which are still to come. Throws `unsupported`, `out-of-memory`. */
  static async create(context: GpuContext, options: WebGpuNetworkOptions): Promise<WebGpuNetwork> {
    const plans = options.graphs.map((graph): [string, Plan] => [graph.key, planFor(graph.build(), context, options)]);
    const weights = new Map<string, PackedWeight>();
    for (const [, plan] of plans) for (const weight of plan.weights) weights.set(weight.key, weight);
    const store = await WeightStore.create(context.device, options.component, [...weights.values()]);
    return new WebGpuNetwork(context, options, store, plans);
  }

  private constructor(
    context: GpuContext,
    options: WebGpuNetworkOptions,
    store: WeightStore,
    plans: readonly [string, Plan][],
  ) {
    this.#context = context;
    this.#options = options;
    this.store = store;
    for (const [key, plan] of plans) this.#executors.set(key, new Executor(context, plan, store));
  }

  /** What runs a graph, for callers that run it in parts or look at its tensors. */
  executor({ key, build }: KeyedGraph): Executor {
    let executor = this.#executors.get(key);
    if (!executor) {
      executor = new Executor(this.#context, planFor(build(), this.#context, this.#options), this.store);
      this.#executors.set(key, executor);
    }
    return executor;
  }

  get weightBytes(): number {
    return this.store.bytes;
  }

  get cachedBytes(): number {
    return [...this.#executors.values()].reduce((sum, executor) => sum + executor.cachedBytes, 0);
  }

  async prepare(graph: KeyedGraph, { signal, onPipeline }: PrepareOptions = {}): Promise<void> {
    const cancellation = listenTo(signal);
    try {
      await Promise.race([this.executor(graph).compile(onPipeline), cancellation.aborted]);
    } finally {
      cancellation.forget();
    }
  }

  run(graph: KeyedGraph, inputs: Inputs, options?: RunOptions): Promise<Record<string, Float32Array>> {
    // What one shape keeps for its next picture is not worth its memory while another shape is being run.
    for (const [key, executor] of this.#executors) if (key !== graph.key) executor.dropCache();
    return this.executor(graph).run(inputs, options);
  }

  async dispose(): Promise<void> {
    for (const executor of this.#executors.values()) executor.destroy();
    this.store.destroy();
  }
}

/** What runs a graph and holds its weights, of a network on our own kernels. */
export function openNetwork(network: Network, graph: KeyedGraph): { executor: Executor; store: WeightStore } {
  if (!(network instanceof WebGpuNetwork)) throw new Error("only a network on our own kernels can be opened");
  return { executor: network.executor(graph), store: network.store };
}

function planFor(graph: Graph, { caps, limits }: GpuContext, { weightType, share }: WebGpuNetworkOptions): Plan {
  const plan = makePlan(graph, { caps, limits, weightType, share });
  debug(2, () => describePlan(plan));
  return plan;
}
