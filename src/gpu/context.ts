/** What every executor of a device shares: pipelines, arenas, and how much work fits into one submit. */
import { MixdqError } from "../base/errors.ts";
import type { DeviceCaps, Dispatch, KernelChoice } from "../kernels/kernel.ts";
import type { MemoryLimits } from "../plan/limits.ts";
import { variantKey } from "../plan/plan.ts";
import type { GpuDevice } from "./device.ts";
import { guarded } from "./device.ts";
import { assembleShader, SIZES_BINDING, withUniformSizes, type ShaderBinding, type ShaderSize } from "./shader.ts";
import { SHADERS } from "./sources.ts";
import { Pace } from "./submit.ts";

export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly bindings: readonly ShaderBinding[];
  /** What the pipeline reads from the uniform of sizes: everything, or only what is not compiled in. */
  readonly sizes: readonly ShaderSize[];
}

export class GpuContext {
  readonly gpu: GpuDevice;
  readonly device: GPUDevice;
  readonly caps: DeviceCaps;
  readonly limits: MemoryLimits;
  readonly pace = new Pace();
  readonly #pipelines = new Map<string, Promise<Pipeline>>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  #arenas: GPUBuffer[] = [];
  #lost: string | undefined;

  constructor(gpu: GpuDevice, kernels: KernelChoice) {
    this.gpu = gpu;
    this.device = gpu.device;
    const { limits } = gpu.device;
    this.caps = {
      shaderF16: gpu.shaderF16,
      packedDot: gpu.packedDot,
      maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      ...kernels,
    };
    this.limits = { maxBindingBytes: limits.maxStorageBufferBindingSize, maxBufferBytes: limits.maxBufferSize };
    void gpu.device.lost.then(({ reason, message }) => {
      this.#lost = `The GPU device was lost (${reason}): ${message || "no reason given"}.`;
    });
  }

  /** Throws `device-lost` once the device is gone: nothing it returns can be trusted any more. */
  assertAlive(): void {
    if (this.#lost !== undefined)
      throw new MixdqError(
        "device-lost",
        `${this.#lost} Create the engine again; if it happens again, use a smaller size.`,
      );
  }

  get arenas(): readonly GPUBuffer[] {
    return this.#arenas;
  }

  get arenaBytes(): number {
    return this.#arenas.reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Makes the arenas at least this large. A grown arena is a new buffer: whoever bound the old one must bind again
   * (`arenas` then holds other objects).
   */
  async reserve(bytes: readonly number[]): Promise<void> {
    const grow = bytes.map((needed, i) => needed > (this.#arenas[i]?.size ?? 0));
    if (!grow.some(Boolean)) return;
    const total = bytes.reduce((sum, n) => sum + n, 0);
    this.#arenas = await guarded(this.device, `allocating ${(total / 1e6).toFixed(0)} MB for activations`, () =>
      Array.from({ length: Math.max(bytes.length, this.#arenas.length) }, (_, i) => {
        const old = this.#arenas[i];
        if (!grow[i]) return old!;
        old?.destroy();
        return this.device.createBuffer({
          label: `arena ${i}`,
          size: bytes[i]!,
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        });
      }),
    );
  }

  /** Compiles a dispatch's pipeline, or finds it. */
  pipeline(dispatch: Dispatch): Promise<Pipeline> {
    const key = variantKey(dispatch, this.caps.sizes);
    let pipeline = this.#pipelines.get(key);
    if (!pipeline) {
      pipeline = this.#compile(dispatch, key);
      this.#pipelines.set(key, pipeline);
    }
    return pipeline;
  }

  async #compile({ shader, defines, constants, numbers = {} }: Dispatch, label: string): Promise<Pipeline> {
    const compiledIn = this.caps.sizes === "constants";
    const { code, bindings, sizes } = withUniformSizes(
      assembleShader(SHADERS, shader, defines),
      (name) => !compiledIn || name in numbers,
    );
    const layout = this.#layout(bindings, sizes.length > 0);
    try {
      const pipeline = await this.device.createComputePipelineAsync({
        label,
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: {
          module: this.device.createShaderModule({ label, code }),
          ...(compiledIn && { constants: { ...constants } }),
        },
      });
      return { pipeline, layout, bindings, sizes };
    } catch (error) {
      this.assertAlive();
      throw new MixdqError(
        "unsupported",
        `${label}: the GPU driver could not compile this kernel: ${(error as Error).message}. Update the driver, or use ` +
          'the backend "ort-webgpu" or "ort-wasm".',
        { cause: error },
      );
    }
  }

  #layout(bindings: readonly ShaderBinding[], hasSizes: boolean): GPUBindGroupLayout {
    const key = bindings.map(({ binding, access }) => `${binding}${access}`).join() + (hasSizes ? ",sizes" : "");
    let layout = this.#layouts.get(key);
    if (!layout) {
      layout = this.device.createBindGroupLayout({
        label: key,
        entries: [
          ...bindings.map(({ binding, access }): GPUBindGroupLayoutEntry => ({
            binding,
            visibility: GPUShaderStage.COMPUTE,
            buffer: { type: access === "read" ? "read-only-storage" : "storage" },
          })),
          ...(hasSizes ? [{ binding: SIZES_BINDING, visibility: GPUShaderStage.COMPUTE, buffer: {} }] : []),
        ],
      });
      this.#layouts.set(key, layout);
    }
    return layout;
  }

  /** Gives back the memory; the device stays. */
  release(): void {
    for (const arena of this.#arenas) arena.destroy();
    this.#arenas = [];
  }

  destroy(): void {
    this.release();
    this.device.destroy();
  }
}
