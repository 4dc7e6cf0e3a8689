/**
 * What an adapter adds to a weight: a product of small matrices, as data, and the arithmetic that merges it.
 * LoRA: arXiv 2106.09685; LoCon, LoHa, LoKr: LyCORIS, arXiv 2309.14859; DoRA: arXiv 2402.09353.
 */
import { MixdqError } from "../base/errors.ts";
import { toFloat32 } from "../weights/convert.ts";
import type { FloatDType } from "../weights/header.ts";
import { kronecker, multiply, transposed, tucker } from "./matrix.ts";

/** A small matrix as the file has it; `shape` without the ones at its end. */
export interface Factor {
  readonly dtype: FloatDType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** up [out, r] down [r, in, taps]; with a core (LoCon's `mid`) [r, s, taps], up [out, r] and down [s, in]. */
export interface LowRank {
  readonly kind: "low-rank";
  readonly up: Factor;
  readonly down: Factor;
  readonly core?: Factor;
}

/** LoHa, the elementwise product of two low-rank products; `down` of a convolution is [r, in x taps]. */
export interface Hadamard {
  readonly kind: "hadamard";
  readonly sides: readonly [LowRank, LowRank];
}

/** LoKr, the Kronecker product of two matrices, each whole or a low-rank product. */
export interface Kronecker {
  readonly kind: "kronecker";
  readonly first: Factor | LowRank;
  readonly second: Factor | LowRank;
}

/** The difference itself. */
export interface Whole {
  readonly kind: "whole";
  readonly values: Factor;
}

export interface Delta {
  /** For messages: the file and the adapter's layer. */
  readonly where: string;
  readonly product: LowRank | Hadamard | Kronecker | Whole;
  /** alpha / rank, times what the user asked for. */
  readonly scale: number;
  /** DoRA: the length of each row (of an output channel), or of each column where `axis` is in. */
  readonly magnitude?: { readonly values: Factor; readonly axis: "out" | "in" };
}

/** A weight's shape [out, in, ...taps] as these products see it; of a vector, `inputs` and `taps` are 1. */
export interface Geometry {
  readonly outputs: number;
  readonly inputs: number;
  readonly taps: number;
}

export function geometryOf([outputs, inputs = 1, ...taps]: readonly number[]): Geometry {
  return { outputs, inputs, taps: taps.reduce((a, b) => a * b, 1) };
}

/**
 * Adds `delta` to `values`, a weight [out, in, taps]. In f32, as PyTorch does: the product, its scale, the sum. Throws
 * `invalid-model` where a DoRA cannot be normalised.
 */
export function addDelta(values: Float32Array, geometry: Geometry, delta: Delta): void {
  const { scale, magnitude } = delta;
  const product = productOf(delta.product, geometry);
  for (let i = 0; i < values.length; i++) values[i] += Math.fround(product[i] * scale);
  if (!magnitude || setLengths(values, geometry, floats(magnitude.values), magnitude.axis)) return;
  throw new MixdqError(
    "invalid-model",
    `${delta.where}: got a DoRA over a channel of zeros, expected one whose length can be set. Use a LoRA that was trained ` +
      "for this model.",
  );
}

/** [out, in, taps] */
function productOf(product: Delta["product"], geometry: Geometry): Float32Array {
  switch (product.kind) {
    case "low-rank":
      return lowRank(product, geometry);
    case "hadamard": {
      const [first, second] = product.sides.map((side) => lowRank(side, geometry));
      return first.map((value, i) => value * second[i]);
    }
    case "kronecker": {
      const { first, second } = product;
      const [rows, columns] = kroneckerShape(first);
      const [p, q] = [geometry.outputs / rows, geometry.inputs / columns];
      const { taps } = geometry;
      const inner = { outputs: p, inputs: q, taps };
      return kronecker(
        matrixOf(first, { outputs: rows, inputs: columns, taps: 1 }),
        matrixOf(second, inner),
        { rows, columns, p, q, taps }, // prettier-ignore
      );
    }
    case "whole":
      return floats(product.values);
  }
}

/** [outputs, inputs] of one side of a Kronecker product that is no convolution. */
export function kroneckerShape(side: Factor | LowRank): readonly [number, number] {
  const [outputs, inputs = 1] = "kind" in side ? [side.up.shape[0], side.down.shape[1]] : side.shape;
  return [outputs, inputs];
}

const matrixOf = (side: Factor | LowRank, geometry: Geometry): Float32Array =>
  "kind" in side ? lowRank(side, geometry) : floats(side);

function lowRank({ up, down, core }: LowRank, { outputs, inputs, taps }: Geometry): Float32Array {
  if (!core) return multiply(floats(up), floats(down), outputs, down.shape[0], inputs * taps);
  const [i, j = 1] = core.shape;
  return tucker(floats(core), floats(up), floats(down), { i, j, p: outputs, q: inputs, taps });
}

/** [rows, columns] -> [columns, rows] */
export function transposedFactor(factor: Factor, rows: number, columns: number): Factor {
  const { buffer } = Float32Array.from(transposed(floats(factor), rows, columns));
  return { dtype: "F32", shape: [columns, rows], bytes: new Uint8Array(buffer) };
}

const floats = ({ bytes, dtype }: Factor): Float32Array => toFloat32(bytes, dtype);

/** Stretches each output (or input) channel of `values` to the length in `lengths`; false where one has no length. */
function setLengths(
  values: Float32Array,
  { outputs, inputs, taps }: Geometry,
  lengths: Float32Array,
  axis: "out" | "in",
): boolean {
  const channelOf = (i: number): number =>
    axis === "out" ? Math.floor(i / (inputs * taps)) : Math.floor(i / taps) % inputs;
  const squares = new Float64Array(axis === "out" ? outputs : inputs);
  for (let i = 0; i < values.length; i++) squares[channelOf(i)] += values[i] * values[i];
  const factors = squares.map((sum, channel) => lengths[channel] / Math.sqrt(sum));
  for (let i = 0; i < values.length; i++) values[i] *= factors[channelOf(i)];
  return factors.every(Number.isFinite);
}
