/** Loads components onto a GPU, for our own kernels. */
import { debug } from "../base/debug.ts";
import { listenTo } from "../gpu/cancellation.ts";
import { GpuContext } from "../gpu/context.ts";
import { requestDevice } from "../gpu/device.ts";
import { failureOn } from "../gpu/guard.ts";
import { chooseKernels } from "../gpu/tuner.ts";
import { browserStore } from "../gpu/choiceStore.ts";
import { FAMILIES } from "../kernels/kernel.ts";
import type { LoadOptions, Runtime, RuntimeOptions } from "./network.ts";
import { WebGpuNetwork } from "./webgpuNetwork.ts";
import { streamWeights, union, type Loaded } from "./weightStream.ts";

export class WebGpuRuntime implements Runtime {
  readonly backend = "webgpu";
  readonly #context: GpuContext;
  readonly #share: boolean;

  static async create({
    gpu,
    shaderF16 = true,
    kernels,
    choices = browserStore(),
    share = true,
  }: RuntimeOptions): Promise<WebGpuRuntime> {
    const device = await requestDevice(gpu, { shaderF16 });
    try {
      return new WebGpuRuntime(new GpuContext(device, kernels ?? (await chooseKernels(device, choices))), share);
    } catch (error) {
      device.device.destroy();
      throw error;
    }
  }

  constructor(context: GpuContext, share: boolean) {
    this.#context = context;
    this.#share = share;
    debug(1, () =>
      [
        context.gpu.adapter,
        ...context.gpu.features,
        ...FAMILIES.map((family) => `${family} ${context.caps[family]}`),
      ].join(", "),
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

  async load(options: LoadOptions): Promise<WebGpuNetwork> {
    const graphs = union(options.graphs);
    const tensors = streamWeights(options, graphs);
    try {
      const first = await tensors.next();
      const isHalf =
        options.storage === "f16" || (first.done !== true && "isHalf" in first.value && first.value.isHalf);
      const network = await this.#fill(options, isHalf ? "f16" : "f32", first, tensors);
      // A checkpoint that mixes formats: once more, in the one that holds them all.
      return network ?? (await this.#fill(options, "f32", undefined, streamWeights(options, graphs)))!;
    } catch (error) {
      throw await failureOn(this.#context.device, error);
    } finally {
      await tensors.return();
    }
  }

  /** undefined where `weightType` cannot hold the weights exactly although they shall be exact. */
  async #fill(
    { component, graphs, storage, signal, onPipeline }: LoadOptions,
    weightType: "f32" | "f16",
    firstTensor: IteratorResult<Loaded, void> | undefined,
    tensors: AsyncGenerator<Loaded, void, undefined>,
  ): Promise<WebGpuNetwork | undefined> {
    const network = await WebGpuNetwork.create(this.#context, { component, graphs, weightType, share: this.#share });
    const { store } = network;
    const cancellation = listenTo(signal);
    try {
      const compiled = network.executor(graphs[0]).compile();
      compiled.catch(() => {}); // awaited below; a failing download must not leave it unheard
      for (let next = firstTensor ?? (await tensors.next()); next.done !== true; next = await tensors.next()) {
        if ("words" in next.value) {
          await store.acceptWords(next.value.name, next.value.kind, next.value);
          continue;
        }
        const { name, isHalf } = next.value;
        if (storage === "exact" && weightType === "f16" && !isHalf) {
          await network.dispose();
          return undefined;
        }
        if ("matrix" in next.value) await store.acceptMatrix(name, next.value.matrix());
        else await store.accept(name, next.value.values, next.value.rows);
      }
      await store.settle();
      store.assertComplete();
      // The first of these holds what failed while weights arrived; the second tells how far the rest is.
      const ready = Promise.all([compiled, network.executor(graphs[0]).compile(onPipeline)]);
      await Promise.race([ready, cancellation.aborted]);
      return network;
    } catch (error) {
      await network.dispose();
      throw error;
    } finally {
      cancellation.forget();
    }
  }

  async dispose(): Promise<void> {
    this.#context.destroy();
  }
}
