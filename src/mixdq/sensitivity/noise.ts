/** Signal to noise over many samples. */
import { MixdqError } from "../../base/errors.ts";

/** dB given where the noise is nothing at all, or less than this: JSON has no infinity. */
export const QUIET = 200;

/** 10 log10(sum reference^2 / sum (reference - value)^2), both sums over all samples (MixDQ's form), in f64. */
export class SignalToNoise {
  #signal = 0;
  #noise = 0;

  /** Throws `invalid-output` where a value is not finite; `what` says of what, for messages. */
  add(reference: ArrayLike<number>, values: ArrayLike<number>, what: string): void {
    for (let i = 0; i < reference.length; i++) {
      const expected = reference[i];
      this.#signal += expected * expected;
      this.#noise += (expected - values[i]) ** 2;
    }
    if (!Number.isFinite(this.#noise))
      throw new MixdqError(
        "invalid-output",
        `${what} is not finite: its numbers left the range of 16-bit floats. Use --precision fp32.`,
      );
  }

  get decibels(): number {
    return this.#noise === 0 ? QUIET : Math.min(QUIET, 10 * Math.log10(this.#signal / this.#noise));
  }
}
