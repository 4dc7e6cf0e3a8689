/** Matrices for tests. */
import type { WeightQuant } from "./formats.ts";
import { heldRows, quantizeMatrix, segmentStarts, type MatrixFormat, type QuantizedMatrix } from "./matrix.ts";
import { ROUNDINGS } from "./nearest.ts";

/** The format of a layer over one input. */
export function formatOf(
  rows: number,
  columns: number,
  { bits, symmetric, group }: WeightQuant,
  path = "layer",
  taps = 1,
): MatrixFormat {
  return { path, rows, columns, bits, symmetric, segments: segmentStarts([columns / taps], taps, group) };
}

/** Weights [rows, columns] rounded as their format says. */
export function quantize(
  values: Float32Array,
  rows: number,
  columns: number,
  quant: WeightQuant,
  path?: string,
  taps?: number,
): QuantizedMatrix {
  return quantizeMatrix(heldRows(values, rows), formatOf(rows, columns, quant, path, taps), ROUNDINGS[quant.range]);
}
