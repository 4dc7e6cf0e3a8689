/** Dispatches that were made ready for the GPU, and how they get there: alone, or so many at a time that it stays lively. */
import { throwIfAborted } from "../base/errors.ts";
import type { Dispatch } from "../kernels/kernel.ts";
import type { Cancellation } from "./cancellation.ts";

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

/**
 * All of them, done when it resolves. Two submits are in flight at any time: the GPU never waits for us, and we never run
 * far ahead of it. Throws `aborted`.
 */
export async function submitPaced(
  { device, submitBudget }: { readonly device: GPUDevice; readonly submitBudget: SubmitBudget },
  encoded: readonly Encoded[],
  label: string,
  { signal, aborted }: Cancellation,
): Promise<void> {
  let previous: Promise<number> = Promise.resolve(performance.now());
  for (let next = 0; next < encoded.length;) {
    throwIfAborted(signal);
    const commands = device.createCommandEncoder({ label });
    const pass = commands.beginComputePass();
    const budget = submitBudget.work;
    let work = 0;
    for (; next < encoded.length && (work === 0 || work < budget); next++) {
      record(pass, encoded[next]);
      work += encoded[next].dispatch.work;
    }
    pass.end();
    const sent = performance.now();
    device.queue.submit([commands.finish()]);
    const before = previous;
    previous = Promise.all([before, device.queue.onSubmittedWorkDone()]).then(([began]) => {
      // The GPU could begin once this was sent and the submit before was done.
      const done = performance.now();
      // A short submit measures how long a submit takes, not how fast the device is.
      if (work >= budget / 4) submitBudget.adjust(work, done - Math.max(sent, began));
      return done;
    });
    previous.catch(() => {}); // nobody waits for it after a cancel
    await Promise.race([before, aborted]);
  }
  await Promise.race([previous, aborted]);
}

/** A submit of about this length keeps progress and cancelling lively and stays far from any driver's watchdog. */
const SUBMIT_MS = 40;

/**
 * The least work in a submit: about 10 ms of a software adapter. On a machine that is busy otherwise a submit takes long
 * whatever is in it; without a floor that would be taken for slow work, and ever smaller submits would make it worse.
 */
const LEAST_WORK = 5e6;

/** How much work goes into a submit: what the device did in SUBMIT_MS until now. */
export class SubmitBudget {
  /** Multiply-accumulates per submit; the start is 40 ms of a software adapter. */
  work = 20e6;

  /** `work` took `ms` from submit to done. Grows at most fourfold: short submits measure latency, not speed. */
  adjust(work: number, ms: number): void {
    const fitting = (work * SUBMIT_MS) / Math.max(ms, 0.01);
    this.work = Math.max(LEAST_WORK, Math.min(fitting, this.work * 4));
  }
}
