/** Which weight of a graph a checkpoint's tensor is. */
import type { Weight } from "./ops.ts";

/** Weights by the names that checkpoints give them: their own, and those of older checkpoints. */
export type NameMap = ReadonlyMap<string, Weight>;

export function nameMap(weights: Iterable<Weight>): NameMap {
  const names = new Map<string, Weight>();
  for (const weight of weights) for (const name of [weight.name, ...(weight.aliases ?? [])]) names.set(name, weight);
  return names;
}
