/**
 * The memory that a plan's tensors live in: arenas, which all plans of a device share, and a buffer of the plan's own for
 * what outlives a run. What is there now can be read, overwritten, and put aside as a whole.
 */
import type { Tensor } from "../graph/ops.ts";
import { CACHED } from "../plan/memory.ts";
import { tensorBytes, type Plan } from "../plan/plan.ts";
import type { GpuContext } from "./context.ts";
import { allocate } from "./guard.ts";
import { aliveAt, type Piece, type Snapshot } from "./snapshot.ts";
import { decodeValues, encodeValues } from "./values.ts";

export class TensorMemory {
  readonly #context: GpuContext;
  readonly #plan: Plan;
  #cache: GPUBuffer | undefined;

  constructor(context: GpuContext, plan: Plan) {
    this.#context = context;
    this.#plan = plan;
  }

  /** Makes room for all of them; whoever bound the arenas must bind again if they are others now. Throws `out-of-memory`. */
  async reserve(): Promise<void> {
    const { name, memory } = this.#plan;
    await this.#context.reserve(memory.arenaBytes);
    if (memory.cachedBytes > 0)
      this.#cache ??= await this.#allocate(`${name}, cache`, memory.cachedBytes, GPUBufferUsage.STORAGE);
  }

  async #allocate(label: string, size: number, usage = 0): Promise<GPUBuffer> {
    const all = usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const what = `${label}: ${(size / 1e6).toFixed(1)} MB`;
    const [buffer] = await allocate(this.#context.device, what, [{ label, size, usage: all }]);
    return buffer!;
  }

  /** Bytes of the buffer that is the plan's own. */
  get cachedBytes(): number {
    return this.#cache?.size ?? 0;
  }

  /** Gives that buffer back; `reserve` makes another one, to be bound anew. */
  dropCache(): void {
    this.#cache?.destroy();
    this.#cache = undefined;
  }

  place(tensor: Tensor): { buffer: GPUBuffer; offset: number; size: number } {
    const { arena, offset, bytes } = this.#plan.memory.placements.get(tensor.id)!;
    return { buffer: this.#bufferOf(arena), offset, size: bytes };
  }

  #bufferOf(arena: number): GPUBuffer {
    return arena === CACHED ? this.#cache! : this.#context.arenas[arena];
  }

  /** Overwrites a tensor; values as `read` gives them. */
  write(tensor: Tensor, values: Float32Array | Uint32Array): void {
    const { buffer, offset } = this.place(tensor);
    this.#context.device.queue.writeBuffer(buffer, offset, encodeValues(values, tensor));
  }

  /** A tensor that is in memory now, channels-last, without padding. To be called within `guarded`. */
  async read(tensor: Tensor): Promise<Float32Array> {
    const { device } = this.#context;
    const { buffer, offset } = this.place(tensor);
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
      return decodeValues(staging.getMappedRange().slice(0), tensor);
    } finally {
      staging.destroy();
    }
  }

  /**
   * A copy on the GPU of all that dispatches `at`, `at + 1`, ... read of what was there before, the text's keys and values
   * included: any number of runs can go on from it. Throws `out-of-memory`.
   */
  async save(at: number): Promise<Snapshot> {
    const { name, memory } = this.#plan;
    const pieces: Piece[] = this.#cache ? [{ arena: CACHED, offset: 0, bytes: this.#cache.size }] : [];
    for (const id of aliveAt(this.#plan, at)) {
      const placement = memory.placements.get(id)!;
      if (placement.arena !== CACHED) pieces.push(placement);
    }
    const size = pieces.reduce((sum, { bytes }) => sum + bytes, 0);
    const buffer = await this.#allocate(`${name}, snapshot before dispatch ${at}`, size);
    this.#copy(pieces, (commands, own, { offset, bytes }, end) =>
      commands.copyBufferToBuffer(own, offset, buffer, end, bytes),
    );
    return { at, buffer, pieces };
  }

  /** Puts everything back as it was when the snapshot was taken. */
  restore({ buffer, pieces }: Snapshot): void {
    this.#copy(pieces, (commands, own, { offset, bytes }, end) =>
      commands.copyBufferToBuffer(buffer, end, own, offset, bytes),
    );
  }

  /** One piece after the other: `own` is where it lies here, `end` where in the snapshot. */
  #copy(
    pieces: readonly Piece[],
    copy: (commands: GPUCommandEncoder, own: GPUBuffer, piece: Piece, end: number) => void,
  ): void {
    const { device } = this.#context;
    const commands = device.createCommandEncoder();
    let end = 0;
    for (const piece of pieces) {
      copy(commands, this.#bufferOf(piece.arena), piece, end);
      end += piece.bytes;
    }
    device.queue.submit([commands.finish()]);
  }
}
