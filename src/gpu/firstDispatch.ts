/**
 * A pipeline's first dispatch, on scratch memory. Some drivers compile not when a pipeline is made but when it first runs
 * (Mesa's llvmpipe takes 80 s for a UNet): a compilation that ends with one dispatch is over for all of them, and no picture's
 * time is the driver's.
 */
import { ALIGNMENT } from "../plan/memory.ts";
import type { Dispatch } from "../kernels/kernel.ts";
import type { Pipeline } from "./context.ts";
import { unlessLost } from "./guard.ts";
import { encodeSizes, SIZES_BINDING } from "./shader.ts";

/** WebGPU binds no more buffers in a stage by default, and the engine asks for no more. */
const SLICES = 8;

export class FirstDispatch {
  readonly #device: GPUDevice;
  #scratch: Record<"read" | "written" | "sizes", GPUBuffer> | undefined;

  constructor(device: GPUDevice) {
    this.#device = device;
  }

  /**
   * One workgroup with the sizes of a real run, so that its loops end; accesses beyond the scratch memory are clamped by
   * WebGPU's bounds checks. What it computes is overwritten by the next and never read. Throws `device-lost`.
   */
  async run({ pipeline, layout, bindings, sizes }: Pipeline, { constants, numbers }: Dispatch): Promise<void> {
    const device = this.#device;
    const scratch = (this.#scratch ??= this.#allocate());
    // A slice each: two bindings of one buffer must not overlap where one of them is written.
    const entries = bindings.map(({ binding, access }, i): GPUBindGroupEntry => ({
      binding,
      resource: {
        buffer: access === "read" ? scratch.read : scratch.written,
        offset: i * ALIGNMENT,
        size: ALIGNMENT,
      },
    }));
    if (sizes.length > 0) {
      device.queue.writeBuffer(scratch.sizes, 0, encodeSizes(sizes, { ...constants, ...numbers }));
      entries.push({ binding: SIZES_BINDING, resource: { buffer: scratch.sizes, size: ALIGNMENT } });
    }
    const encoder = device.createCommandEncoder({ label: "first dispatch" });
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ label: "first dispatch", layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await unlessLost(device, device.queue.onSubmittedWorkDone());
  }

  #allocate(): Record<"read" | "written" | "sizes", GPUBuffer> {
    const make = (usage: number, slices = SLICES): GPUBuffer =>
      this.#device.createBuffer({ label: "first dispatch", size: ALIGNMENT * slices, usage });
    return {
      read: make(GPUBufferUsage.STORAGE),
      written: make(GPUBufferUsage.STORAGE),
      sizes: make(GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST, 1),
    };
  }

  destroy(): void {
    for (const buffer of Object.values(this.#scratch ?? {})) buffer.destroy();
    this.#scratch = undefined;
  }
}
