/** The few products of small matrices that adapters are made of, on the CPU: sums in f64, results in f32. */

/** a [m, k] x b [k, n] -> [m, n]. Row-major. */
export function multiply(a: ArrayLike<number>, b: ArrayLike<number>, m: number, k: number, n: number): Float32Array {
  const out = new Float32Array(m * n);
  const rows = Float64Array.from(a);
  const columns = transposed(b, k, n);
  // Blocks of 3 by 4: twelve sums and what feeds them fit into the registers of a CPU.
  const [wholeM, wholeN] = [m - (m % 3), n - (n % 4)];
  for (let i = 0; i < wholeM; i += 3) for (let j = 0; j < wholeN; j += 4) block(rows, columns, out, i, j, k, n);
  const dot = (i: number, j: number): void => {
    let sum = 0;
    for (let p = 0; p < k; p++) sum += rows[i * k + p] * columns[j * k + p];
    out[i * n + j] = sum;
  };
  for (let i = 0; i < m; i++) for (let j = i < wholeM ? wholeN : 0; j < n; j++) dot(i, j);
  return out;
}

/** Rows i .. i + 2 of a by columns j .. j + 3 of b, which lie in rows. */
function block(
  rows: Float64Array,
  columns: Float64Array,
  out: Float32Array,
  i: number,
  j: number,
  k: number,
  n: number,
): void {
  let [s00, s01, s02, s03, s10, s11, s12, s13, s20, s21, s22, s23] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
  const [r0, r1, r2] = [i * k, (i + 1) * k, (i + 2) * k];
  const [c0, c1, c2, c3] = [j * k, (j + 1) * k, (j + 2) * k, (j + 3) * k];
  for (let p = 0; p < k; p++) {
    const [a0, a1, a2] = [rows[r0 + p], rows[r1 + p], rows[r2 + p]];
    const [b0, b1, b2, b3] = [columns[c0 + p], columns[c1 + p], columns[c2 + p], columns[c3 + p]];
    s00 += a0 * b0;
    s01 += a0 * b1;
    s02 += a0 * b2;
    s03 += a0 * b3;
    s10 += a1 * b0;
    s11 += a1 * b1;
    s12 += a1 * b2;
    s13 += a1 * b3;
    s20 += a2 * b0;
    s21 += a2 * b1;
    s22 += a2 * b2;
    s23 += a2 * b3;
  }
  const at = i * n + j;
  out[at] = s00;
  out[at + 1] = s01;
  out[at + 2] = s02;
  out[at + 3] = s03;
  out[at + n] = s10;
  out[at + n + 1] = s11;
  out[at + n + 2] = s12;
  out[at + n + 3] = s13;
  out[at + 2 * n] = s20;
  out[at + 2 * n + 1] = s21;
  out[at + 2 * n + 2] = s22;
  out[at + 2 * n + 3] = s23;
}

/** [rows, columns] -> [columns, rows], in f64. */
export function transposed(values: ArrayLike<number>, rows: number, columns: number): Float64Array {
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j];
  return out;
}

/**
 * A Tucker product: core [i, j, taps], a [p, i], b [j, q] -> [p, q, taps], the sum over i and j of a core b for each of a
 * convolution's taps.
 */
export function tucker(
  core: ArrayLike<number>,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { i, j, p, q, taps }: Readonly<Record<"i" | "j" | "p" | "q" | "taps", number>>,
): Float32Array {
  const values = Float64Array.from(core);
  const columns = transposed(b, j, q);
  const inner = new Float32Array(i * q * taps);
  for (let row = 0; row < i; row++)
    inner.set(multiply(columns, values.subarray(row * j * taps, (row + 1) * j * taps), q, j, taps), row * q * taps);
  return multiply(a, inner, p, i, q * taps);
}

/** The Kronecker product of a [rows, columns] and b [p, q, taps] -> [rows p, columns q, taps]. */
export function kronecker(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  { rows, columns, p, q, taps }: Readonly<Record<"rows" | "columns" | "p" | "q" | "taps", number>>,
): Float32Array {
  const out = new Float32Array(rows * columns * p * q * taps);
  const run = q * taps;
  let at = 0;
  for (let row = 0; row < rows; row++)
    for (let y = 0; y < p; y++)
      for (let column = 0; column < columns; column++) {
        const factor = a[row * columns + column];
        for (let x = 0; x < run; x++) out[at++] = factor * b[y * run + x];
      }
  return out;
}
