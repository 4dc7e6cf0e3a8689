/** A dispatch made ready for the GPU, and how it gets into a pass. */
import type { Dispatch } from "../kernels/kernel.ts";

export interface Encoded {
  readonly dispatch: Dispatch;
  readonly pipeline: GPUComputePipeline;
  readonly bindGroup: GPUBindGroup;
}

export function record(pass: GPUComputePassEncoder, { dispatch, pipeline, bindGroup }: Encoded): void {
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, bindGroup);
  pass.dispatchWorkgroups(...dispatch.workgroups);
}

/** One dispatch in a submit of its own, for looking at it or timing it. */
export function submitAlone(device: GPUDevice, encoded: Encoded): void {
  const commands = device.createCommandEncoder({ label: encoded.dispatch.path });
  const pass = commands.beginComputePass();
  record(pass, encoded);
  pass.end();
  device.queue.submit([commands.finish()]);
}
