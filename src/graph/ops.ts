/**
 * The op vocabulary: everything a model of this family computes, in one union.
 *
 * Activations are channels-last and always four-dimensional, [batch, height, width, channels]. A sequence of tokens is
 * an image one row high ([batch, 1, tokens, channels]), and an image is read as height x width tokens by every op that
 * wants tokens: nothing is ever reshaped or transposed.
 *
 * An op names the checkpoint module it comes from (`path`); the same string is the weight's prefix, the key of a
 * bit-width configuration, the GPU label, the profiler row and the error prefix.
 */

import type { WeightQuant } from "../quant/formats.ts";

/** [batch, height, width, channels]. */
export type Shape = readonly [batch: number, height: number, width: number, channels: number];

/**
 * How a tensor's elements are stored. Arithmetic on floats is always done in f32. i8: codes of a quantized activation,
 * see ActivationCodes.
 */
export type DType = "f32" | "f16" | "u32" | "i8";

/**
 * What the codes of an i8 tensor mean: x = scale (q - zeroPoint) with q in 0 .. 2^bits - 1, stored as q - 128.
 * Per tensor and static (MixDQ, arXiv 2405.17873, section 3).
 */
export interface ActivationCodes {
  readonly scale: number;
  /** An unsigned code, 0 .. 2^bits - 1. */
  readonly zeroPoint: number;
  readonly bits: number;
}

/** A value that exists while the graph runs: an input, an output or something between. */
export interface Tensor {
  readonly id: number;
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
  /** Given if and only if dtype is i8. */
  readonly codes?: ActivationCodes;
}

/** A parameter, under its checkpoint name and in its checkpoint shape (PyTorch's order). */
export interface Weight {
  readonly name: string;
  readonly shape: readonly number[];
  /** Names that older checkpoints give the same tensor. */
  readonly aliases?: readonly string[];
  /** Not in the checkpoint: computed from the weight of this name when it loads (a BOS cache, [images, N]). */
  readonly derivedFrom?: string;
}

/** Applied last, after bias, row bias and residual. `gelu` is the exact, erf form. */
export type Activation = "none" | "silu" | "relu" | "gelu" | "quick_gelu" | "geglu";

/** Some consecutive channels of a tensor, e.g. the keys within a fused query-key-value projection. */
export interface ChannelSlice {
  readonly tensor: Tensor;
  readonly offset: number;
  readonly channels: number;
}

/** One nn.Linear (or 1x1 convolution used as one): weight [N, K] or [N, K, 1, 1], bias [N]. */
export interface LinearPart {
  readonly path: string;
  readonly weight: Weight;
  readonly bias?: Weight;
  /** What this part reads, where that is not the op's x: the same values quantized, or not. */
  readonly x?: Tensor;
  /** Weights in integers: over an i8 x in integer arithmetic, over a float x decoded as they are read. */
  readonly quant?: WeightQuant;
  /**
   * [images, N]: W e_0 in full precision, which takes the place of the product for the first token of every image (of
   * the last one's row where there are fewer rows than images). MixDQ's BOS-aware quantization.
   */
  readonly bos?: Weight;
}

/**
 * y = activation(x W^T + b + residual) over the channels of every pixel. Several parts read the same x and write
 * consecutive channels of y (to_q, to_k and to_v at once). `geglu` takes the first half of the channels as value and
 * the second as gate: y = value * gelu(gate), so y has half of N; it takes no residual.
 */
export interface LinearOp {
  readonly kind: "linear";
  readonly path: string;
  readonly x: Tensor;
  readonly parts: readonly LinearPart[];
  readonly activation: Activation;
  readonly residual?: Tensor;
  readonly y: Tensor;
}

/**
 * y = activation(conv(concat(x, x2)) + b + rowBias + residual), zero padding of (kernel - 1) / 2 on every side, or, with
 * `padding: "end"`, of one row below and one column to the right only (diffusers' downsample_padding 0).
 * With `upsample`, the input is first enlarged by nearest neighbour to y's size, about twice its own: pixel (i, j) of
 * the enlarged image is pixel (floor(i H / H'), floor(j W / W')) of x.
 */
