/** A signal as something to race against: GPU calls take none, and nobody should wait for them after a cancel. */
import { throwIfAborted } from "../errors.ts";

export interface Cancellation {
  readonly signal: AbortSignal | undefined;
  /** Rejects with `aborted` when the signal fires. */
  readonly aborted: Promise<never>;
  /** To be called once nobody waits any more. */
  forget(): void;
}

export function listenTo(signal: AbortSignal | undefined): Cancellation {
  let listener: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    listener = () => {
      try {
        throwIfAborted(signal);
      } catch (error) {
        reject(error);
      }
    };
    signal?.addEventListener("abort", listener);
  });
  aborted.catch(() => {}); // the run may be over before anyone listens
  return { signal, aborted, forget: () => signal?.removeEventListener("abort", listener!) };
}
