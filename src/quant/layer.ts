/**
 * Layers that are not one matrix with one format: those that read a concatenation, whose halves have scales of their own
 * (MixDQ's shortcut split), and those whose output channels have different bits (MPQ-DM, arXiv 2412.11549).
 */
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

/** Output channels that share a format. */
export interface RowBlock {
  readonly rows: Int32Array;
  readonly quant: WeightQuant;
}

/**
 * One matrix per block, its rows in the block's order: row i of the matrix is output channel block.rows[i] of the layer.
 * The blocks must hold every row once. Throws `invalid-input` where they do not, and as `quantizeMatrix`.
 */
export function quantizeRows(
  values: Float32Array,
  rows: number,
  columns: number,
  blocks: readonly RowBlock[],
  where: string,
  taps = 1,
): QuantizedMatrix[] {
  const listed = Int32Array.from(blocks.flatMap((block) => Array.from(block.rows))).sort();
  if (listed.length !== rows || listed.some((row, i) => row !== i)) {
    const got = `blocks of ${listed.length} rows`;
    throw new MixdqError("invalid-input", `${where}: got ${got}, expected each of the ${rows} rows once.`);
  }
  return blocks.map((block) => {
    const part = new Float32Array(block.rows.length * columns);
    block.rows.forEach((row, i) => part.set(values.subarray(row * columns, (row + 1) * columns), i * columns));
    return quantizeMatrix(part, block.rows.length, columns, block.quant, where, taps);
  });
}

/**
 * mean((w - mean)^4) / std^4 with the unbiased std, as MPQ-DM has it: about 3 for Gaussian weights, more with outliers.
 * NaN-free: a constant row has 0.
 */
export function kurtosis(row: Float32Array): number {
  const n = row.length;
  const mean = row.reduce((sum, w) => sum + w, 0) / n;
  let squares = 0;
  let fourths = 0;
  for (let i = 0; i < n; i++) {
    const square = (row[i]! - mean) ** 2;
    squares += square;
    fourths += square * square;
  }
  const variance = squares / (n - 1);
  return variance > 0 ? fourths / n / variance ** 2 : 0;
}

/**
 * Output channels by how much their outliers will cost: the `count` rows of highest kurtosis (for one bit more), as many
 * of lowest (for one bit less), and the rest, each in ascending order. Of equals the earlier row counts as higher.
 */
export function splitByKurtosis(
  values: Float32Array,
  rows: number,
  count: number,
): { higher: Int32Array; same: Int32Array; lower: Int32Array } {
  if (!Number.isSafeInteger(count) || count < 0 || 2 * count > rows)
    throw new MixdqError("invalid-input", `splitByKurtosis: got ${count} of ${rows} rows, expected at most half.`);
  const columns = values.length / rows;
  const measured = Float64Array.from({ length: rows }, (_, row) =>
    kurtosis(values.subarray(row * columns, (row + 1) * columns)),
  );
  const order = Int32Array.from(measured.keys()).sort((a, b) => measured[b]! - measured[a]! || a - b);
  return {
    higher: order.slice(0, count).sort(),
    same: order.slice(count, rows - count).sort(),
    lower: order.slice(rows - count).sort(),
  };
}
