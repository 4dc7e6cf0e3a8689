/**
 * Ways to compute the same thing. A variant is data: what it needs of a device, which products it can take, and its
 * dispatches. The tuner checks and times the variants of a family; a new one is an entry in its family's list and a shader.
 */
import type { DeviceFacts, Dispatch, KernelContext } from "./kernel.ts";

/** Facts that a variant may need. */
export type Need = { [K in keyof DeviceFacts]: DeviceFacts[K] extends boolean ? K : never }[keyof DeviceFacts];

export interface Variant<P> {
  /** As the tuner and `--kernels` name it. */
  readonly name: string;
  readonly needs: readonly Need[];
  /** Whether it can compute `product` at all. */
  accepts(product: P): boolean;
  dispatches(product: P, context: KernelContext): Dispatch[];
}

/** The variant called `name`, or the last one in the list, which needs nothing and takes everything, where that cannot be. */
export function variantFor<P>(
  variants: readonly Variant<P>[],
  name: string,
  product: P,
  facts: DeviceFacts,
): Variant<P> {
  const chosen = variants.find((variant) => variant.name === name);
  return chosen && runsOn(chosen, facts) && chosen.accepts(product) ? chosen : variants.at(-1)!;
}

export const runsOn = ({ needs }: Pick<Variant<never>, "needs">, facts: DeviceFacts): boolean =>
  needs.every((need) => facts[need]);
