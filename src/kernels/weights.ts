/** How parameters are packed for the kernels: the layouts of kernel.ts, computed. */
import { MixdqError } from "../base/errors.ts";
import { elementCount, type Weight } from "../graph/ops.ts";
import type { RowRange } from "../quant/matrix.ts";
import { quads, type PackedWeight, type WeightLayout } from "./kernel.ts";

/** f32 values, or the bits of f16. */
type Floats = Float32Array | Uint16Array;

/** Some elements of a packed weight and where they go. */
export interface Run {
  /** In elements. */
  readonly offset: number;
  readonly values: Floats | Uint32Array;
}

/** Stacked [N, K] or [N, K, kernel, kernel] parameters as one matrix. */
export function matrix(sources: readonly Weight[], dtype: "f32" | "f16", gated = false): PackedWeight {
  const rows = sources.reduce((sum, { shape }) => sum + shape[0], 0);
  const channels = sources[0].shape[1];
  const taps = elementCount(sources[0].shape.slice(2));
  return packed(sources, { kind: "matrix", rows, taps, channels, gated }, dtype);
}

/** Stacked [N] parameters as one vector. */
export function vector(sources: readonly Weight[], gated = false): PackedWeight {
  const length = sources.reduce((sum, { shape }) => sum + shape[0], 0);
  return packed(sources, { kind: "vector", length, gated }, "f32");
}

/** [rows, N] parameters side by side. */
export function table(sources: readonly Weight[]): PackedWeight {
  const columns = sources.reduce((sum, { shape }) => sum + shape[1], 0);
  return packed(sources, { kind: "table", rows: sources[0].shape[0], columns, gated: false }, "f32");
}

function packed(sources: readonly Weight[], layout: FloatLayout, dtype: "f32" | "f16"): PackedWeight {
  const key = `${sources.map(({ name }) => name).join("+")}:${layout.kind}${layout.gated ? ":gated" : ""}:${dtype}`;
  return { key, sources, layout, dtype, bytes: packedElements(layout) * (dtype === "f16" ? 2 : 4) };
}

/** The layouts that hold a checkpoint's floats; the others hold what quantized.ts makes of them. */
type FloatLayout = Extract<WeightLayout, { kind: "matrix" | "vector" | "table" }>;

/** Elements of a packed weight, padding included. */
export function packedElements(layout: FloatLayout): number {
  if (layout.kind === "vector") return quads(layout.length) * 4;
  if (layout.kind === "table") return layout.rows * quads(layout.columns) * 4;
  return quads(layout.rows) * 4 * layout.taps * quads(layout.channels) * 4;
}

/**
 * One source of a packed weight, laid out for the GPU: runs of elements and where each run goes. A source that already
 * lies as its layout wants is returned as it is, without a copy.
 *
 * `values` holds the parameter in the checkpoint's order, as f32 or as f16 bits; or some rows of it, of which `part` says
 * the first (a multiple of 4) and how many.
 */
export function* packSource(weight: PackedWeight, index: number, values: Floats, part?: RowRange): Generator<Run> {
  const layout = weight.layout as FloatLayout;
  const source = weight.sources[index];
  const { first, count } = part ?? { first: 0, count: source.shape[0] };
  if (values.length !== count * elementCount(source.shape.slice(1)))
    throw new MixdqError(
      "invalid-model",
      `${source.name}: got ${values.length} values, expected [${source.shape.join(", ")}].`,
    );
  if (layout.kind === "table") {
    const [rows, columns] = source.shape as [number, number];
    const firstColumn = weight.sources.slice(0, index).reduce((sum, { shape }) => sum + shape[1], 0);
    for (let row = 0; row < rows; row++)
      yield {
        offset: row * quads(layout.columns) * 4 + firstColumn,
        values: values.subarray(row * columns, (row + 1) * columns),
      };
    return;
  }
  const firstRow = weight.sources.slice(0, index).reduce((sum, { shape }) => sum + shape[0], 0) + first;
  const isEnd = first + count === source.shape[0];
  const taps = layout.kind === "matrix" ? layout.taps : 1;
  const channels = layout.kind === "matrix" ? layout.channels : 1;
  const stride = layout.kind === "matrix" ? taps * quads(channels) * 4 : 1;
  const asIs = taps === 1 && channels === stride;

  if (asIs && !layout.gated) {
    yield { offset: firstRow * stride, values: isEnd ? padRows(values, weight, index, stride) : values };
    return;
  }
  const laid = asIs ? values : layRows(values, count, taps, channels, stride);
  if (!layout.gated) {
    yield { offset: firstRow * stride, values: isEnd ? padRows(laid, weight, index, stride) : laid };
    return;
  }
  // Four rows at a time: rows 4i of the value half go to 8i, rows 4i of the gate half to 8i + 4.
  const half = (layout.kind === "matrix" ? layout.rows : layout.length) / 2;
  const targetOf = (row: number): number => (row % half) * 2 + (row < half ? 0 : 4);
  if (part) {
    for (let row = 0; row < count; row += 4) {
      const four = laid.subarray(row * stride, Math.min(row + 4, count) * stride);
      yield { offset: targetOf(first + row) * stride, values: four };
    }
    return;
  }
  const out = new (laid.constructor as new (length: number) => Floats)(laid.length);
  for (let row = 0; row < count; row += 4)
    out.set(laid.subarray(row * stride, (row + 4) * stride), targetOf(row) * stride);
  yield { offset: firstRow * stride, values: out };
}

/** [rows, channels, taps] -> [rows, taps, padded channels]. */
function layRows(values: Floats, rows: number, taps: number, channels: number, stride: number): Floats {
  const out = new (values.constructor as new (length: number) => Floats)(rows * stride);
  const padded = stride / taps;
  for (let row = 0; row < rows; row++)
    for (let tap = 0; tap < taps; tap++) {
      const from = row * channels * taps + tap;
      const to = row * stride + tap * padded;
      for (let channel = 0; channel < channels; channel++) out[to + channel] = values[from + channel * taps];
    }
  return out;
}

/** The last source also writes the zero rows that pad the matrix to a multiple of 4 rows. */
function padRows(values: Floats, weight: PackedWeight, index: number, stride: number): Floats {
  const layout = weight.layout as Exclude<FloatLayout, { kind: "table" }>;
  const rows = layout.kind === "matrix" ? layout.rows : layout.length;
  const missing = quads(rows) * 4 - rows;
  if (missing === 0 || index !== weight.sources.length - 1) return values;
  const out = new (values.constructor as new (length: number) => Floats)(values.length + missing * stride);
  out.set(values);
  return out;
}
