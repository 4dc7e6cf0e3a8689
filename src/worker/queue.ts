/**
 * Which job runs: one at a time. A second one while the first is running is refused with `busy`, because a queue would
 * only hide the wait; a caller that wants the latest request to win aborts the running one first.
 *
 * An aborted job settles when the engine has really stopped, but never later than GRACE_MS (onnxruntime-web cannot be
 * interrupted within a step); whatever is still winding down then is waited for by the next job, not refused.
 */
import { MixdqError, throwIfAborted } from "../base/errors.ts";

const GRACE_MS = 200;
const IDLE_MS = 2000;

export class Queue {
  #busy = false;
  #windingDown: Promise<unknown> = Promise.resolve();

  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    throwIfAborted(signal);
    if (this.#busy) {
      throw new MixdqError("busy", "A picture is being made; await it or abort it before asking for the next one.");
    }
    this.#busy = true;
    const job = this.#windingDown.then(() => {
      throwIfAborted(signal);
      return work();
    });
    this.#windingDown = job.catch(() => {});
    try {
      return await settleSoonAfterAbort(job, signal);
    } finally {
      this.#busy = false;
    }
  }

  /** Resolves when nothing runs any more, or when what runs has not ended for IDLE_MS. */
  async idle(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patienceIsOver = new Promise<void>((resolve) => (timer = setTimeout(resolve, IDLE_MS)));
    await Promise.race([this.#windingDown, patienceIsOver]);
    clearTimeout(timer);
  }
}

async function settleSoonAfterAbort<T>(job: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return job;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let onAbort: (() => void) | undefined;
  const graceIsOver = new Promise<never>((_, reject) => {
    onAbort = () => {
      timer = setTimeout(() => reject(new MixdqError("aborted", "The run was cancelled.")), GRACE_MS);
    };
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([job, graceIsOver]);
  } finally {
    clearTimeout(timer);
    if (onAbort) signal.removeEventListener("abort", onAbort);
  }
}
