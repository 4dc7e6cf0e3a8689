/** A quantized weight as words: codes, and scales with zero points, as packs hold them and where they go in GPU memory. */
import type { ActivationQuant } from "../quant/activations.ts";
import { codeWords, packCodes } from "../quant/codes.ts";
import type { QuantizedMatrix } from "../quant/matrix.ts";
import { parameterRows, rowParameters, weightParameters } from "../quant/parameters.ts";
import type { Weight } from "../graph/ops.ts";
import type { PackedWeight, Quantization } from "./kernel.ts";
import { segmentsOf, wordsOf, type QuantizedLayer } from "./quantized.ts";
import type { Run } from "./weights.ts";

/** Where one source's integers go within a packed weight. */
export function packMatrix(packed: PackedWeight, index: number, matrix: QuantizedMatrix): Generator<Run> {
  const { layout, sources, quantization } = packed;
  const words = layout.kind === "codes" ? layerCodes : layerParameters;
  const layer = { weight: sources[index], quantization: quantization!, gated: layout.gated };
  return placeWords(packed, index, words(matrix, layer));
}

type Layer = Omit<QuantizedLayer, "path">;

/** A source's codes as the GPU wants them of that layer alone; `placeWords` puts them among others. */
export function layerCodes({ codes, bits, rows }: QuantizedMatrix, layer: Layer): Uint32Array<ArrayBuffer> {
  const { taps, channels } = layer.quantization;
  return packCodes(codes, { bits, rows, taps, channels, gated: layer.gated });
}

/** A source's scales and zero points of that layer alone: [segments][rows, padded to a multiple of 4][words]. */
export function layerParameters(matrix: QuantizedMatrix, { quantization, gated }: Layer): Uint32Array<ArrayBuffer> {
  if (wordsOf(quantization) === 2) return new Uint32Array(weightParameters(matrix, gated).buffer);
  return rowParameters(matrix, segmentActivations(matrix, quantization), gated);
}

/** The codes of the input that each segment is multiplied with; none for a layer over floats. */
export function segmentActivations(
  { segments }: QuantizedMatrix,
  { channels, taps, activations }: Quantization,
): readonly ActivationQuant[] {
  const [first, second = first] = activations;
  return first ? segments.map((column) => (column < channels[0] * taps ? first : second!)) : [];
}

/** [segments, rows padded to a multiple of 4, words]: the shape of `layerParameters`. */
export function parametersShape({ shape }: Weight, quantization: Quantization): readonly [number, number, number] {
  return [segmentsOf(quantization).length, parameterRows(shape[0]), wordsOf(quantization)];
}

/** How many words `layerCodes` or `layerParameters` give for a source of a packed weight. */
export function sourceWords({ layout, sources }: PackedWeight, index: number): number {
  const rows = sources[index].shape[0];
  if (layout.kind === "codes") return codeWords({ ...layout.codes, rows });
  return layout.kind === "parameters" ? layout.segments * parameterRows(rows) * layout.words : 0;
}

/** Words of `layerCodes` or `layerParameters` from word `first` on, and where they go within a packed weight. */
export function* placeWords(weight: PackedWeight, index: number, own: Uint32Array, first = 0): Generator<Run> {
  const { layout, sources } = weight;
  const rows = sources[index].shape[0];
  const firstRow = sources.slice(0, index).reduce((sum, { shape }) => sum + shape[0], 0);
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
