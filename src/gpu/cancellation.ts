/** A signal as something to race against: GPU calls take none, and nobody should wait for them after a cancel. */
import { throwIfAborted } from "../base/errors.ts";

export interface Cancellation {
  readonly signal: AbortSignal | undefined;
  /** Rejects with `aborted` when the signal fires. */
  readonly aborted: Promise<never>;
  /** To be called once nobody waits any more. */
  forget(): void;
}

export function listenTo(signal: AbortSignal | undefined): Cancellation {
  let listener = (): void => {};
  const fired = new Promise<void>((resolve) => (listener = resolve));
  signal?.addEventListener("abort", listener);
  const aborted = fired.then(() => throwIfAborted(signal)) as Promise<never>;
  aborted.catch(() => {}); // the run may be over before anyone listens
  return { signal, aborted, forget: () => signal?.removeEventListener("abort", listener) };
}
