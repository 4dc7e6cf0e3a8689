/**
 * Where a network is disturbed, and with what: every layer as a stretch of the plan, and the list of evaluations, which
 * shards divide among them.
 */
import { quantizableLayers, type QuantizableLayer } from "../calibration/layers.ts";
import type { Conv2dOp, Graph, LinearOp, Tensor } from "../../graph/ops.ts";
import type { Plan } from "../../plan/plan.ts";

/** A layer and the dispatches that compute it. */
export interface Site extends QuantizableLayer {
  readonly op: LinearOp | Conv2dOp;
  /** Dispatches `from` .. `to` of the plan, which compute the op (and the other layers that are fused in it). */
  readonly from: number;
  readonly to: number;
  /** The channels of op.y that are this layer's. */
  readonly firstColumn: number;
  readonly columns: number;
  /** Whether all channels are. */
  readonly isAlone: boolean;
}

/** All layers of a float graph, in the order in which its plan runs them. */
export function sitesOf(graph: Graph, plan: Pick<Plan, "dispatches">): Site[] {
  const ops = new Map<string, { op: LinearOp | Conv2dOp; from: number; to: number }>();
  for (const op of graph.ops) {
    if (op.kind !== "linear" && op.kind !== "conv2d") continue;
    const weight = op.kind === "linear" ? op.parts[0].weight : op.weight;
    const from = plan.dispatches.findIndex(({ bindings }) =>
      Object.values(bindings).some((bound) => "key" in bound && bound.sources.some(({ name }) => name === weight.name)),
    );
    const to =
      1 +
      plan.dispatches.findLastIndex(({ bindings, writes }) => writes.some((name) => isTensor(bindings[name], op.y)));
    if (from < 0 || to <= from) throw new Error(`${op.path}: its dispatches are not in the plan of ${graph.name}`);
    const paths = op.kind === "linear" ? op.parts.map(({ path }) => path) : [op.path];
    for (const path of paths) ops.set(path, { op, from, to });
  }
  return quantizableLayers(graph).map((layer) => {
    const place = ops.get(layer.path)!;
    const { op } = place;
    const parts = op.kind === "linear" ? op.parts : [op];
    const index = op.kind === "linear" ? op.parts.findIndex(({ path }) => path === layer.path) : 0;
    const firstColumn = parts.slice(0, index).reduce((sum, { weight }) => sum + weight.shape[0], 0);
    const isAlone = parts.length === 1;
    return { ...layer, ...place, firstColumn, columns: isAlone ? op.y.shape[3] : layer.weight.shape[0], isAlone };
  });
}

function isTensor(bound: object | undefined, { id }: Tensor): boolean {
  return bound !== undefined && "id" in bound && bound.id === id;
}

export type Side = "weight" | "activation";

/** One thing to try: one side of one layer at so many bits. */
export interface Evaluation {
  readonly path: string;
  readonly side: Side;
  readonly bits: number;
}

/** Its name among all of a run. */
export const keyOf = ({ path, side, bits }: Evaluation): string => `${path} ${side} ${bits}`;

/** The bits to try. */
export interface Candidates {
  readonly weight: readonly number[];
  readonly activation: readonly number[];
}

/** A layer's evaluations: its weights first, each side from few bits to many. */
export function evaluationsOf(path: string, candidates: Candidates): Evaluation[] {
  return (["weight", "activation"] as const).flatMap((side) => candidates[side].map((bits) => ({ path, side, bits })));
}

/**
 * The layers of shard `index` (from 1) of `count`: every count-th in the order of the plan. The nearer a layer is to the
 * end, the cheaper its evaluations, so neighbours cost about the same and all shards too.
 */
export function shardOf<T>(layers: readonly T[], { index, count }: { index: number; count: number }): T[] {
  return layers.filter((_, i) => i % count === index - 1);
}
