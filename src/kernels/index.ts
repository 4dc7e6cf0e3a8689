/** Op kind -> kernel: the whole room behind two functions. */
import type { Graph, Op, OpKind } from "../graph/ops.ts";
import { quantizeActivations } from "../quant/activations.ts";
import { attention } from "./attention.ts";
import { conv2d } from "./conv2d.ts";
import type { Dispatch, Kernel, KernelContext, TwinInputs } from "./kernel.ts";
import { groupNorm, layerNorm } from "./norm.ts";
import { linear } from "./linear.ts";
import { embedding, gather, quantize, unary } from "./pointwise.ts";
import { quantizeLayers } from "./quantized.ts";

const KERNELS: { [K in OpKind]: Kernel<Extract<Op, { kind: K }>> } = {
  linear,
  conv2d,
  group_norm: groupNorm,
  layer_norm: layerNorm,
  attention,
  embedding,
  gather,
  unary,
  quantize,
};

/** How the GPU computes an op. */
export function dispatchesOf(op: Op, context: KernelContext): Dispatch[] {
  return (KERNELS[op.kind] as Kernel<Op>).dispatches(op, context);
}

/** What an op must give: floats, or the stored codes of an i8 result. */
export function referenceOf(op: Op, inputs: TwinInputs): Float32Array {
  const values = (KERNELS[op.kind] as Kernel<Op>).reference(op, inputs);
  const { codes } = op.y;
  return codes ? Float32Array.from(quantizeActivations(values, codes, codes.bits)) : values;
}

/**
 * A whole graph by its twins: slow, exact, needs nothing but memory.
 * `inputs` by name, channels-last; returns the outputs by name. `matrices`, the weights of layers in integers by name, are
 * rounded from `weight` as the configuration says where they are not given.
 */
export function runReference(
  graph: Graph,
  inputs: Readonly<Record<string, ArrayLike<number>>>,
  weight: TwinInputs["weight"],
  matrices: TwinInputs["matrices"] = quantizeLayers(graph, weight),
): Record<string, Float32Array> {
  const values = new Map<number, Float32Array>();
  for (const [name, tensor] of Object.entries(graph.inputs)) values.set(tensor.id, Float32Array.from(inputs[name]));
  const twin: TwinInputs = { tensor: ({ id }) => values.get(id)!, weight, matrices };
  for (const op of graph.ops) values.set(op.y.id, referenceOf(op, twin));
  return Object.fromEntries(Object.entries(graph.outputs).map(([name, { id }]) => [name, values.get(id)!]));
}
