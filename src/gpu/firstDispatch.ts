/**
 * A pipeline's first dispatch, on scratch memory. Some drivers compile not when a pipeline is made but when it first runs
 * (Mesa's llvmpipe takes 80 s for a UNet): a compilation that ends with one dispatch is over for all of them, and no picture's
 * time is the driver's.
 */
import { ALIGNMENT } from "../plan/memory.ts";
import type { Dispatch } from "../kernels/kernel.ts";
import type { Pipeline } from "./context.ts";
import { allocate, scoped, unlessLost } from "./guard.ts";
import { encodeUniforms, UNIFORMS_BINDING } from "./shader.ts";

/** WebGPU binds no more buffers in a stage by default, and the engine asks for no more. */
const SLICES = 8;

const WHAT = "first dispatch";

type Scratch = Readonly<Record<"read" | "written" | "uniforms", GPUBuffer>>;

export class FirstDispatch {
  readonly #device: GPUDevice;
  #scratch: Promise<Scratch> | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /**
   * One workgroup with the values of a real run, so that its loops end; accesses beyond the scratch memory are clamped by
   * WebGPU's bounds checks. What it computes is overwritten by the next and never read. Throws `device-lost`,
   * `out-of-memory`, `unsupported` where the GPU refuses the work.
   */
  async run(pipeline: Pipeline, dispatch: Dispatch): Promise<void> {
    const device = this.#device;
    const scratch = await (this.#scratch ??= this.#allocate());
    await scoped(device, WHAT, () => this.#submit(scratch, pipeline, dispatch)).checked;
    await unlessLost(device, device.queue.onSubmittedWorkDone());
  }

  #submit(
    scratch: Scratch,
    { pipeline, layout, bindings, overrides }: Pipeline,
    { constants, uniforms }: Dispatch,
  ): void {
    const device = this.#device;
    // A slice each: two bindings of one buffer must not overlap where one of them is written.
    const entries = bindings.map(({ binding, access }, i): GPUBindGroupEntry => ({
      binding,
      resource: {
        buffer: access === "read" ? scratch.read : scratch.written,
        offset: i * ALIGNMENT,
        size: ALIGNMENT,
      },
    }));
    if (overrides.length > 0) {
      device.queue.writeBuffer(scratch.uniforms, 0, encodeUniforms(overrides, { ...constants, ...uniforms }));
      entries.push({ binding: UNIFORMS_BINDING, resource: { buffer: scratch.uniforms, size: ALIGNMENT } });
    }
    const encoder = device.createCommandEncoder({ label: WHAT });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ label: WHAT, layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  async #allocate(): Promise<Scratch> {
    const descriptor = (usage: number, slices = SLICES): GPUBufferDescriptor => ({
      label: WHAT,
      size: ALIGNMENT * slices,
      usage,
    });
    try {
      const [read, written, uniforms] = await allocate(this.#device, WHAT, [
        descriptor(GPUBufferUsage.STORAGE),
        descriptor(GPUBufferUsage.STORAGE),
        descriptor(GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST, 1),
      ]);
      return { read, written, uniforms };
    } catch (error) {
      this.#scratch = undefined; // there may be memory the next time
      throw error;
    }
  }

  destroy(): void {
    const free = (scratch: Scratch): void => Object.values(scratch).forEach((buffer) => buffer.destroy());
    this.#scratch?.then(free, () => {});
    this.#scratch = undefined;
  }
}
