/**
 * What a kernel needs to turn integer sums into numbers, per row and segment. A segment is a run of input channels with
 * one scale per row: a group of 64, a whole row, or one half of a layer that reads a concatenation.
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
import { checkRows, storedRow, type CodeLayout } from "./codes.ts";
import { codeRange } from "./formats.ts";
import type { QuantizedMatrix } from "./weights.ts";

/** A quantized layer, or one half of one that reads a concatenation, and the input it is multiplied with. */
export interface IntegerPart {
  readonly matrix: QuantizedMatrix;
  readonly act: ActivationQuant;
}

/** Rows of parameters: a multiple of 4, the added ones zero. */
export const parameterRows = (rows: number): number => Math.ceil(rows / 4) * 4;

/** An integer kernel's words per row and segment. */
export const ROW_WORDS = 4;

/**
 * [segments][parameterRows][4] words, the segments of all parts in order, rows as `storedRow` has them:
 * bitcast i32 c0, bitcast i32 zi, bitcast f32 act.scale * scale, bitcast f32 zf.
 * Throws `unsupported` for a row so long that its sum could leave i32; `where` is the layer, for messages.
 */
export function rowParameters(parts: readonly IntegerPart[], gated: boolean, where: string): Uint32Array<ArrayBuffer> {
  const rows = rowsOf(
    parts.map(({ matrix }) => matrix),
    gated,
    where,
  );
  const padded = parameterRows(rows);
  const segments = parts.reduce((sum, { matrix }) => sum + matrix.groups, 0);
  const words = new Uint32Array(segments * padded * ROW_WORDS);
  const integers = new Int32Array(words.buffer);
  const floats = new Float32Array(words.buffer);
  let segment = 0;
  for (const { matrix, act } of parts) {
    const zx = act.zeroPoint - CODE_OFFSET;
    for (let group = 0; group < matrix.groups; group++, segment++) {
      const [from, to] = groupSpan(matrix, group);
      for (let row = 0; row < rows; row++) {
        const zeroPoint = matrix.zeroPoint[row * matrix.groups + group]!;
        const zi = Math.round(zeroPoint);
        checkSum(matrix, to - from, zi, where);
        let codeSum = 0;
        for (let i = row * matrix.columns + from; i < row * matrix.columns + to; i++) codeSum += matrix.codes[i]!;
        const at = (segment * padded + storedRow(row, { rows, gated })) * ROW_WORDS;
        integers[at] = zx * ((to - from) * zi - codeSum);
        integers[at + 1] = zi;
        floats[at + 2] = act.scale * matrix.scale[row * matrix.groups + group]!;
        floats[at + 3] = zeroPoint - zi;
      }
    }
  }
  return words;
}

/** Weight-only layers: [segments][parameterRows][2] of scale, zeroPoint, in the order of `rowParameters`. */
export function weightParameters(
  matrices: readonly QuantizedMatrix[],
  gated: boolean,
  where: string,
): Float32Array<ArrayBuffer> {
  const rows = rowsOf(matrices, gated, where);
  const padded = parameterRows(rows);
  const segments = matrices.reduce((sum, { groups }) => sum + groups, 0);
  const words = new Float32Array(segments * padded * 2);
  let segment = 0;
  for (const { groups, scale, zeroPoint } of matrices)
    for (let group = 0; group < groups; group++, segment++)
      for (let row = 0; row < rows; row++) {
        const at = (segment * padded + storedRow(row, { rows, gated })) * 2;
        words[at] = scale[row * groups + group]!;
        words[at + 1] = zeroPoint[row * groups + group]!;
      }
  return words;
}

function rowsOf(matrices: readonly QuantizedMatrix[], gated: boolean, where: string): number {
  const rows = matrices[0]?.rows ?? 0;
  if (matrices.some((matrix) => matrix.rows !== rows)) {
    const got = matrices.map((matrix) => matrix.rows).join(" and ");
    throw new MixdqError("invalid-input", `${where}: got halves of ${got} rows, expected the same number.`);
  }
  checkRows({ rows, gated } satisfies Pick<CodeLayout, "rows" | "gated">, where);
  return rows;
}

const groupSpan = ({ columns, groupColumns }: QuantizedMatrix, group: number): [from: number, to: number] => [
  group * groupColumns,
  Math.min((group + 1) * groupColumns, columns),
];

/** The largest |sum (qx - zx) (qw - zi)| that a segment can reach has to fit i32. */
function checkSum({ bits }: QuantizedMatrix, pairs: number, zi: number, where: string): void {
  const [first, last] = codeRange(bits);
  const reach = 255 * Math.max(zi - first, last - zi) * pairs;
  if (reach < 2 ** 31) return;
  const advice = "Use groups of 64, fewer bits, or 16 bits for this layer.";
  throw new MixdqError("unsupported", `${where}: got ${pairs} products a row, whose sum may leave 32 bits. ${advice}`);
}
