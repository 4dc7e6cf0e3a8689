/**
 * Scales and zero points as kernels take them: what turns integer sums, or codes, back into floats, per row and segment
 * (a run of input channels with one scale per row, see matrix.ts). Packs and shaders call them a layer's parameters.
 *
 * With stored codes qx (activation code - 128), qw, and zx, zw their zero points, acc = sum qx qw, Asum = sum qx,
 * Wsum = sum qw over the K (channel, tap) pairs of a segment, zw = zi + zf, zi a whole number:
 *
 *   sum (qx - zx) (qw - zw)  =  (acc + c0 - zi Asum)  -  zf (Asum - K zx),      c0 = -zx Wsum + K zx zi
 *
 * The first bracket is exact in i32: it is sum (qx - zx) (qw - zi), and where its terms wrap, they wrap back.
 */
import { MixdqError } from "../base/errors.ts";
import { CODE_OFFSET, type ActivationQuant } from "./activations.ts";
import { checkRows, storedRow } from "./codes.ts";
import { codeRange } from "./formats.ts";
import { segmentEnd, type QuantizedMatrix } from "./matrix.ts";

/** Rows of parameters: a multiple of 4, the added ones zero. */
export const parameterRows = (rows: number): number => Math.ceil(rows / 4) * 4;

/** An integer kernel's words per row and segment. */
export const ROW_WORDS = 4;

/**
 * [segments][parameterRows][4] words, rows as `storedRow` has them: bitcast i32 c0, bitcast i32 zi,
 * bitcast f32 act.scale * scale, bitcast f32 zf. `acts` are the inputs' codes by segment.
 * Throws `unsupported` for a row so long that its sum could leave i32.
 */
export function rowParameters(
  matrix: QuantizedMatrix,
  acts: readonly ActivationQuant[],
  gated: boolean,
): Uint32Array<ArrayBuffer> {
  const { path, rows, columns, segments, codes, scales, zeroPoints } = matrix;
  checkRows({ rows, gated }, path);
  const padded = parameterRows(rows);
  const words = new Uint32Array(segments.length * padded * ROW_WORDS);
  const integers = new Int32Array(words.buffer);
  const floats = new Float32Array(words.buffer);
  for (const [segment, from] of segments.entries()) {
    const count = segmentEnd(matrix, segment) - from;
    const act = acts[segment];
    const zx = act.zeroPoint - CODE_OFFSET;
    for (let row = 0; row < rows; row++) {
      const zeroPoint = zeroPoints[row * segments.length + segment];
      const zi = Math.round(zeroPoint);
      checkSum(matrix, count, zi);
      const first = row * columns + from;
      let codeSum = 0;
      for (let i = first; i < first + count; i++) codeSum += codes[i];
      const at = (segment * padded + storedRow(row, { rows, gated })) * ROW_WORDS;
      integers[at] = zx * (count * zi - codeSum);
      integers[at + 1] = zi;
      floats[at + 2] = act.scale * scales[row * segments.length + segment];
      floats[at + 3] = zeroPoint - zi;
    }
  }
  return words;
}

/** Weight-only layers: [segments][parameterRows][2] of scale, zero point, in the order of `rowParameters`. */
export function weightParameters(matrix: QuantizedMatrix, gated: boolean): Float32Array<ArrayBuffer> {
  const { path, rows, segments, scales, zeroPoints } = matrix;
  checkRows({ rows, gated }, path);
  const padded = parameterRows(rows);
  const words = new Float32Array(segments.length * padded * 2);
  for (let segment = 0; segment < segments.length; segment++)
    for (let row = 0; row < rows; row++) {
      const at = (segment * padded + storedRow(row, { rows, gated })) * 2;
      words[at] = scales[row * segments.length + segment];
      words[at + 1] = zeroPoints[row * segments.length + segment];
    }
  return words;
}

/** The largest |sum (qx - zx) (qw - zi)| that a segment can reach has to fit i32. */
function checkSum({ path, bits }: QuantizedMatrix, pairs: number, zi: number): void {
  const [first, last] = codeRange(bits);
  const reach = 255 * Math.max(zi - first, last - zi) * pairs;
  if (reach < 2 ** 31) return;
  const advice = "Use groups of 64, fewer bits, or 16 bits for this layer.";
  throw new MixdqError("unsupported", `${path}: got ${pairs} products a row, whose sum may leave 32 bits. ${advice}`);
}
