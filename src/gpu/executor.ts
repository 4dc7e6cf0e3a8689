/**
 * Runs a plan: everything that can be made once (pipelines, bind groups) is made once; a run only writes inputs,
 * encodes, submits in bounded pieces and reads outputs. It does not know what a UNet is.
 */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { elementCount, type Tensor } from "../graph/ops.ts";
import type { Dispatch } from "../kernels/kernel.ts";
import { ALIGNMENT } from "../plan/memory.ts";
import { TEXT_INPUT, type Plan } from "../plan/plan.ts";
import { listenTo, type Cancellation } from "./cancellation.ts";
import type { GpuContext, Pipeline } from "./context.ts";
import { allocate, failureOn, guarded } from "./guard.ts";
import { Profiler, type ProfileRow } from "./profiler.ts";
import { encodeUniforms, UNIFORMS_BINDING } from "./shader.ts";
import type { Snapshot } from "./snapshot.ts";
import type { WeightStore } from "./store.ts";
import { submitAlone, submitPaced, type Encoded } from "./submit.ts";
import { TensorMemory } from "./tensors.ts";

export type Inputs = Readonly<Record<string, Float32Array | Uint32Array>>;

/** Of so many pipelines that a run needs, so many are compiled. */
export type OnPipeline = (compiled: number, pipelines: number) => void;

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  /** Time every dispatch; slower, each runs in a pass of its own. */
  readonly onProfile?: ((rows: readonly ProfileRow[]) => void) | undefined;
  /** Read these tensors' values (for looking inside); by dispatch path. */
  readonly onTensor?: ((path: string, tensor: Tensor, values: Float32Array) => void) | undefined;
  /** Which of them; default: all. */
  readonly wantsTensor?: ((tensor: Tensor) => boolean) | undefined;
}

export class Executor {
  readonly plan: Plan;
  readonly #context: GpuContext;
  readonly #weights: WeightStore;
  readonly #memory: TensorMemory;
  #pipelines: Promise<Pipeline[]> | undefined;
  #encoded: Encoded[] = [];
  #boundTo: readonly GPUBuffer[] = [];
  #uniforms: GPUBuffer | undefined;
  /** The text of which keys and values are cached. */
  #cachedText: Float32Array | Uint32Array | undefined;

  constructor(context: GpuContext, plan: Plan, weights: WeightStore) {
    this.#context = context;
    this.plan = plan;
    this.#weights = weights;
    this.#memory = new TensorMemory(context, plan);
  }

  /**
   * Compiles all pipelines in parallel; a run does it too if nobody has. `onPipeline` hears how many there are, and of each
   * that is done; of nothing where all are there already.
   */
  async compile(onPipeline?: OnPipeline): Promise<void> {
    const all = this.plan.dispatches.map((dispatch) => this.#context.pipeline(dispatch));
    this.#pipelines ??= Promise.all(all);
    if (onPipeline) {
      const distinct = new Set(all);
      let [compiled, isListening] = [0, false];
      const count = (): void => {
        compiled++;
        if (isListening) onPipeline(compiled, distinct.size);
      };
      for (const pipeline of distinct) pipeline.then(count, () => {}); // a failure is met below
      await null; // those that are there already have been counted then
      isListening = true;
      if (compiled < distinct.size) onPipeline(compiled, distinct.size);
    }
    try {
      await this.#pipelines;
    } catch (error) {
      this.#pipelines = undefined; // the next run tries again
      throw error;
    }
  }

  /**
   * inputs by name, channels-last, f32 (or u32 for ids) -> outputs by name, channels-last, f32. Where the text is the same
   * array as in the run before, what depends on it alone is not computed again.
   * Throws `aborted` at once when the signal fires, `device-lost`, `out-of-memory`; after all but `device-lost` another run
   * may follow.
   */
  async run(inputs: Inputs, options: RunOptions = {}): Promise<Record<string, Float32Array>> {
    const { signal, onProfile, onTensor, wantsTensor = () => true } = options;
    throwIfAborted(signal);
    return this.#work(signal, async (cancellation) => {
      const { aborted } = cancellation;
      this.writeInputs(inputs);
      const text = inputs[TEXT_INPUT];
      const isKnown = text !== undefined && this.#cachedText === text && !onTensor && !onProfile;
      const work = isKnown
        ? this.#encoded.filter(({ dispatch }) => !this.plan.textDispatches.has(dispatch))
        : this.#encoded;
      this.#cachedText = undefined; // until the run has come to its end
      if (onTensor) await this.#stepThrough(onTensor, wantsTensor, signal);
      else if (onProfile) onProfile(await new Profiler(this.#context).run(work, aborted));
      else await submitPaced(this.#context, work, this.plan.name, cancellation);
      this.#cachedText = text;
      const outputs: Record<string, Float32Array> = {};
      for (const [name, tensor] of Object.entries(this.plan.outputs))
        outputs[name] = await Promise.race([this.#memory.read(tensor), aborted]);
      return outputs;
    });
  }

  /**
   * Dispatches `from` .. `to` alone, less those of `skip`, over what the memory holds: inputs that `write` put there, a
   * `restore`d snapshot, or what the part before left. Nobody else may run on the device in between. Throws as `run`.
   */
  async runPart(from: number, to: number, skip?: ReadonlySet<Dispatch>, signal?: AbortSignal): Promise<void> {
    await this.#work(signal, (cancellation) => {
      this.#cachedText = undefined;
      const part = this.#encoded.slice(from, to).filter(({ dispatch }) => !skip?.has(dispatch));
      return submitPaced(this.#context, part, this.plan.name, cancellation);
    });
  }

  /** Whatever `work` does on the GPU, once everything is ready for it; what goes wrong there becomes one error. */
  async #work<T>(signal: AbortSignal | undefined, work: (cancellation: Cancellation) => Promise<T>): Promise<T> {
    const { device } = this.#context;
    const cancellation = listenTo(signal);
    try {
      await Promise.race([this.compile(), cancellation.aborted]);
      await this.#ready();
      return await guarded(device, this.plan.name, () => work(cancellation));
    } catch (thrown) {
      const error = await failureOn(device, thrown);
      if (error instanceof MixdqError && error.code === "out-of-memory") this.#giveBack();
      throw error;
    } finally {
      cancellation.forget();
    }
  }

  /** All memory that a run takes: what is too large must not stay in the way of something smaller. */
  #giveBack(): void {
    this.dropCache();
    this.#context.release();
  }

  /** The memory just before dispatch `at`: see TensorMemory.save. */
  async save(at: number): Promise<Snapshot> {
    await this.#ready();
    return this.#memory.save(at);
  }

  /** Puts everything back as it was when the snapshot was taken. */
  async restore(snapshot: Snapshot): Promise<void> {
    await this.#ready();
    this.#cachedText = undefined;
    this.#memory.restore(snapshot);
  }

  async #ready(): Promise<void> {
    this.#context.assertAlive();
    await this.compile();
    await this.#bind();
  }

