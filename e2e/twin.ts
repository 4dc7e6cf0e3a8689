/** Seeded data for a graph, the graph on a device, and the comparison with its twins. */
import { runReference } from "../src/kernels/index.ts";
import type { DeviceCaps } from "../src/kernels/kernel.ts";
import { elementCount, type Graph, type Weight } from "../src/graph/ops.ts";
import type { GpuContext } from "../src/gpu/context.ts";
import { Executor, type Inputs } from "../src/gpu/executor.ts";
import { fillStore, type HeldWeights } from "../src/gpu/fillStore.ts";
import { WeightStore } from "../src/gpu/store.ts";
import { quantizeLayers } from "../src/kernels/quantized.ts";
import { makePlan } from "../src/plan/plan.ts";
import { fromHalf, toHalf } from "../src/quant/half.ts";

/** mulberry32: small, seeded, good enough for test data. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface GraphData extends HeldWeights {
  readonly inputs: Inputs;
}

/** Inputs and weights within +-1 (weights scaled by their fan-in), rounded to f16 where the graph stores f16. */
export function makeData(graph: Graph, seed: number, dtype: "f32" | "f16", magnitude = 1): GraphData {
  const next = random(seed);
  const rounded = (values: Float32Array, as: string): Float32Array =>
    as === "f16" ? fromHalf(toHalf(values)) : values;
  const inputs: Record<string, Float32Array | Uint32Array> = {};
  for (const [name, { shape, dtype: type }] of Object.entries(graph.inputs)) {
    const count = elementCount(shape);
    inputs[name] =
      type === "u32"
        ? Uint32Array.from({ length: count }, () => Math.floor(next() * 5))
        : rounded(
            Float32Array.from({ length: count }, () => (next() * 2 - 1) * magnitude),
            type,
          );
  }
  const weights = new Map<string, Float32Array>();
  for (const { name, shape } of graph.weights) {
    const fanIn = shape.length > 1 ? elementCount(shape.slice(1)) : 1;
    const scale = Math.min(1, Math.sqrt(3 / fanIn)) * (shape.length > 1 ? magnitude : 1);
    const values = Float32Array.from({ length: elementCount(shape) }, () => (next() * 2 - 1) * scale);
    weights.set(name, shape.length > 1 ? rounded(values, dtype) : values);
  }
  return { inputs, weights, matrices: matricesOf(graph, weights) };
}

/** What a device and its twin both compute with, of layers in integers. */
export const matricesOf = (graph: Graph, weights: GraphData["weights"]): GraphData["matrices"] =>
  quantizeLayers(graph, ({ name }) => weights.get(name)!);

/** The graph through the kernels; `caps` makes its plan as if for another device. */
export async function runOnDevice(
  context: GpuContext,
  graph: Graph,
  data: GraphData,
  weightType: "f32" | "f16",
  caps = context.caps,
): Promise<Record<string, Float32Array>> {
  const plan = makePlan(graph, { caps, limits: context.limits, weightType });
  const store = await WeightStore.create(context.device, graph.name, plan.weights);
  try {
    await fillStore(store, graph, data);
    return await new Executor(context, plan, store).run(data.inputs);
  } finally {
    store.destroy();
  }
}

/**
 * A device whose grids are so short that those of this graph have to be folded; undefined where each kernel has one
 * workgroup. The pipelines are the same: folding only changes how many workgroups there are, and in which rows.
 */
export function shortGrids(context: GpuContext, graph: Graph, weightType: "f32" | "f16"): DeviceCaps | undefined {
  const { caps, limits } = context;
  const most = Math.max(...makePlan(graph, { caps, limits, weightType }).dispatches.map(({ workgroups: [x] }) => x));
  return most > 1 ? { ...caps, maxWorkgroupsPerDimension: Math.ceil(Math.sqrt(most)) } : undefined;
}

/** The graph through its twins. */
export function runTwin(graph: Graph, { inputs, weights, matrices }: GraphData): Record<string, Float32Array> {
  return runReference(graph, inputs, ({ name }: Weight) => weights.get(name)!, matrices);
}

/** The worst error relative to the largest expected value, and where; NaN and infinity count as infinitely wrong. */
export function worstError(got: Float32Array, expected: Float32Array): { error: number; text: string } {
  if (got.length !== expected.length)
    return { error: Infinity, text: `${got.length} values, expected ${expected.length}` };
  let greatest = 1e-30;
  for (const value of expected) greatest = Math.max(greatest, Math.abs(value));
  let error = 0;
  let at = 0;
  for (let i = 0; i < got.length; i++) {
    const e = Math.abs(got[i] - expected[i]);
    if (!(e <= error)) [error, at] = [Number.isFinite(e) ? e : Infinity, i];
  }
  return {
    error: error / greatest,
    text: `worst at ${at} of ${got.length}: got ${got[at]}, expected ${expected[at]}; relative ${error / greatest}`,
  };
}
