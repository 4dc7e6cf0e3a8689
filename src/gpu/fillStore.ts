/** Weights that are in memory as a whole, for checks and benchmarks. */
import type { Graph } from "../graph/ops.ts";
import { toHalf } from "../quant/half.ts";
import type { QuantizedMatrix } from "../quant/matrix.ts";
import type { WeightStore } from "./store.ts";

/** By name; a layer in integers has its floats and what they were rounded to. */
export interface HeldWeights {
  readonly weights: ReadonlyMap<string, Float32Array>;
  readonly matrices: ReadonlyMap<string, QuantizedMatrix>;
}

/** Uploads all weights of a graph. */
export async function fillStore(
  store: WeightStore,
  graph: Pick<Graph, "weights">,
  { weights, matrices }: HeldWeights,
): Promise<void> {
  for (const { name } of graph.weights) {
    const [matrix, floats] = [matrices.get(name), weights.get(name)!];
    if (matrix) await store.acceptMatrix(name, matrix);
    else await store.accept(name, (dtype) => (dtype === "f16" ? toHalf(floats) : floats));
  }
  store.assertComplete();
}
