/** Layers that read a concatenation, whose halves have scales of their own: MixDQ's shortcut split. */
import { MixdqError } from "../base/errors.ts";
import { quantizeMatrix, type QuantizedMatrix, type WeightQuant } from "./weights.ts";

/**
 * A layer's weight [rows, channels, taps] as one matrix per part of its input: `channels` is [C], or [C1, C2] for a layer
 * that reads a concatenation. Groups begin anew with each part. Throws as `quantizeMatrix`.
 */
export function quantizeLayer(
  values: Float32Array,
  rows: number,
  channels: readonly number[],
  taps: number,
  quant: WeightQuant,
  where: string,
): QuantizedMatrix[] {
  const columns = channels.reduce((sum, count) => sum + count, 0) * taps;
  if (channels.length === 1) return [quantizeMatrix(values, rows, columns, quant, where, taps)];
  if (values.length !== rows * columns) {
    const expected = `[${rows}, ${channels.join(" + ")}, ${taps}]`;
    throw new MixdqError("invalid-input", `${where}: got ${values.length} weights, expected ${expected}.`);
  }
  let from = 0;
  return channels.map((count) => {
    const part = new Float32Array(rows * count * taps);
    for (let row = 0; row < rows; row++) {
      const start = row * columns + from;
      part.set(values.subarray(start, start + count * taps), row * count * taps);
    }
    from += count * taps;
    return quantizeMatrix(part, rows, count * taps, quant, where, taps);
  });
}

/** The codes of a layer's parts side by side, [rows, C1 + C2, taps], as `packCodes` takes them. */
export function joinCodes(parts: readonly QuantizedMatrix[]): Int8Array<ArrayBuffer> {
  if (parts.length === 1) return parts[0]!.codes;
  const rows = parts[0]?.rows ?? 0;
  const columns = parts.reduce((sum, part) => sum + part.columns, 0);
  const joined = new Int8Array(rows * columns);
  let from = 0;
  for (const part of parts) {
    for (let row = 0; row < rows; row++)
      joined.set(part.codes.subarray(row * part.columns, (row + 1) * part.columns), row * columns + from);
    from += part.columns;
  }
  return joined;
}
