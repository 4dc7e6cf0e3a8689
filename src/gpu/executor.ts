/**
 * Runs a plan: everything that can be made once (pipelines, bind groups) is made once; a run only writes inputs,
 * encodes, submits in bounded pieces and reads outputs. It does not know what a UNet is.
 */
import { MixdqError, throwIfAborted } from "../errors.ts";
import { elementCount, type DType, type Tensor } from "../graph/ops.ts";
import { pixels, quads, type Dispatch } from "../kernels/kernel.ts";
import { ALIGNMENT, KEPT } from "../plan/memory.ts";
import { TEXT_INPUT, tensorBytes, type Plan } from "../plan/plan.ts";
import { fromHalf, toHalf } from "../quant/half.ts";
import type { GpuContext, Pipeline } from "./context.ts";
import { guarded } from "./device.ts";
import { Profiler, type ProfileRow } from "./profiler.ts";
import { record, submitAlone, type Encoded } from "./record.ts";
import { encodeSizes, SIZES_BINDING } from "./shader.ts";
import { aliveAt, type Piece, type Snapshot } from "./snapshot.ts";
import type { WeightStore } from "./store.ts";

export type Inputs = Readonly<Record<string, Float32Array | Uint32Array>>;

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
  #pipelines: Promise<Pipeline[]> | undefined;
  #encoded: Encoded[] = [];
  #boundTo: readonly GPUBuffer[] = [];
  #sizes: GPUBuffer | undefined;
  /** Memory for what outlives a run, and the text that it was computed from. */
  #kept: GPUBuffer | undefined;
  #keptFor: Float32Array | Uint32Array | undefined;

  constructor(context: GpuContext, plan: Plan, weights: WeightStore) {
    this.#context = context;
    this.plan = plan;
    this.#weights = weights;
  }

  /** Compiles all pipelines in parallel; a run does it too if nobody has. */
  async compile(): Promise<void> {
    this.#pipelines ??= Promise.all(this.plan.dispatches.map((dispatch) => this.#context.pipeline(dispatch)));
    await this.#pipelines;
  }

  /**
   * inputs by name, channels-last, f32 (or u32 for ids) -> outputs by name, channels-last, f32. Where the text is the same
   * array as in the run before, what depends on it alone is not computed again.
   * Throws `aborted` at once when the signal fires, `device-lost`, `out-of-memory`.
   */
  async run(inputs: Inputs, options: RunOptions = {}): Promise<Record<string, Float32Array>> {
    const { signal, onProfile, onTensor, wantsTensor = () => true } = options;
    throwIfAborted(signal);
    await this.#ready();
    const { device } = this.#context;
    const aborted = abortion(signal);
    try {
      return await guarded(device, this.plan.name, async () => {
        this.writeInputs(inputs);
        const text = inputs[TEXT_INPUT];
        const isKnown = text !== undefined && this.#keptFor === text && !onTensor && !onProfile;
        const work = isKnown ? this.#encoded.filter(({ dispatch }) => !this.plan.ofText.has(dispatch)) : this.#encoded;
        this.#keptFor = undefined; // until the run has come to its end
        if (onTensor) await this.#stepThrough(onTensor, wantsTensor, signal);
        else if (onProfile) onProfile(await new Profiler(this.#context).run(work, aborted.promise));
        else await this.#submit(work, signal, aborted.promise);
        this.#keptFor = text;
        const outputs: Record<string, Float32Array> = {};
        for (const [name, tensor] of Object.entries(this.plan.outputs))
          outputs[name] = await Promise.race([this.read(tensor), aborted.promise]);
        return outputs;
      });
    } catch (error) {
      this.#context.assertAlive();
      throw error;
    } finally {
      aborted.forget();
    }
  }

  /**
   * Dispatches `from` .. `to` alone, less those of `skip`, over what the memory holds: inputs that `write` put there, a
   * `restore`d snapshot, or what the part before left. Nobody else may run on the device in between. Throws as `run`.
   */
  async runPart(from: number, to: number, skip?: ReadonlySet<Dispatch>, signal?: AbortSignal): Promise<void> {
    await this.#ready();
    this.#keptFor = undefined;
    const work = this.#encoded.slice(from, to).filter(({ dispatch }) => !skip?.has(dispatch));
    const aborted = abortion(signal);
    try {
      await guarded(this.#context.device, this.plan.name, () => this.#submit(work, signal, aborted.promise));
    } finally {
      aborted.forget();
    }
  }

  /**
   * A copy on the GPU of all that dispatches `at`, `at + 1`, ... read of what was there before, the text's keys and values
   * included: any number of runs can go on from it. Throws `out-of-memory`.
   */
  async save(at: number): Promise<Snapshot> {
    await this.#ready();
    const { device, arenas } = this.#context;
    const pieces: Piece[] = this.#kept ? [{ arena: KEPT, offset: 0, bytes: this.#kept.size }] : [];
    for (const id of aliveAt(this.plan, at)) {
      const placement = this.plan.memory.placements.get(id)!;
      if (placement.arena !== KEPT) pieces.push(placement);
    }
    const size = pieces.reduce((sum, { bytes }) => sum + bytes, 0);
    const buffer = await guarded(device, `${this.plan.name}: a snapshot of ${(size / 1e6).toFixed(1)} MB`, () =>
      device.createBuffer({
        label: `${this.plan.name} at ${at}`,
        size,
        usage: GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
      }),
    );
    const commands = device.createCommandEncoder();
    let end = 0;
    for (const { arena, offset, bytes } of pieces) {
      commands.copyBufferToBuffer(arena === KEPT ? this.#kept! : arenas[arena]!, offset, buffer, end, bytes);
      end += bytes;
    }
    device.queue.submit([commands.finish()]);
    return { at, buffer, pieces };
  }

  /** Puts everything back as it was when the snapshot was taken. */
  async restore({ buffer, pieces }: Snapshot): Promise<void> {
    await this.#ready();
    this.#keptFor = undefined;
    const { device, arenas } = this.#context;
    const commands = device.createCommandEncoder();
    let end = 0;
    for (const { arena, offset, bytes } of pieces) {
      commands.copyBufferToBuffer(buffer, end, arena === KEPT ? this.#kept! : arenas[arena]!, offset, bytes);
      end += bytes;
    }
    device.queue.submit([commands.finish()]);
  }

  async #ready(): Promise<void> {
    this.#context.assertAlive();
    await this.compile();
    await this.#bind();
  }

  /** Two submits are in flight at any time: the GPU never waits for us, and we never run far ahead of it. */
  async #submit(encoded: readonly Encoded[], signal: AbortSignal | undefined, aborted: Promise<never>): Promise<void> {
    const { device, pace } = this.#context;
    let previous: Promise<number> = Promise.resolve(performance.now());
    for (let next = 0; next < encoded.length;) {
      throwIfAborted(signal);
      const commands = device.createCommandEncoder({ label: this.plan.name });
      const pass = commands.beginComputePass();
      const { budget } = pace;
      let work = 0;
      for (; next < encoded.length && (work === 0 || work < budget); next++) {
        record(pass, encoded[next]!);
        work += encoded[next]!.dispatch.work;
      }
      pass.end();
      const sent = performance.now();
      device.queue.submit([commands.finish()]);
      const before = previous;
      previous = Promise.all([before, device.queue.onSubmittedWorkDone()]).then(([began]) => {
        // The GPU could begin once this was sent and the submit before was done.
        const done = performance.now();
        // A short submit measures how long a submit takes, not how fast the device is.
        if (work >= budget / 4) pace.learn(work, done - Math.max(sent, began));
        return done;
      });
      previous.catch(() => {}); // nobody waits for it after a cancel
      await Promise.race([before, aborted]);
    }
    await Promise.race([previous, aborted]);
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
        if (wantsTensor(tensor)) onTensor(dispatch.path, tensor, await this.read(tensor));
      }
    }
  }

  /** Bind groups name buffers, so they are made again when an arena has grown. */
  async #bind(): Promise<void> {
    const { device } = this.#context;
    await this.#context.reserve(this.plan.memory.arenaBytes);
    const { arenas } = this.#context;
    const pipelines = await this.#pipelines!;
    if (this.#boundTo === arenas) return;
    this.#encoded = await guarded(device, `${this.plan.name}: binding`, () => {
      this.#sizes ??= this.#uploadSizes(pipelines);
      if (this.plan.memory.keptBytes > 0) this.#kept ??= this.#allocateKept();
      return this.plan.dispatches.map((dispatch, i) => {
        const { pipeline, layout, bindings, sizes } = pipelines[i]!;
        const entries = bindings.map(({ name, binding }): GPUBindGroupEntry => {
          const bound = dispatch.bindings[name];
          if (!bound)
            throw new Error(`${dispatch.path}: ${dispatch.shader} wants "${name}", the kernel does not bind it`);
          return { binding, resource: "key" in bound ? this.#weights.binding(bound) : this.#place(bound) };
        });
        if (sizes.length > 0)
          entries.push({
            binding: SIZES_BINDING,
            resource: { buffer: this.#sizes!, offset: i * ALIGNMENT, size: ALIGNMENT },
          });
        return { dispatch, pipeline, bindGroup: device.createBindGroup({ label: dispatch.path, layout, entries }) };
      });
    });
    this.#boundTo = arenas;
  }

  /** The sizes of all dispatches in one uniform buffer, for pipelines that have them there. */
  #uploadSizes(pipelines: readonly Pipeline[]): GPUBuffer {
    const bytes = new Uint8Array(ALIGNMENT * pipelines.length);
    pipelines.forEach(({ sizes }, i) => {
      const { constants, numbers } = this.plan.dispatches[i]!;
      bytes.set(new Uint8Array(encodeSizes(sizes, { ...constants, ...numbers })), i * ALIGNMENT);
    });
    const buffer = this.#context.device.createBuffer({
      label: `${this.plan.name} sizes`,
      size: bytes.length,
      usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
    });
    this.#context.device.queue.writeBuffer(buffer, 0, bytes);
    return buffer;
  }

  #allocateKept(): GPUBuffer {
    return this.#context.device.createBuffer({
      label: `${this.plan.name} kept`,
      size: this.plan.memory.keptBytes,
      usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
    });
  }

  #place(tensor: Tensor): { buffer: GPUBuffer; offset: number; size: number } {
    const { arena, offset, bytes } = this.plan.memory.placements.get(tensor.id)!;
    return { buffer: arena === KEPT ? this.#kept! : this.#context.arenas[arena]!, offset, size: bytes };
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
    const { buffer, offset } = this.#place(tensor);
    const data =
      tensor.dtype === "u32"
        ? Uint32Array.from(values)
        : encode(withPaddedChannels(values as Float32Array, tensor), tensor.dtype);
    this.#context.device.queue.writeBuffer(buffer, offset, data);
  }

  /** Bytes of the memory that is this executor's own. */
  get keptBytes(): number {
    return this.#kept?.size ?? 0;
  }

  /** Gives back what was kept for the next run. */
  forget(): void {
    if (!this.#kept) return;
    this.#kept.destroy();
    this.#kept = undefined;
    this.#keptFor = undefined;
    this.#boundTo = []; // the bind groups name the buffer
  }

  /** Frees the memory that is this executor's own. */
  destroy(): void {
    this.forget();
    this.#sizes?.destroy();
  }

  /** A tensor that is in memory now, channels-last, without padding. */
  async read(tensor: Tensor): Promise<Float32Array> {
    const { device } = this.#context;
    const { buffer, offset } = this.#place(tensor);
    const size = tensorBytes(tensor);
    const staging = device.createBuffer({
      label: `read ${tensor.name}`,
      size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    try {
      const commands = device.createCommandEncoder();
      commands.copyBufferToBuffer(buffer, offset, staging, 0, size);
      device.queue.submit([commands.finish()]);
      await staging.mapAsync(GPUMapMode.READ);
      const bytes = staging.getMappedRange().slice(0);
      return withoutPadding(decode(bytes, tensor.dtype), tensor);
    } finally {
      staging.destroy();
    }
  }
}

/** A promise that rejects when the signal fires; `forget` once nobody waits for it any more. */
function abortion(signal: AbortSignal | undefined): { promise: Promise<never>; forget(): void } {
  let listener: (() => void) | undefined;
  const promise = new Promise<never>((_, reject) => {
    listener = () => {
      try {
        throwIfAborted(signal);
      } catch (error) {
        reject(error);
      }
    };
    signal?.addEventListener("abort", listener);
  });
  promise.catch(() => {}); // the run may be over before anyone listens
  return { promise, forget: () => signal?.removeEventListener("abort", listener!) };
}

function encode(
  values: Float32Array,
  dtype: DType,
): Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Int8Array<ArrayBuffer> {
  if (dtype === "i8") return Int8Array.from(values);
  return dtype === "f16" ? toHalf(values) : (values as Float32Array<ArrayBuffer>);
}

/** Codes stay codes. */
function decode(bytes: ArrayBuffer, dtype: DType): Float32Array {
  if (dtype === "f16") return fromHalf(new Uint16Array(bytes));
  return dtype === "i8" ? Float32Array.from(new Int8Array(bytes)) : new Float32Array(bytes);
}

function withPaddedChannels(values: Float32Array, tensor: Tensor): Float32Array {
  const channels = tensor.shape[3];
  const padded = quads(channels) * 4;
  if (padded === channels) return values;
  const out = new Float32Array(pixels(tensor) * padded);
  for (let pixel = 0; pixel < pixels(tensor); pixel++)
    out.set(values.subarray(pixel * channels, (pixel + 1) * channels), pixel * padded);
  return out;
}

function withoutPadding(values: Float32Array, tensor: Tensor): Float32Array {
  const channels = tensor.shape[3];
  const padded = quads(channels) * 4;
  if (padded === channels) return values.subarray(0, pixels(tensor) * channels);
  const out = new Float32Array(pixels(tensor) * channels);
  for (let pixel = 0; pixel < pixels(tensor); pixel++)
    out.set(values.subarray(pixel * padded, pixel * padded + channels), pixel * channels);
  return out;
}
