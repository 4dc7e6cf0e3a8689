/**
 * From a graph to the layers that can be quantized: every nn.Linear and nn.Conv2d of the UNet under its module path,
 * also where the graph computes several in one op (to_q, to_k and to_v over one input). Calibration, sensitivity,
 * presets and the allocator all go by this list. For SDXL-Turbo it has MixDQ's 794 layers.
 */
import { elementCount, type Conv2dOp, type Graph, type LinearOp, type Tensor, type Weight } from "../../graph/ops.ts";

export interface QuantizableLayer {
  /** diffusers' module path, without `.weight`. */
  readonly path: string;
  readonly kind: "linear" | "conv2d";
  /** As the graph names it: [N, K], or [N, K, kernel, kernel]. */
  readonly weight: Weight;
  /** The tensor the layer reads; of a shortcut over a concatenation its first half. */
  readonly input: Tensor;
  /** The second half of the concatenation, from the skip connection. */
  readonly skip?: Tensor;
  /** Elements of the weight; biases are never quantized. */
  readonly weights: number;
  /**
   * Elements of the input as diffusers' module gets it (both halves; of an upsampler's convolution after the
   * enlargement, which our op folds in), for the batch and picture size of the graph.
   */
  readonly activations: number;
  /** Keys or values of a cross-attention: reads the text, whose first token (BOS) is an outlier. */
  readonly isCrossKV: boolean;
  /** A convolution over a concatenation whose halves have ranges of their own. */
  readonly hasSkip: boolean;
}

/** The UNet's text input (diffusion/unet.ts): whatever reads it directly makes keys and values of it. */
const TEXT = "encoder_hidden_states";

/** All quantizable layers in the order in which the graph runs them. `graph` is a float graph of `buildUNet`. */
export function quantizableLayers(graph: Graph): QuantizableLayer[] {
  const text = graph.inputs[TEXT];
  return graph.ops.flatMap((op): QuantizableLayer[] => {
    if (op.kind === "linear")
      return op.parts.map(({ path, weight }) => layer(path, weight, op, text !== undefined && op.x.id === text.id));
    return op.kind === "conv2d" ? [layer(op.path, op.weight, op, false)] : [];
  });
}

function layer(path: string, weight: Weight, op: LinearOp | Conv2dOp, isCrossKV: boolean): QuantizableLayer {
  const skip = op.kind === "conv2d" ? op.x2 : undefined;
  return {
    path,
    kind: op.kind,
    weight,
    input: op.x,
    ...(skip && { skip }),
    weights: elementCount(weight.shape),
    activations: inputElements(op),
    isCrossKV,
    hasSkip: skip !== undefined,
  };
}

function inputElements(op: LinearOp | Conv2dOp): number {
  if (op.kind === "linear") return elementCount(op.x.shape);
  const [batch, height, width] = op.upsample ? op.y.shape : op.x.shape;
  return batch * height * width * (op.x.shape[3] + (op.x2 ? op.x2.shape[3] : 0));
}

/**
 * What a layer's errors damage, by MixDQ's rule (arXiv 2405.17873, section 4.3; its scripts go by these substrings):
 * `content` (what is in the picture) or `quality` (how well it is drawn).
 */
export type LayerGroup = "content" | "quality";

export const LAYER_GROUPS: readonly LayerGroup[] = ["content", "quality"];

export function layerGroup(path: string): LayerGroup {
  return path.includes("ff") || path.includes("attn2") ? "content" : "quality";
}

/** Kinds of layers as people speak of them, for tables; the first pattern that fits. */
const TYPES: readonly (readonly [type: string, path: RegExp])[] = [
  ["embedding", /^(time|add)_embedding\.|\.time_emb_proj$/],
  ["shortcut convolution", /\.conv_shortcut$/],
  ["convolution", /^conv_(in|out)$|\.conv[12]?$/],
  ["projection", /\.proj_(in|out)$/],
  ["self-attention", /\.attn1\./],
  ["cross-attention k, v", /\.attn2\.to_[kv]$/],
  ["cross-attention q, out", /\.attn2\./],
  ["feed-forward", /\.ff\.net\./],
];

/** "convolution", "self-attention", ...: what kind of layer a module path names; "other" where it is none of them. */
export function layerType(path: string): string {
  return TYPES.find(([, pattern]) => pattern.test(path))?.[0] ?? "other";
}
