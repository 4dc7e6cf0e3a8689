/**
 * Each op of our vocabulary as ONNX nodes, the way an exporter followed by ONNX Runtime's transformer optimizer would
 * leave them: this is the graph we compare ourselves with, so it uses the best operators that both the WebGPU and the
 * WebAssembly provider have (Gemm with bias, MultiHeadAttention, QuickGelu for SiLU).
 */
import { MixdqError } from "../base/errors.ts";
import type {
  Activation,
  AttentionOp,
  Conv2dOp,
  EmbeddingOp,
  GatherOp,
  GroupNormOp,
  LayerNormOp,
  LinearOp,
  LinearPart,
  Op,
  Tensor,
  UnaryOp,
} from "../graph/ops.ts";
import type { Layouts } from "./layout.ts";
import type { ModelWriter } from "./model.ts";

/** Adds the nodes of one op and says where its result lies. */
export function lowerOp(op: Op, model: ModelWriter, values: Layouts): void {
  switch (op.kind) {
    case "linear":
      return linear(op, model, values);
    case "conv2d":
      return conv2d(op, model, values);
    case "group_norm":
      return groupNorm(op, model, values);
    case "layer_norm":
      return layerNorm(op, model, values);
    case "attention":
      return attention(op, model, values);
    case "embedding":
      return embedding(op, model, values);
    case "gather":
      return gather(op, model, values);
    case "unary":
      return unary(op, model, values);
  }
}

function linear(op: LinearOp, model: ModelWriter, values: Layouts): void {
  const x = values.get(op.x, "rows");
  if (op.activation === "geglu" && op.parts.length === 1) {
    // Value and gate are the two halves of the weight's rows: two products need no copy to take them apart.
    const half = op.y.shape[3];
    const value = gemm(model, op.parts[0], x, { from: 0, count: half });
    const gate = gemm(model, op.parts[0], x, { from: half, count: half });
    return values.set(op.y, "rows", model.node(op.path, "Mul", [value, model.node(op.path, "Gelu", [gate])]));
  }
  const parts = op.parts.map((part) => ({ name: gemm(model, part, x), channels: part.weight.shape[0] }));
  if (parts.length > 1 && op.activation === "none" && !op.residual) {
    let end = 0;
    const placed = parts.map(({ name, channels }) => ({ name, channels, offset: (end += channels) - channels }));
    return values.setParts(op.y, placed);
  }
  const names = parts.map((part) => part.name);
  let y = names.length > 1 ? model.node(op.path, "Concat", names, { axis: 1 }) : names[0];
  if (op.activation === "geglu") {
    const half = op.y.shape[3];
    const take = (from: number) =>
      model.node(op.path, "Slice", [y, model.i64([from]), model.i64([from + half]), model.i64([1])]);
    y = model.node(op.path, "Mul", [take(0), model.node(op.path, "Gelu", [take(half)])]);
    return values.set(op.y, "rows", y);
  }
  let layout: "rows" | "nchw" = "rows";
  if (op.residual) {
    // A transformer's result is added to an image: meet in the image's layout, where the next block wants it.
    if (values.native(op.residual) === "nchw") y = values.channelsFirst(op.path, y, op.y.shape);
    layout = values.native(op.residual);
    y = model.node(op.path, "Add", [y, values.get(op.residual, layout)]);
  }
  values.set(op.y, layout, activate(model, op.path, y, op.activation));
}

/** x [M, K] W^T + b as one node; the weight stays as the checkpoint has it, [N, K]. */
function gemm(model: ModelWriter, part: LinearPart, x: string, rows?: { from: number; count: number }): string {
  const n = rows?.count ?? part.weight.shape[0];
  const inputs = [x, model.weight(part.weight, [n, part.weight.shape[1]], rows)];
  if (part.bias) inputs.push(model.weight(part.bias, [n], rows));
  return model.node(part.path, "Gemm", inputs, { transB: 1 });
}

