/** What of a run's memory matters at a point of the plan: so much has to be kept to go on from there. */
import type { Tensor } from "../graph/ops.ts";
import type { Dispatch } from "../kernels/kernel.ts";
import type { Plan } from "../plan/plan.ts";

/** A place in an arena, or in the memory for what outlives a run (KEPT). */
export interface Piece {
  readonly arena: number;
  readonly offset: number;
  readonly bytes: number;
}

export interface Snapshot {
  /** The dispatch that comes next. */
  readonly at: number;
  /** The pieces one after the other; whoever took the snapshot destroys it. */
  readonly buffer: GPUBuffer;
  readonly pieces: readonly Piece[];
}

/** Ids of the tensors that exist before dispatch `at` and are bound by it or by a later one. */
export function aliveAt({ inputs, dispatches, outputs }: Pick<Plan, "inputs" | "dispatches" | "outputs">, at: number) {
  const before = new Set(Object.values(inputs).map(({ id }) => id));
  for (const dispatch of dispatches.slice(0, at)) for (const { id } of tensorsOf(dispatch)) before.add(id);
  const alive = new Set<number>();
  for (const dispatch of dispatches.slice(at))
    for (const { id } of tensorsOf(dispatch)) if (before.has(id)) alive.add(id);
  for (const { id } of Object.values(outputs)) if (before.has(id)) alive.add(id);
  return alive;
}

function tensorsOf({ bindings }: Dispatch): Tensor[] {
  return Object.values(bindings).flatMap((bound) => ("id" in bound ? [bound] : []));
}