export interface Conv2dOp {
  readonly kind: "conv2d";
  readonly path: string;
  readonly x: Tensor;
  /** The skip connection: its channels follow x's. */
  readonly x2?: Tensor;
  /** [N, K, kernel, kernel]. */
  readonly weight: Weight;
  /** As in LinearPart. */
  readonly quant?: WeightQuant;
  /** The halves of the weight that x and x2 meet have scales of their own, as have x and x2 (MixDQ's shortcut split). */
  readonly split?: boolean;
  readonly bias?: Weight;
  readonly kernel: 1 | 3;
  readonly stride: 1 | 2;
  readonly padding: "same" | "end";
  readonly upsample: boolean;
  /** [batch, 1, 1, N], added to every pixel (the time embedding). */
  readonly rowBias?: Tensor;
  readonly residual?: Tensor;
  readonly activation: Activation;
  readonly y: Tensor;
}

/** Group normalisation of concat(x, x2) over (height, width, channels of a group). Wu & He 2018, arXiv 1803.08494. */
export interface GroupNormOp {
  readonly kind: "group_norm";
  readonly path: string;
  readonly x: Tensor;
  readonly x2?: Tensor;
  readonly weight: Weight;
  readonly bias: Weight;
  readonly groups: number;
  readonly eps: number;
  readonly activation: "none" | "silu";
  readonly y: Tensor;
}

/** Layer normalisation over the channels of every pixel. Ba et al. 2016, arXiv 1607.06450. */
export interface LayerNormOp {
  readonly kind: "layer_norm";
  readonly path: string;
  readonly x: Tensor;
  readonly weight: Weight;
  readonly bias: Weight;
  readonly eps: number;
  readonly y: Tensor;
}

/**
 * y = softmax(scale * q k^T) v per head, scale = headDim^-1/2; channels are ordered head by head.
 * `causal`: token i sees tokens 0..i.
 */
export interface AttentionOp {
  readonly kind: "attention";
  readonly path: string;
  readonly q: ChannelSlice;
  readonly k: ChannelSlice;
  readonly v: ChannelSlice;
  readonly heads: number;
  readonly causal: boolean;
  readonly y: Tensor;
}

/** y[b, t] = table[ids[b, t]] + positions[t]; ids is u32 [batch, 1, tokens, 1]. */
export interface EmbeddingOp {
  readonly kind: "embedding";
  readonly path: string;
  readonly ids: Tensor;
  readonly table: Weight;
  readonly positions: Weight;
  readonly y: Tensor;
}

/** y[b] = x[b, index[b]]: one token of each sequence; index is u32 [batch, 1, 1, 1]. */
export interface GatherOp {
  readonly kind: "gather";
  readonly path: string;
  readonly x: Tensor;
  readonly index: Tensor;
  readonly y: Tensor;
}

/** An elementwise function: silu(x); 3 tanh(x / 3) (TAESD's soft clamp); or scale * x + shift. */
export interface UnaryOp {
  readonly kind: "unary";
  readonly path: string;
  readonly x: Tensor;
  readonly fn: { readonly name: "silu" | "soft_clamp" } | { readonly name: "affine"; scale: number; shift: number };
  readonly y: Tensor;
}

/** Float values to the codes of y, an i8 tensor. */
export interface QuantizeOp {
  readonly kind: "quantize";
  readonly path: string;
  readonly x: Tensor;
  readonly y: Tensor;
}

export type Op =
  LinearOp | Conv2dOp | GroupNormOp | LayerNormOp | AttentionOp | EmbeddingOp | GatherOp | UnaryOp | QuantizeOp;

export type OpKind = Op["kind"];

/** Ops in an order that respects their data flow, and everything they name. */
export interface Graph {
  readonly name: string;
  readonly ops: readonly Op[];
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs: Readonly<Record<string, Tensor>>;
  readonly weights: readonly Weight[];
}

/** Elements in a shape. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}
