/** A component's parameters in GPU memory: places for all of them first, then filled as they stream in. */
import { MixdqError } from "../base/errors.ts";
import { packSource, type Run } from "../kernels/weights.ts";
import { packMatrix, placeWords, sourceWords } from "../kernels/words.ts";
import type { PackedWeight } from "../kernels/kernel.ts";
import type { QuantizedMatrix, RowRange } from "../quant/matrix.ts";
import { ALIGNMENT } from "../plan/memory.ts";
import { allocate, assertAlive, scoped, unlessLost } from "./guard.ts";

/** Within WebGPU's default binding limit of 128 MiB, so that any weight of any buffer can be bound. */
const BUFFER_BYTES = 120 * 2 ** 20;

/** writeBuffer copies into staging memory at once; waiting this often bounds how much of it there is. */
const STAGED_BYTES = 64 * 2 ** 20;

interface Place {
  readonly buffer: GPUBuffer;
  readonly offset: number;
  readonly size: number;
}

/** Weights that share a buffer, and where in it. */
interface Group {
  readonly members: { weight: PackedWeight; offset: number }[];
  size: number;
}

interface Target {
  readonly weight: PackedWeight;
  readonly index: number;
}

export class WeightStore {
  readonly bytes: number;
  readonly #device: GPUDevice;
  readonly #where: string;
  readonly #places = new Map<string, Place>();
  readonly #buffers: readonly GPUBuffer[];
  readonly #targets = new Map<string, Target[]>();
  readonly #awaited = new Set<string>();
  #staged = 0;
  /** Whether the uploads since the last wait were taken. */
  #checks: Promise<void>[] = [];

  /** `where` is the component, for messages. Throws `out-of-memory`, and holds nothing then. */
  static async create(device: GPUDevice, where: string, weights: readonly PackedWeight[]): Promise<WeightStore> {
    const groups = groupsOf(weights);
    const buffers = await allocate(
      device,
      `${where}: allocating weights`,
      groups.map(({ size }, i) => ({
        label: `${where} weights ${i}`,
        size,
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
      })),
    );
    return new WeightStore(device, where, groups, buffers);
  }

  private constructor(device: GPUDevice, where: string, groups: readonly Group[], buffers: readonly GPUBuffer[]) {
    this.#device = device;
    this.#where = where;
    this.#buffers = buffers;
    this.bytes = groups.reduce((sum, { size }) => sum + size, 0);
    for (const [i, { members }] of groups.entries()) {
      for (const { weight, offset } of members) {
        this.#places.set(weight.key, { buffer: buffers[i], offset, size: weight.bytes });
        weight.sources.forEach((source, index) => {
          const targets = this.#targets.get(source.name) ?? [];
          targets.push({ weight, index });
          this.#targets.set(source.name, targets);
          this.#awaited.add(source.name);
        });
      }
    }
  }

  /**
   * Uploads the floats of a weight, which `values` gives as f32 or as f16 bits in the checkpoint's order; or, of a weight
   * that comes in parts, `rows` of it. Parts come in order, the last one completes the weight.
   */
  async accept(
    name: string,
    values: (dtype: "f32" | "f16") => Float32Array | Uint16Array,
    rows?: RowRange,
  ): Promise<void> {
    let count: number | undefined;
    for (const { weight, index } of this.#targets.get(name) ?? []) {
      if (weight.dtype === "u32") throw new Error(`${this.#where} ${name}: got floats, the plan has integers`);
      this.#upload(weight, packSource(weight, index, values(weight.dtype), rows));
      count = weight.sources[index].shape[0];
    }
    if (rows === undefined || rows.first + rows.count === count) this.#awaited.delete(name);
    await this.#drain();
  }

  /** Uploads a weight in integers. */
  async acceptMatrix(name: string, matrix: QuantizedMatrix): Promise<void> {
    for (const { weight, index } of this.#targets.get(name) ?? []) {
      if (weight.dtype !== "u32") throw new Error(`${this.#where} ${name}: got integers, the plan has floats`);
      this.#upload(weight, packMatrix(weight, index, matrix));
    }
    this.#awaited.delete(name);
    await this.#drain();
  }

  /**
   * Uploads words of a quantized weight that a pack holds as `layerCodes` and `layerParameters` make them, from word
   * `first` of `total` on. Throws `invalid-model` where their number is not what the config makes of the layer.
   */
  async acceptWords(
    name: string,
    kind: "codes" | "parameters",
    { words, first, total }: { words: Uint32Array; first: number; total: number },
  ): Promise<void> {
    for (const { weight, index } of this.#targets.get(name) ?? []) {
      if (weight.layout.kind !== kind) continue;
      const expected = sourceWords(weight, index);
      if (total !== expected)
        throw new MixdqError(
          "invalid-model",
          `${this.#where} ${name}: the pack has ${total} words of ${kind}, the configuration asks for ${expected}. ` +
            "They do not belong together: write the pack again with mixdq quantize.",
        );
      this.#upload(weight, placeWords(weight, index, words, first));
    }
    // A pack has the parameters of all its codes.
    if (kind === "codes" && first + words.length === total) this.#awaited.delete(name);
    await this.#drain();
  }

  async #drain(limit = STAGED_BYTES): Promise<void> {
    assertAlive(this.#device);
    if (this.#staged < limit) return;
    this.#staged = 0;
    const checks = this.#checks;
    this.#checks = [];
    await Promise.all(checks);
    await unlessLost(this.#device, this.#device.queue.onSubmittedWorkDone());
  }

  #upload(weight: PackedWeight, runs: Iterable<Run>): void {
    const { buffer, offset } = this.#places.get(weight.key)!;
    const width = weight.dtype === "f16" ? 2 : 4;
    const { checked } = scoped(this.#device, `${this.#where} ${weight.key}: uploading`, () => {
      for (const run of runs) {
        this.#device.queue.writeBuffer(buffer, offset + run.offset * width, run.values as Float32Array<ArrayBuffer>);
        this.#staged += run.values.byteLength;
      }
    });
    this.#checks.push(checked);
  }

  /** Waits for the last uploads. Throws `out-of-memory`, `device-lost`. */
  async settle(): Promise<void> {
    await this.#drain(0);
  }

  /** Throws `invalid-model` when tensors that the config asks for never came. */
  assertComplete(): void {
    if (this.#awaited.size === 0) return;
    const names = [...this.#awaited];
    throw new MixdqError(
      "invalid-model",
      `${this.#where}: ${names.length} tensor(s) that config.json asks for are not in the weights: ` +
        `${names.slice(0, 4).join(", ")}${names.length > 4 ? ", ..." : ""}. Weights and config do not belong together: take both from one model.`,
    );
  }

  binding(weight: PackedWeight): GPUBufferBinding {
    const place = this.#places.get(weight.key);
    if (!place) throw new Error(`${this.#where}: no weight ${weight.key} was allocated`);
    return place;
  }

  destroy(): void {
    for (const buffer of this.#buffers) buffer.destroy();
  }
}

/** Places for all weights, in buffers of at most BUFFER_BYTES where a weight alone is not larger. */
function groupsOf(weights: readonly PackedWeight[]): Group[] {
  const groups: Group[] = [];
  for (const weight of weights) {
    let group = groups.at(-1);
    if (!group || group.size + weight.bytes > BUFFER_BYTES) groups.push((group = { members: [], size: 0 }));
    group.members.push({ weight, offset: group.size });
    group.size = Math.ceil((group.size + weight.bytes) / ALIGNMENT) * ALIGNMENT;
  }
  return groups;
}
