/** What a graph computes, counted: multiply-accumulates by the numbers that are multiplied. */
import { elementCount, type AttentionOp, type Conv2dOp, type Graph, type LinearPart, type Tensor } from "./ops.ts";

/** Multiply-accumulates. Floats are counted by how they are stored; sums are in f32, or in int32 for int8. */
export interface Macs {
  readonly int8: number;
  readonly f16: number;
  readonly f32: number;
}

/**
 * Of every linear layer, convolution and attention. A product is one of int8 where it reads codes of activations (weights
 * of 2, 3 or 4 bits are widened to 8); weights in integers over floats are decoded, which makes it one of floats.
 */
export function macsOf({ ops }: Graph): Macs {
  const macs = { int8: 0, f16: 0, f32: 0 };
  const count = ({ dtype }: Tensor, products: number): void => {
    macs[dtype === "i8" ? "int8" : dtype === "f16" ? "f16" : "f32"] += products;
  };
  for (const op of ops)
    if (op.kind === "linear") for (const part of op.parts) count(part.x ?? op.x, productsOfLinear(part, op.x));
    else if (op.kind === "conv2d") count(op.x, productsOfConvolution(op));
    else if (op.kind === "attention") count(op.q.tensor, productsOfAttention(op));
  return macs;
}

function productsOfLinear({ weight }: LinearPart, { shape: [batch, height, width] }: Tensor): number {
  return batch * height * width * elementCount(weight.shape);
}

function productsOfConvolution({ weight, y: { shape } }: Conv2dOp): number {
  const [batch, height, width] = shape;
  return batch * height * width * elementCount(weight.shape);
}

/** q k^T and the sum over v, over all tokens: what a causal mask leaves out is computed too. */
function productsOfAttention({ q, k, v }: AttentionOp): number {
  const [batch, height, width] = q.tensor.shape;
  const tokens = k.tensor.shape[1] * k.tensor.shape[2];
  return batch * height * width * tokens * (q.channels + v.channels);
}
