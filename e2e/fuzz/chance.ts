/** Chance that can be repeated: everything about an input follows from a seed and the input's number. */
import { seededRandom } from "../../src/mixdq/quality/bootstrap.ts";

export class Chance {
  readonly #random: () => number;

  constructor(seed: number, index: number) {
    // Neighbouring numbers must not give neighbouring states.
    this.#random = seededRandom(Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b));
  }

  /** 0 .. below - 1. */
  below(below: number): number {
    return Math.floor(this.#random() * below);
  }

  /** True once in so many times. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  /** One of those with weights. */
  weighted<T extends { readonly weight: number }>(items: readonly T[]): T {
    let left = this.#random() * items.reduce((sum, { weight }) => sum + weight, 0);
    return items.find(({ weight }) => (left -= weight) < 0) ?? items.at(-1)!;
  }
}
