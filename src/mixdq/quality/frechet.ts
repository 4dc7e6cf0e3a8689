/**
 * The Fréchet distance between two sets of pictures, each described by mean and covariance of their features as if they
 * were normally distributed (Dowson and Landau 1982; for pictures: Heusel et al. 2017, "FID").
 *
 *     d^2 = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))
 *
 * What is reported is d^2, as everywhere. It is biased upwards for few samples: compare figures of equal counts only,
 * and with `frechetFloor`.
 */
import { EigenvalueDecomposition, Matrix } from "ml-matrix";
import { MixdqError } from "../../base/errors.ts";

/** `mean` [F]; `covariance` [F, F], row by row, symmetric, unbiased (divided by samples - 1). */
export interface Gaussian {
  readonly mean: Float64Array;
  readonly covariance: Float64Array;
}

/**
 * d^2 from the reference to the samples [F] that the indices name, at least two, repeated or not: what `bootstrap`
 * wants. Everything that does not depend on the choice is computed once. Fewer than F + 1 samples have directions of no
 * variance at all, and a distance that says so. Throws `invalid-input`.
 */
export function frechetTo(
  reference: Gaussian,
  samples: readonly ArrayLike<number>[],
): (indices: ArrayLike<number>) => number {
  const size = reference.mean.length;
  const odd = samples.find(({ length }) => length !== size);
  if (odd)
    throw new MixdqError(
      "invalid-input",
      `Fréchet distance: got ${odd.length} features, expected ${size}. Compare features of one network.`,
    );
  const root = squareRoot(reference.covariance, size);
  const referenceTrace = trace(reference.covariance, size);
  const plain = samples.map((sample) => Float64Array.from(sample));
  const rooted = new Matrix(plain).mmul(root).to2DArray();
  return (indices) => {
    const chosen = centred(Array.from(indices, (i) => plain[i]));
    const chosenRooted = centred(Array.from(indices, (i) => rooted[i]));
    let distance = referenceTrace + squares(chosen.rows) / (indices.length - 1);
    for (let i = 0; i < size; i++) distance += (chosen.mean[i] - reference.mean[i]) ** 2;
    // (S1 S2)^(1/2) has the trace of (S1^(1/2) S2 S1^(1/2))^(1/2), the covariance of the samples times S1^(1/2), which is
    // symmetric; and Y Y^T has the eigenvalues of Y^T Y, whichever is the smaller matrix.
    const rows = indices.length <= size ? chosenRooted.rows : transposed(chosenRooted.rows);
    const eigenvalues = positiveEigenvalues(symmetricEigen(gram(rows)));
    const shared = eigenvalues.reduce((sum, value) => sum + Math.sqrt(value / (indices.length - 1)), 0);
    return Math.max(0, distance - 2 * shared); // rounding may leave a trace of a minus where the two are equal
  };
}

/**
 * The d^2 that `count` samples of the reference itself have from it on average: what is left of a figure when nothing
 * is wrong with the pictures. Drawn from the normal distribution; `random` gives 0 <= number < 1.
 */
export function frechetFloor(reference: Gaussian, count: number, random: () => number, draws = 20): number {
  const size = reference.mean.length;
  const root = squareRoot(reference.covariance, size);
  // Box and Muller 1958.
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const all = Uint32Array.from({ length: count }, (_, i) => i);
  let sum = 0;
  for (let draw = 0; draw < draws; draw++) {
    const rows = Array.from({ length: count }, () => Float64Array.from({ length: size }, normal));
    const samples = new Matrix(rows).mmul(root).to2DArray();
    const moved = samples.map((sample) => sample.map((value, j) => value + reference.mean[j]));
    sum += frechetTo(reference, moved)(all);
  }
  return sum / draws;
}

type Row = ArrayLike<number>;

/** The rows' mean, and the rows less it. */
function centred(rows: readonly Row[]): { mean: Float64Array; rows: Float64Array[] } {
  const mean = new Float64Array(rows[0].length);
  for (const row of rows) for (let i = 0; i < mean.length; i++) mean[i] += row[i] / rows.length;
  return { mean, rows: rows.map((row) => mean.map((value, i) => row[i] - value)) };
}

function squares(rows: readonly Row[]): number {
  let sum = 0;
  for (const row of rows) for (let i = 0; i < row.length; i++) sum += row[i] ** 2;
  return sum;
}

function transposed(rows: readonly Row[]): Float64Array[] {
  return Array.from({ length: rows[0].length }, (_, i) => Float64Array.from(rows, (row) => row[i]));
}

/** All products of two rows. */
function gram(rows: readonly Row[]): Matrix {
  const matrix = new Matrix(rows.length, rows.length);
  for (const [i, a] of rows.entries())
    for (let j = 0; j <= i; j++) {
      const b = rows[j];
      let sum = 0;
      for (let k = 0; k < a.length; k++) sum += a[k] * b[k];
      matrix.set(i, j, sum);
      matrix.set(j, i, sum);
    }
  return matrix;
}

/** V diag(sqrt(lambda)) V^T. */
function squareRoot(covariance: Float64Array, size: number): Matrix {
  const eigen = symmetricEigen(matrixOf(covariance, size));
  const vectors = eigen.eigenvectorMatrix;
  const roots = positiveEigenvalues(eigen).map(Math.sqrt);
  return vectors.clone().mulRowVector(roots).mmul(vectors.transpose());
}

function symmetricEigen(matrix: Matrix): EigenvalueDecomposition {
  return new EigenvalueDecomposition(matrix, { assumeSymmetric: true });
}

/** Eigenvalues of a covariance in 32-bit floats may be this share of the largest below zero by rounding alone. */
const STORED_ROUNDING = 1e-4;
/** What eigenvalues of 0 come out as in 64 bits, as a share of the largest; their roots would be as large as 1e-7. */
const ROUNDING = 1e-14;

/** What is rounding as 0. Throws `invalid-input` for eigenvalues below that: no covariance has them. */
function positiveEigenvalues({ realEigenvalues }: EigenvalueDecomposition): number[] {
  const [least, largest] = [Math.min(...realEigenvalues), Math.max(...realEigenvalues)];
  if (!(least >= -STORED_ROUNDING * Math.abs(largest)))
    throw new MixdqError(
      "invalid-input",
      `Fréchet distance: got a covariance with an eigenvalue of ${least} beside ${largest}, expected none below zero. ` +
        `Compute it again from the features, in 64 bits.`,
    );
  return realEigenvalues.map((value) => (value > ROUNDING * largest ? value : 0));
}

function matrixOf(values: Float64Array, size: number): Matrix {
  return Matrix.from1DArray(size, size, values);
}

function trace(matrix: Float64Array, size: number): number {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += matrix[i * size + i];
  return sum;
}