function conv2d(op: Conv2dOp, model: ModelWriter, values: Layouts): void {
  const [batch, height, width] = op.y.shape;
  let x = joined(op, values);
  if (op.upsample) {
    const k = op.x.shape[3] + (op.x2?.shape[3] ?? 0);
    const sizes = model.i64([batch, k, height, width]);
    x = model.node(op.path, "Resize", [x, "", "", sizes], {
      mode: "nearest",
      coordinate_transformation_mode: "asymmetric",
      nearest_mode: "floor",
    });
  }
  const pad = (op.kernel - 1) / 2;
  const inputs = [x, model.weight(op.weight), ...(op.bias ? [model.weight(op.bias)] : [])];
  let y = model.node(op.path, "Conv", inputs, {
    kernel_shape: [op.kernel, op.kernel],
    pads: op.padding === "end" ? [0, 0, 1, 1] : [pad, pad, pad, pad],
    strides: [op.stride, op.stride],
    dilations: [1, 1],
    group: 1,
  });
  if (op.rowBias) y = model.node(op.path, "Add", [y, values.get(op.rowBias, "nchw")]);
  if (op.residual) y = model.node(op.path, "Add", [y, values.get(op.residual, "nchw")]);
  values.set(op.y, "nchw", activate(model, op.path, y, op.activation));
}

function groupNorm(op: GroupNormOp, model: ModelWriter, values: Layouts): void {
  const [batch, height, width, channels] = op.y.shape;
  const ones = model.floats(new Array<number>(op.groups).fill(1));
  const zeros = model.floats(new Array<number>(op.groups).fill(0));
  const size = (channels / op.groups) * height * width;
  const grouped = model.node(op.path, "Reshape", [joined(op, values), model.i64([batch, op.groups, size])]);
  const normed = model.node(op.path, "InstanceNormalization", [grouped, ones, zeros], { epsilon: { float: op.eps } });
  let y = model.node(op.path, "Reshape", [normed, model.i64([batch, channels, height, width])]);
  y = model.node(op.path, "Mul", [y, model.weight(op.weight, [channels, 1, 1])]);
  y = model.node(op.path, "Add", [y, model.weight(op.bias, [channels, 1, 1])]);
  values.set(op.y, "nchw", activate(model, op.path, y, op.activation));
}

function layerNorm(op: LayerNormOp, model: ModelWriter, values: Layouts): void {
  const inputs = [values.get(op.x, "rows"), model.weight(op.weight), model.weight(op.bias)];
  values.set(op.y, "rows", model.node(op.path, "LayerNormalization", inputs, { axis: 1, epsilon: { float: op.eps } }));
}

function attention(op: AttentionOp, model: ModelWriter, values: Layouts): void {
  const [batch, height, width, channels] = op.y.shape;
  const tokens = height * width;
  const sequence = (slice: AttentionOp["q"]) => {
    const [, h, w] = slice.tensor.shape;
    return model.node(op.path, "Reshape", [values.slice(slice), model.i64([batch, h * w, slice.channels])]);
  };
  const [q, k, v] = [op.q, op.k, op.v].map(sequence);
  // Finite, so that a tile whose every key is masked is merely tiny and never a NaN; it fits a 16-bit float.
  const mask = op.causal
    ? model.made(`causal ${tokens}`, [1, 1, tokens, tokens], () =>
        Float32Array.from({ length: tokens * tokens }, (_, i) => (i % tokens > Math.floor(i / tokens) ? -60000 : 0)),
      )
    : undefined;
  const scale = (channels / op.heads) ** -0.5;
  const y = model.fusedAttention
    ? model.node(op.path, "com.microsoft.MultiHeadAttention", mask ? [q, k, v, "", "", mask] : [q, k, v], {
        num_heads: op.heads,
        scale: { float: scale },
      })
    : plainAttention(op, [q, k, v], mask, scale, model);
  values.set(op.y, "rows", model.node(op.path, "Reshape", [y, model.i64([batch * tokens, channels])]));
}

