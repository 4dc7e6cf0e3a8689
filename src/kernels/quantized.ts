/** Quantized weights of matrix products: their places in GPU memory, their packing, and what twins compute with. */
import { CODE_OFFSET } from "../quant/activations.ts";
import { codeWords, packCodes, type CodeLayout } from "../quant/codes.ts";
import type { WeightQuant } from "../quant/formats.ts";
import { parameterRows, rowParameters, weightParameters } from "../quant/parameters.ts";
import { joinCodes, quantizeLayer } from "../quant/layer.ts";
import type { QuantizedMatrix } from "../quant/weights.ts";
import type { Conv2dOp, Graph, LinearPart, Tensor, Weight } from "../graph/ops.ts";
import { quads, type PackedWeight, type Quantization } from "./kernel.ts";
import type { Run } from "./weights.ts";

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

/** Scales per row: groups of 64 input channels, halves, or one. */
export function segmentsOf({ weight, channels, hasHalves }: Quantization): number {
  const { group } = weight;
  if (group !== null) return channels.reduce((sum, count) => sum + Math.ceil(count / group), 0);
  return hasHalves ? channels.length : 1;
}

/** 4 words a row for sums over integer activations, 2 for weights that are decoded. */
const wordsOf = ({ activations }: Quantization): 2 | 4 => (activations.length > 0 ? 4 : 2);

/** Stacked sources as codes and as the parameters that belong to them. */
export function quantizedWeights(
  sources: readonly Weight[],
  quantization: Quantization,
  gated: boolean,
): { codes: PackedWeight; parameters: PackedWeight } {
  const rows = quads(sources.reduce((sum, { shape }) => sum + shape[0]!, 0)) * 4;
  const { taps, channels, weight } = quantization;
  const codes: CodeLayout = { bits: weight.bits, rows, taps, channels, gated };
  const segments = segmentsOf(quantization);
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

/** A source's weights [N, C, taps] as one matrix of integers, or one per half. */
export function quantizeSource(
  values: Float32Array,
  { name, shape }: Weight,
  quantization: Quantization,
): QuantizedMatrix[] {
  const { weight, taps, channels, hasHalves } = quantization;
  const rows = shape[0]!;
  const where = name.replace(/\.weight$/, "");
  const total = channels.reduce((sum, count) => sum + count, 0);
  return quantizeLayer(values, rows, hasHalves ? channels : [total], taps, weight, where);
}

/** Where one source's integers go within a packed weight. */
export function packQuantized(
  weight: PackedWeight,
  index: number,
  matrices: readonly QuantizedMatrix[],
): Generator<Run> {
  const { layout, sources, quantization } = weight;
  const words = layout.kind === "codes" ? layerCodes : layerParameters;
  return placeWords(weight, index, words(matrices, sources[index]!, quantization!, layout.gated));
}

/** A source's codes as the GPU wants them of that layer alone; `placeWords` puts them among others. */
export function layerCodes(
  matrices: readonly QuantizedMatrix[],
  { shape }: Weight,
  { weight: { bits }, taps, channels }: Quantization,
  gated: boolean,
): Uint32Array<ArrayBuffer> {
  return packCodes(joinCodes(matrices), { bits, rows: shape[0]!, taps, channels, gated });
}

/** A source's parameters of that layer alone: [segments][rows, padded to a multiple of 4][words]. */
export function layerParameters(
  matrices: readonly QuantizedMatrix[],
  { name }: Weight,
  quantization: Quantization,
  gated: boolean,
): Uint32Array<ArrayBuffer> {
  const { activations } = quantization;
  if (wordsOf(quantization) === 2) return new Uint32Array(weightParameters(matrices, gated, name).buffer);
  const parts = matrices.map((matrix, half) => ({ matrix, act: activations[half] ?? activations[0]! }));
  return rowParameters(parts, gated, name);
}

/** [segments, rows padded to a multiple of 4, words]: the shape of `layerParameters`. */
export function parametersShape({ shape }: Weight, quantization: Quantization): readonly [number, number, number] {
  return [segmentsOf(quantization), parameterRows(shape[0]!), wordsOf(quantization)];
}

/** How many words `layerCodes` or `layerParameters` give for a source of a packed weight. */
export function sourceWords({ layout, sources }: PackedWeight, index: number): number {
  const rows = sources[index]!.shape[0]!;
  if (layout.kind === "codes") return codeWords({ ...layout.codes, rows });
  return layout.kind === "parameters" ? layout.segments * parameterRows(rows) * layout.words : 0;
}

/** Words of `layerCodes` or `layerParameters` from word `first` on, and where they go within a packed weight. */
export function* placeWords(weight: PackedWeight, index: number, own: Uint32Array, first = 0): Generator<Run> {
  const { layout, sources } = weight;
  const rows = sources[index]!.shape[0]!;
  const firstRow = sources.slice(0, index).reduce((sum, { shape }) => sum + shape[0]!, 0);
  if (layout.kind === "codes") {
    const rowWords = codeWords({ ...layout.codes, rows: 1 });
    yield { offset: firstRow * rowWords + first, values: own };
  } else if (layout.kind === "parameters") {
    const { words, segments } = layout;
    const stride = parameterRows(rows) * words;
    for (let segment = 0; segment < segments; segment++) {
      // Without the padding rows: the next source's parameters lie there.
      const from = Math.max(segment * stride, first);
      const to = Math.min(segment * stride + rows * words, first + own.length);
      if (from >= to) continue;
      const within = from - segment * stride;
      yield {
        offset: (segment * layout.rows + firstRow) * words + within,
        values: own.subarray(from - first, to - first),
      };
    }
  }
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

/** What a twin multiplies: sum over segments of scale * sum of (x - zero) * weights, in plain numbers. */
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

export function quantizedFactors(values: Float32Array, source: Weight, quantization: Quantization): Factors {
  const { taps, channels, activations } = quantization;
  const rows = source.shape[0]!;
  const total = channels.reduce((sum, count) => sum + count, 0);
  const matrices = quantizeSource(values, source, quantization);
  const weights = new Float64Array(rows * total * taps);
  const segmentOf: number[] = [];
  const scales: number[][] = []; // [segment][row]
  let firstColumn = 0;
  matrices.forEach((matrix, half) => {
    const act = activations[half] ?? activations[0];
    for (let c = 0; c < matrix.columns / taps; c++)
      segmentOf.push(scales.length + Math.floor((c * taps) / matrix.groupColumns));
    for (let group = 0; group < matrix.groups; group++)
      scales.push(
        Array.from({ length: rows }, (_, row) => (act?.scale ?? 1) * matrix.scale[row * matrix.groups + group]!),
      );
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < matrix.columns; column++) {
        const zero = matrix.zeroPoint[row * matrix.groups + Math.floor(column / matrix.groupColumns)]!;
        weights[row * total * taps + firstColumn + column] = matrix.codes[row * matrix.columns + column]! - zero;
      }
    firstColumn += matrix.columns;
  });
  return { weights, segmentOf, segments: scales.length, scale: (row, segment) => scales[segment]![row]! };
}

/** The stored code of zero; 0 for tensors that are not quantized. */
export const storedZero = ({ codes }: Tensor): number => (codes ? codes.zeroPoint - CODE_OFFSET : 0);
