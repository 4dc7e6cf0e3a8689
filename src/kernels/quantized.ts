/** Layers with integer weights: how a graph describes them, how their floats become integers, their places in GPU memory. */
import { CODE_OFFSET } from "../quant/activations.ts";
import { codeWords, type CodeLayout } from "../quant/codes.ts";
import type { WeightQuant } from "../quant/formats.ts";
import {
  quantizeMatrix,
  heldRows,
  segmentStarts,
  type FloatRows,
  type QuantizedMatrix,
  type Rounding,
} from "../quant/matrix.ts";
import { ROUNDINGS } from "../quant/nearest.ts";
import type { Conv2dOp, Graph, LinearPart, Tensor, Weight } from "../graph/ops.ts";
import { quads, type PackedWeight, type Quantization } from "./kernel.ts";

/** What a layer reads, and with how many taps. */
interface LayerInput {
  readonly x: Tensor;
  readonly x2?: Tensor | undefined;
  readonly taps: number;
  readonly split: boolean;
}

/** A layer as its weight and input describe it: whether its halves have scales of their own, and of which activations. */
export function quantizationOf(weight: WeightQuant, { x, x2, taps, split }: LayerInput): Quantization {
  const inputs = x2 ? [x, x2] : [x];
  return {
    weight,
    channels: inputs.map(({ shape }) => shape[3]),
    // Groups do not cross from one tensor into the other.
    hasHalves: x2 !== undefined && (split || weight.group !== null),
    taps,
    activations: inputs.flatMap(({ codes }) => (codes ? [codes] : [])),
  };
}

/** The first columns of the runs of columns that have scales of their own. */
export function segmentsOf({ weight, channels, hasHalves, taps }: Quantization): number[] {
  return segmentStarts(hasHalves ? channels : [channelCount(channels)], taps, weight.group);
}

export const channelCount = (channels: readonly number[]): number => channels.reduce((sum, count) => sum + count, 0);

/** 4 words a row for sums over integer activations, 2 for weights that are decoded. */
export const wordsOf = ({ activations }: Quantization): 2 | 4 => (activations.length > 0 ? 4 : 2);

/** Stacked sources as codes and as the parameters that belong to them. */
export function quantizedWeights(
  sources: readonly Weight[],
  quantization: Quantization,
  gated: boolean,
): { codes: PackedWeight; parameters: PackedWeight } {
  const rows = quads(sources.reduce((sum, { shape }) => sum + shape[0], 0)) * 4;
  const { taps, channels, weight } = quantization;
  const codes: CodeLayout = { bits: weight.bits, rows, taps, channels, gated };
  const segments = segmentsOf(quantization).length;
  const words = wordsOf(quantization);
  const name = sources.map(({ name }) => name).join("+");
  const shared = { sources, dtype: "u32", quantization } as const;
  return {
    codes: { ...shared, key: `${name}:codes`, layout: { kind: "codes", gated, codes }, bytes: codeWords(codes) * 4 },
    parameters: {
      ...shared,
      key: `${name}:parameters`,
      layout: { kind: "parameters", gated, rows, segments, words },
      bytes: segments * rows * words * 4,
    },
  };
}

/** A layer that a graph computes with integer weights. */
export interface QuantizedLayer {
  readonly path: string;
  readonly weight: Weight;
  readonly quantization: Quantization;
  readonly gated: boolean;
}

/** All of them, by the names of their weights. */
export function quantizedLayers({ ops }: Pick<Graph, "ops">): Map<string, QuantizedLayer> {
  const layers = new Map<string, QuantizedLayer>();
  const add = ({ path, weight, quant }: LinearPart | Conv2dOp, gated: boolean, input: LayerInput): void => {
    if (quant) layers.set(weight.name, { path, weight, quantization: quantizationOf(quant, input), gated });
  };
  for (const op of ops)
    if (op.kind === "linear")
      for (const part of op.parts) add(part, op.activation === "geglu", { x: part.x ?? op.x, taps: 1, split: false });
    else if (op.kind === "conv2d")
      add(op, false, { x: op.x, x2: op.x2, taps: op.kernel * op.kernel, split: op.split ?? false });
  return layers;
}

/** How a layer is to be rounded. */
export type RoundingOf = (layer: QuantizedLayer) => Rounding;

/** As the bit-width configuration says. */
export const configuredRounding: RoundingOf = ({ quantization }) => ROUNDINGS[quantization.weight.range];

/** A layer's weight in integers. `floats` gives [rows, channels, taps] by rows; throws as `quantizeMatrix`. */
export function quantizeLayer(
  layer: Omit<QuantizedLayer, "gated">,
  floats: FloatRows,
  rounding: Rounding,
): QuantizedMatrix {
  const { path, weight, quantization } = layer;
  const { channels, taps } = quantization;
  const { bits, symmetric } = quantization.weight;
  const columns = channelCount(channels) * taps;
  const segments = segmentsOf(quantization);
  return quantizeMatrix(floats, { path, rows: weight.shape[0], columns, bits, symmetric, segments }, rounding);
}

/** The weights of all layers of a graph that has integers, by name, from floats in memory. */
export function quantizeLayers(
  graph: Pick<Graph, "ops">,
  floatsOf: (weight: Weight) => Float32Array,
  roundingOf = configuredRounding,
): Map<string, QuantizedMatrix> {
  return new Map(
    Array.from(quantizedLayers(graph), ([name, layer]) => {
      const floats = heldRows(floatsOf(layer.weight), layer.weight.shape[0]);
      return [name, quantizeLayer(layer, floats, roundingOf(layer))];
    }),
  );
}

/** The stored code of zero; 0 for tensors that are not quantized. */
export const storedZero = ({ codes }: Tensor): number => (codes ? codes.zeroPoint - CODE_OFFSET : 0);