/** The same in ONNX's own operators, scores in memory. */
function plainAttention(
  { path, heads, y, k }: AttentionOp,
  sequences: readonly string[],
  mask: string | undefined,
  scale: number,
  model: ModelWriter,
): string {
  const [batch, height, width, channels] = y.shape;
  const keys = k.tensor.shape[1] * k.tensor.shape[2];
  // q and v [B, heads, T, d], k [B, heads, d, T].
  const [q, kT, v] = sequences.map((sequence, i) => {
    const shape = model.i64([batch, i === 0 ? height * width : keys, heads, channels / heads]);
    const perHead = model.node(path, "Reshape", [sequence, shape]);
    return model.node(path, "Transpose", [perHead], { perm: i === 1 ? [0, 2, 3, 1] : [0, 2, 1, 3] });
  });
  // Scaling q rather than the scores: fewer elements, and 16-bit scores stay small.
  let scores = model.node(path, "MatMul", [model.node(path, "Mul", [q, model.floats([scale])]), kT]);
  if (mask) scores = model.node(path, "Add", [scores, mask]);
  const mixed = model.node(path, "MatMul", [model.node(path, "Softmax", [scores], { axis: 3 }), v]);
  return model.node(path, "Transpose", [mixed], { perm: [0, 2, 1, 3] });
}

function embedding(op: EmbeddingOp, model: ModelWriter, values: Layouts): void {
  const [batch, , tokens, channels] = op.y.shape;
  const ids = model.node(op.path, "Reshape", [values.get(op.ids, "nhwc"), model.i64([batch, tokens])]);
  const looked = model.node(op.path, "Gather", [model.weight(op.table), ids], { axis: 0 });
  const positions = model.weight(op.positions, [tokens, channels], { from: 0, count: tokens });
  const y = model.node(op.path, "Add", [looked, positions]);
  values.set(op.y, "rows", model.node(op.path, "Reshape", [y, model.i64([batch * tokens, channels])]));
}

function gather(op: GatherOp, model: ModelWriter, values: Layouts): void {
  const [batch, height, width] = op.x.shape;
  const tokens = height * width;
  let index = model.node(op.path, "Reshape", [values.get(op.index, "nhwc"), model.i64([batch])]);
  // Sequence b begins at row b * tokens.
  const starts = Array.from({ length: batch }, (_, b) => b * tokens);
  if (batch > 1) index = model.node(op.path, "Add", [index, model.i32(starts, [batch])]);
  values.set(op.y, "rows", model.node(op.path, "Gather", [values.get(op.x, "rows"), index], { axis: 0 }));
}

function unary(op: UnaryOp, model: ModelWriter, values: Layouts): void {
  const layout = values.native(op.x);
  const x = values.get(op.x, layout);
  values.set(op.y, layout, unaryNode(op, x, model));
}

function unaryNode({ path, fn }: UnaryOp, x: string, model: ModelWriter): string {
  const scaled = (name: string, factor: number) => model.node(path, "Mul", [name, model.floats([factor])]);
  switch (fn.name) {
    case "silu":
      return activate(model, path, x, "silu");
    case "soft_clamp":
      return scaled(model.node(path, "Tanh", [scaled(x, 1 / 3)]), 3);
    case "affine":
      return model.node(path, "Add", [scaled(x, fn.scale), model.floats([fn.shift])]);
  }
}

function activate(model: ModelWriter, path: string, x: string, activation: Activation): string {
  switch (activation) {
    case "none":
      return x;
    case "relu":
      return model.node(path, "Relu", [x]);
    case "gelu":
      return model.node(path, "Gelu", [x]);
    // x * sigmoid(alpha * x) in one kernel: SiLU is alpha = 1.
    case "silu":
      return model.node(path, "com.microsoft.QuickGelu", [x], { alpha: { float: 1 } });
    case "quick_gelu":
      return model.node(path, "com.microsoft.QuickGelu", [x], { alpha: { float: 1.702 } });
    case "geglu":
      throw new MixdqError("unsupported", `${path}: got geglu after a convolution, expected it after a linear layer.`);
  }
}

/** x, with x2's channels after it, channels-first. */
function joined(op: { path: string; x: Tensor; x2?: Tensor }, values: Layouts): string {
  return op.x2 ? values.concat(op.path, op.x, op.x2) : values.get(op.x, "nchw");
}
