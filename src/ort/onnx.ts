/**
 * A Graph as an ONNX model in memory.
 *
 * Inputs and outputs are the graph's own, channels-last and 32 bits wide, so that a caller sees the bytes it knows from
 * our executor; in between the layout is what ONNX's operators want. With `float: "f16"` everything in between is
 * stored in 16 bits (normalisation statistics are kept in 32 by ONNX Runtime's kernels).
 */
import type { DType, Graph, Shape } from "../graph/ops.ts";
import { Layouts } from "./layout.ts";
import { lowerOp } from "./lower.ts";
import { ModelWriter } from "./model.ts";
import type { ExternalData, OnnxOptions, WeightSource } from "./model.ts";
import { ELEMENT_TYPES } from "./protobuf.ts";

/** One input or output: its key in the graph, its name in the model, and what the caller passes or gets. */
export interface Port {
  readonly key: string;
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: "f32" | "u32";
}

export interface OnnxModel {
  /** The bytes of an .onnx file whose big tensors lie outside. */
  readonly model: Uint8Array<ArrayBuffer>;
  /** The big tensors, each a file of its own; views of the arrays that the weight source returned where possible. */
  readonly externalData: readonly ExternalData[];
  readonly externalBytes: number;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

/** Throws `invalid-model` where a weight has not the size that the graph expects. */
export function graphToOnnx(graph: Graph, weights: WeightSource, options: OnnxOptions): OnnxModel {
  const model = new ModelWriter(weights, options);
  const values = new Layouts(model);
  const inputs: Port[] = [];
  const outputs: Port[] = [];
  for (const [key, tensor] of Object.entries(graph.inputs)) {
    const name = model.unique(key);
    const dtype = portType(tensor.dtype);
    inputs.push({ key, name, shape: tensor.shape, dtype });
    // ONNX looks things up with signed indices: a u32 input is the same bytes as int32.
    model.inputs.push({ name, type: dtype === "u32" ? "i32" : "f32", shape: tensor.shape });
    const narrow = dtype === "f32" && options.float === "f16";
    values.set(tensor, "nhwc", narrow ? model.node(key, "Cast", [name], { to: ELEMENT_TYPES.f16 }) : name);
  }
  for (const op of graph.ops) lowerOp(op, model, values);
  const named = new Set(inputs.map((port) => port.name));
  for (const [key, tensor] of Object.entries(graph.outputs)) {
    const type = tensor.dtype === "u32" ? "i32" : "f32";
    let name = values.get(tensor, "nhwc");
    // An output needs a name of its own; a cast to what the value already is copies it.
    if (named.has(name) || options.float === "f16") name = model.node(key, "Cast", [name], { to: ELEMENT_TYPES[type] });
    named.add(name);
    outputs.push({ key, name, shape: tensor.shape, dtype: portType(tensor.dtype) });
    model.outputs.push({ name, type, shape: tensor.shape });
  }
  return {
    model: model.finish(graph.name),
    externalData: model.external,
    externalBytes: model.externalBytes,
    inputs,
    outputs,
  };
}

function portType(dtype: DType): "f32" | "u32" {
  return dtype === "u32" ? "u32" : "f32";
}
