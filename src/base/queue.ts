/**
 * Which job runs: one at a time. A second one while the first is running is refused with `busy`, because a queue would
 * only hide the wait. A caller that wants the latest request to win aborts the running one first, and is never refused:
 * an aborted job counts as gone from that moment on, and the next one waits until it really is.
 *
 * An aborted job settles when the engine has really stopped, but never later than GRACE_MS (onnxruntime-web cannot be
 * interrupted within a step).
 */
import { MixdqError, throwIfAborted } from "./errors.ts";

const GRACE_MS = 200;
const IDLE_MS = 2000;

export class Queue {
  #current: { readonly signal: AbortSignal | undefined } | undefined;
  /** Settles when nothing runs; holds no result. */
  #windingDown: Promise<void> = Promise.resolve();

  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    throwIfAborted(signal);
    if (this.#current && !this.#current.signal?.aborted) {
      throw new MixdqError("busy", "A picture is being made already. Wait for it, or cancel it with its signal.");
    }
    const current = (this.#current = { signal });
    let hasBegun = false;
    const job = this.#windingDown.then(() => {
      throwIfAborted(signal);
      hasBegun = true;
      return work();
    });
    this.#windingDown = settled(job);
    try {
      return await soonAfterAbort(job, signal, () => (hasBegun ? GRACE_MS : 0));
    } finally {
      if (this.#current === current) this.#current = undefined;
    }
  }

  /** Resolves when nothing runs any more, or when what runs has not ended for IDLE_MS. */
  idle(): Promise<void> {
    return atMost(IDLE_MS, this.#windingDown);
  }
}

/** The job's result; once the signal has fired `aborted`, when the job has ended or after `grace` milliseconds. */
export async function soonAfterAbort<T>(
  job: Promise<T>,
  signal: AbortSignal | undefined,
  grace: () => number = () => GRACE_MS,
): Promise<T> {
  if (!signal) return job;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let onAbort = (): void => {};
  const graceIsOver = new Promise<void>((resolve) => {
    onAbort = () => (timer = setTimeout(resolve, grace()));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    const result = await Promise.race([job, graceIsOver]);
    throwIfAborted(signal);
    return result as T;
  } catch (error) {
    throwIfAborted(signal); // whatever else went wrong then: nobody wants it any more
    throw error;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** Resolves when the work has ended, however it did. */
export function settled(work: Promise<unknown>): Promise<void> {
  return work.then(
    () => {},
    () => {},
  );
}

/** Resolves with the work, or after so many milliseconds. */
export async function atMost(ms: number, work: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const isOver = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work, isOver]);
  clearTimeout(timer);
}
