/** What evaluations cost, in multiply-accumulates: so that a progress bar knows how long the rest takes. */
import type { Plan } from "../../plan/plan.ts";
import type { Site } from "./sites.ts";

export class CostModel {
  /** Of dispatches i, i + 1, ... less those of the text, which are not computed again. */
  readonly #after: readonly number[];
  readonly #network: number;
  readonly #decoding: number;

  /** `decoded` is the share of the samples whose pictures are decoded. */
  constructor({ dispatches, textDispatches }: Plan, decoder: Plan, decoded: number) {
    const sum = (plan: Pick<Plan, "dispatches">): number => plan.dispatches.reduce((all, { work }) => all + work, 0);
    this.#network = sum({ dispatches });
    this.#decoding = decoded * sum(decoder);
    const after = new Array<number>(dispatches.length + 1).fill(0);
    for (let i = dispatches.length - 1; i >= 0; i--)
      after[i] = after[i + 1] + (textDispatches.has(dispatches[i]) ? 0 : dispatches[i].work);
    this.#after = after;
  }

  /** Of one evaluation of a layer and one sample. */
  of({ from }: Site, wantsPicture: boolean): number {
    return this.#after[from] + (wantsPicture ? this.#decoding : 0);
  }

  /** How much of a full run of the network an evaluation of a layer runs, 0 to 1. */
  shareOfNetwork({ from }: Site): number {
    return this.#after[from] / this.#network;
  }
}
