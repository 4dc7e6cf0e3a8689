/** What every executor of a device shares: pipelines, arenas, and how much work fits into one submit. */
import { MixdqError } from "../base/errors.ts";
import type { DeviceCaps, Dispatch, KernelChoice } from "../kernels/kernel.ts";
import type { MemoryLimits } from "../plan/limits.ts";
import { variantKey } from "../plan/plan.ts";
import type { GpuDevice } from "./device.ts";
import { FirstDispatch } from "./firstDispatch.ts";
import { allocate, assertAlive, failureOn } from "./guard.ts";
import { assembleShader, UNIFORMS_BINDING, withUniforms, type ShaderBinding, type ShaderOverride } from "./shader.ts";
import { SHADERS } from "./sources.ts";
import { SubmitBudget } from "./submit.ts";

export interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly bindings: readonly ShaderBinding[];
  /** What the pipeline reads from its uniform: every override, or only those that are not compiled in. */
  readonly overrides: readonly ShaderOverride[];
}

export class GpuContext {
  readonly gpu: GpuDevice;
  readonly device: GPUDevice;
  readonly caps: DeviceCaps;
  readonly limits: MemoryLimits;
  readonly submitBudget = new SubmitBudget();
  readonly #pipelines = new Map<string, Promise<Pipeline>>();
  readonly #layouts = new Map<string, GPUBindGroupLayout>();
  readonly #first: FirstDispatch;
  #arenas: GPUBuffer[] = [];

  constructor(gpu: GpuDevice, kernels: KernelChoice) {
    this.gpu = gpu;
    this.device = gpu.device;
    this.#first = new FirstDispatch(gpu.device);
    const { limits } = gpu.device;
    this.caps = {
      shaderF16: gpu.shaderF16,
      packedDot: gpu.packedDot,
      maxWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
      ...kernels,
    };
    this.limits = { maxBindingBytes: limits.maxStorageBufferBindingSize, maxBufferBytes: limits.maxBufferSize };
  }

  /** Throws `device-lost` once the device is gone: nothing it returns can be trusted any more. */
  assertAlive(): void {
    assertAlive(this.device);
  }

  get arenas(): readonly GPUBuffer[] {
    return this.#arenas;
  }

  get arenaBytes(): number {
    return this.#arenas.reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * Makes the arenas at least this large. A grown arena is a new buffer: whoever bound the old one must bind again
   * (`arenas` then holds other objects). Throws `out-of-memory`, with no arenas left: a smaller size begins anew.
   */
  async reserve(bytes: readonly number[]): Promise<void> {
    const grow = bytes.flatMap((needed, i) => (needed > (this.#arenas[i]?.size ?? 0) ? [i] : []));
    if (grow.length === 0) return;
    const total = bytes.reduce((sum, n) => sum + n, 0);
    // First freed, then allocated: both at once may be more than there is.
    for (const i of grow) this.#arenas[i]?.destroy();
    try {
      const grown = await allocate(
        this.device,
        `allocating ${(total / 1e6).toFixed(0)} MB for activations`,
        grow.map((i) => ({
          label: `arena ${i}`,
          size: bytes[i],
          usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST,
        })),
      );
      const arenas = [...this.#arenas];
      for (const [at, i] of grow.entries()) arenas[i] = grown[at];
      this.#arenas = arenas;
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** A dispatch's pipeline, compiled and run once on scratch memory, or found. */
  pipeline(dispatch: Dispatch): Promise<Pipeline> {
    const key = variantKey(dispatch, this.caps.overrides);
    let pipeline = this.#pipelines.get(key);
    if (!pipeline) {
      pipeline = this.#readied(dispatch);
      this.#pipelines.set(key, pipeline);
      // What failed for want of memory may come out the next time.
      pipeline.catch(() => this.#pipelines.delete(key));
    }
    return pipeline;
  }

  async #readied(dispatch: Dispatch): Promise<Pipeline> {
    const compiled = await this.compile(dispatch);
    try {
      await this.#first.run(compiled, dispatch);
    } catch (error) {
      throw await failureOn(this.device, error);
    }
    return compiled;
  }

  /** Compiles a dispatch's pipeline and keeps nothing; some drivers only begin to compile here. */
  async compile(dispatch: Dispatch): Promise<Pipeline> {
    const label = variantKey(dispatch, this.caps.overrides);
    const { shader, defines, constants, uniforms = {} } = dispatch;
    const compiledIn = this.caps.overrides === "constants";
    const { code, bindings, overrides } = withUniforms(
      assembleShader(SHADERS, shader, defines),
      (name) => !compiledIn || name in uniforms,
    );
    const layout = this.#layout(bindings, overrides.length > 0);
    try {
      const pipeline = await this.device.createComputePipelineAsync({
        label,
        layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: {
          module: this.device.createShaderModule({ label, code }),
          ...(compiledIn && { constants: { ...constants } }),
        },
      });
      return { pipeline, layout, bindings, overrides };
    } catch (thrown) {
      const error = await failureOn(this.device, thrown);
      if (error instanceof MixdqError) throw error;
      throw new MixdqError(
        "unsupported",
        `${label}: the GPU driver could not compile this kernel: ${(error as Error).message}. Update the driver, or use ` +
          'the backend "ort-webgpu" or "ort-wasm".',
        { cause: error },
      );
    }
  }

  #layout(bindings: readonly ShaderBinding[], hasUniforms: boolean): GPUBindGroupLayout {
    const key = bindings.map(({ binding, access }) => `${binding}${access}`).join() + (hasUniforms ? ",uniforms" : "");
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
          ...(hasUniforms ? [{ binding: UNIFORMS_BINDING, visibility: GPUShaderStage.COMPUTE, buffer: {} }] : []),
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
    this.#first.destroy();
    this.device.destroy();
  }
}
