/** Quantized weights of matrix products: their places in GPU memory, their packing, and what twins compute with. */
import { CODE_OFFSET } from "../quant/activations.ts";
import { codeWords, packCodes, type CodeLayout } from "../quant/codes.ts";
import type { WeightQuant } from "../quant/formats.ts";
import { parameterRows, rowParameters, weightParameters } from "../quant/parameters.ts";
import { quantizeMatrix, type QuantizedMatrix } from "../quant/weights.ts";
import type { Tensor, Weight } from "../graph/ops.ts";
import { quads, type PackedWeight, type Quantization } from "./kernel.ts";
import type { Run } from "./weights.ts";

/** A layer as its weight and input describe it: whether its halves have scales of their own, and of which activations. */
export function quantizationOf(
  weight: WeightQuant,
  { x, x2, taps, split }: { x: Tensor; x2?: Tensor | undefined; taps: number; split: boolean },
): Quantization {
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
  const columns = channels.map((count) => count * taps);
  const total = columns.reduce((sum, count) => sum + count, 0);
  if (!hasHalves) return [quantizeMatrix(values, rows, total, weight, where, taps)];
  return columns.map((count, half) => {
    const first = half === 0 ? 0 : columns[0]!;
    const part = new Float32Array(rows * count);
    for (let row = 0; row < rows; row++)
      part.set(values.subarray(row * total + first, row * total + first + count), row * count);
    return quantizeMatrix(part, rows, count, weight, where, taps);
  });
}

/** Where one source's integers go within a packed weight. */
export function* packQuantized(
  weight: PackedWeight,
  index: number,
  matrices: readonly QuantizedMatrix[],
): Generator<Run> {
  const { layout, sources, quantization } = weight;
  const source = sources[index]!;
  const rows = source.shape[0]!;
  const firstRow = sources.slice(0, index).reduce((sum, { shape }) => sum + shape[0]!, 0);
  if (layout.kind === "codes") {
    const own: CodeLayout = { ...layout.codes, rows };
    yield { offset: firstRow * (codeWords(own) / rows), values: packCodes(sideBySide(matrices), own) };
  } else if (layout.kind === "parameters") {
    const { words, segments, gated } = layout;
    const { activations } = quantization!;
    const own =
      words === 4
        ? rowParameters(
            matrices.map((matrix, half) => ({ matrix, act: activations[half] ?? activations[0]! })),
            gated,
            source.name,
          )
        : new Uint32Array(weightParameters(matrices, gated, source.name).buffer);
    const stride = parameterRows(rows) * words;
    for (let segment = 0; segment < segments; segment++)
      yield {
        offset: (segment * layout.rows + firstRow) * words,
        // Without the padding rows: the next source's parameters lie there.
        values: own.subarray(segment * stride, segment * stride + rows * words),
      };
  }
}

/** Codes of all columns, [rows, all columns]. */
function sideBySide(matrices: readonly QuantizedMatrix[]): Int8Array {
  if (matrices.length === 1) return matrices[0]!.codes;
  const columns = matrices.reduce((sum, matrix) => sum + matrix.columns, 0);
  const codes = new Int8Array(matrices[0]!.rows * columns);
  let first = 0;
  for (const matrix of matrices) {
    for (let row = 0; row < matrix.rows; row++)
      codes.set(matrix.codes.subarray(row * matrix.columns, (row + 1) * matrix.columns), row * columns + first);
    first += matrix.columns;
  }
  return codes;
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