  async #stepThrough(
    onTensor: NonNullable<RunOptions["onTensor"]>,
    wantsTensor: NonNullable<RunOptions["wantsTensor"]>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { device } = this.#context;
    for (const encoded of this.#encoded) {
      throwIfAborted(signal);
      submitAlone(device, encoded);
      const { dispatch } = encoded;
      for (const name of dispatch.writes) {
        const tensor = dispatch.bindings[name] as Tensor;
        if (wantsTensor(tensor)) onTensor(dispatch.path, tensor, await this.#memory.read(tensor));
      }
    }
  }

  /** Bind groups name buffers, so they are made again when an arena has grown. */
  async #bind(): Promise<void> {
    const { device } = this.#context;
    await this.#memory.reserve();
    const { arenas } = this.#context;
    const pipelines = await this.#pipelines!;
    if (this.#boundTo === arenas) return;
    this.#uniforms ??= await this.#allocateUniforms();
    const uniforms = this.#uniforms;
    this.#encoded = await guarded(device, `${this.plan.name}: binding`, () => {
      device.queue.writeBuffer(uniforms, 0, this.#encodeUniforms(pipelines));
      return this.plan.dispatches.map((dispatch, i) => {
        const { pipeline, layout, bindings, overrides: own } = pipelines[i];
        const entries = bindings.map(({ name, binding }): GPUBindGroupEntry => {
          const bound = dispatch.bindings[name];
          if (!bound)
            throw new Error(`${dispatch.path}: ${dispatch.shader} wants "${name}", the kernel does not bind it`);
          return { binding, resource: "key" in bound ? this.#weights.binding(bound) : this.#memory.place(bound) };
        });
        if (own.length > 0)
          entries.push({
            binding: UNIFORMS_BINDING,
            resource: { buffer: uniforms, offset: i * ALIGNMENT, size: ALIGNMENT },
          });
        return { dispatch, pipeline, bindGroup: device.createBindGroup({ label: dispatch.path, layout, entries }) };
      });
    });
    this.#boundTo = arenas;
  }

  /** Room for the uniforms of all dispatches in one uniform buffer. */
  async #allocateUniforms(): Promise<GPUBuffer> {
    const label = `${this.plan.name} uniforms`;
    const size = ALIGNMENT * this.plan.dispatches.length;
    const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
    const [buffer] = await allocate(this.#context.device, label, [{ label, size, usage }]);
    return buffer!;
  }

  /** What is in it, for pipelines that read overrides there. */
  #encodeUniforms(pipelines: readonly Pipeline[]): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(ALIGNMENT * pipelines.length);
    pipelines.forEach(({ overrides }, i) => {
      const { constants, uniforms } = this.plan.dispatches[i];
      bytes.set(new Uint8Array(encodeUniforms(overrides, { ...constants, ...uniforms })), i * ALIGNMENT);
    });
    return bytes;
  }

  /** Inputs by name, as `run` takes them, for parts of a run that are to follow. */
  writeInputs(inputs: Inputs): void {
    for (const [name, tensor] of Object.entries(this.plan.inputs)) {
      const values = inputs[name];
      if (values?.length !== elementCount(tensor.shape))
        throw new MixdqError(
          "invalid-input",
          `${this.plan.name}: input "${name}" has ${values?.length ?? "no"} values, expected [${tensor.shape.join(", ")}].`,
        );
      this.write(tensor, values);
    }
  }

  /** Overwrites a tensor that is in memory now; values as `read` gives them. */
  write(tensor: Tensor, values: Float32Array | Uint32Array): void {
    this.#memory.write(tensor, values);
  }

  /** A tensor that is in memory now, channels-last, without padding. */
  read(tensor: Tensor): Promise<Float32Array> {
    return guarded(this.#context.device, `${this.plan.name}: reading ${tensor.name}`, () => this.#memory.read(tensor));
  }

  /** Bytes of the memory that is this executor's own. */
  get cachedBytes(): number {
    return this.#memory.cachedBytes;
  }

  /** Gives back the cached keys and values of the text. */
  dropCache(): void {
    if (this.cachedBytes === 0) return;
    this.#memory.dropCache();
    this.#cachedText = undefined;
    this.#boundTo = []; // the bind groups name the buffer
  }

  /** Frees the memory that is this executor's own. */
  destroy(): void {
    this.dropCache();
    this.#uniforms?.destroy();
  }
}
