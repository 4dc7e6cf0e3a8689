/** What the twins of matrix products multiply, floats or integers alike. */
import { segmentEnd, type QuantizedMatrix } from "../quant/matrix.ts";
import type { Quantization } from "./kernel.ts";
import { segmentActivations } from "./words.ts";

/** sum over segments of scale * sum of (x - zero) * weights, in f64. */
export interface Factors {
  /** [N, C * taps]: integers less their zero point, or the weights as they are. */
  readonly weights: ArrayLike<number>;
  /** Channel -> segment. */
  readonly segmentOf: readonly number[];
  readonly segments: number;
  /** Of row and segment. */
  scale(row: number, segment: number): number;
}

/** A float layer's factors: one segment of scale 1. */
export function floatFactors(weights: Float32Array, channels: number): Factors {
  return { weights, segmentOf: Array<number>(channels).fill(0), segments: 1, scale: () => 1 };
}

/** An integer layer's factors. */
export function quantizedFactors(matrix: QuantizedMatrix, quantization: Quantization): Factors {
  const { rows, columns, segments, codes, scales, zeroPoints } = matrix;
  const acts = segmentActivations(matrix, quantization);
  const weights = new Float64Array(codes.length);
  for (let row = 0; row < rows; row++)
    for (let segment = 0; segment < segments.length; segment++) {
      const zeroPoint = zeroPoints[row * segments.length + segment];
      const end = row * columns + segmentEnd(matrix, segment);
      for (let i = row * columns + segments[segment]; i < end; i++) weights[i] = codes[i] - zeroPoint;
    }
  const segmentOf = segments.flatMap((from, segment) => {
    const channels = (segmentEnd(matrix, segment) - from) / quantization.taps;
    return Array<number>(channels).fill(segment);
  });
  return {
    weights,
    segmentOf,
    segments: segments.length,
    scale: (row, segment) => (acts[segment]?.scale ?? 1) * scales[row * segments.length + segment],
  };
}
