/**
 * Random weights of realistic spread, for exercising what a real checkpoint is too large or not free to be shipped for.
 * Fast (about 150 million values a second) and the same for the same seed, tensor by tensor.
 */
import { toHalf } from "../../quant/half.ts";

export interface TensorShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Values made at a time. */
const CHUNK = 2 ** 18;
/** Rows whose weights are heavy-tailed and larger, one in so many: the channels that make quantization hard. */
const HEAVY_EVERY = 64;
const HEAVY_GAIN = 2;
/** Standard deviation of the logarithm of a row's scale. */
const ROW_SPREAD = 0.3;

/** Layers that write to the residual stream: less gain keeps its sum over a hundred layers in the range of halves. */
const RESIDUAL_WRITERS = /\.(to_out\.0|ff\.net\.2|proj_out|conv2)\.weight$/;
const RESIDUAL_GAIN = 0.5;

/**
 * A tensor as 16-bit floats, in pieces. Matrices and convolutions: by row, normal with a deviation of fan-in^-1/2, times a
 * factor of the row's own; one row in 64 (where there are so many) Laplace-distributed and twice as large. Norms: about 1.
 * Biases: about 0.
 */
export function* randomTensor({ name, shape }: TensorShape, seed: number): Generator<Uint16Array<ArrayBuffer>> {
  const random = new TableRandom(name, seed);
  const { normal, laplace } = tables();
  if (shape.length === 1) {
    const values = new Float32Array(shape[0]);
    const isBias = name.endsWith(".bias");
    random.fill(values, 0, values.length, normal, isBias ? 0.02 : 0.1);
    yield toHalf(isBias ? values : values.map((value) => 1 + value));
    return;
  }
  const rows = shape[0];
  const columns = shape.slice(1).reduce((product, size) => product * size, 1);
  const gain = (RESIDUAL_WRITERS.test(name) ? RESIDUAL_GAIN : 1) / Math.sqrt(columns);
  const factor = new Float32Array(1);
  const rowsAtOnce = Math.max(1, Math.floor(CHUNK / columns));
  const values = new Float32Array(Math.min(rows, rowsAtOnce) * columns);
  for (let row = 0; row < rows;) {
    const count = Math.min(rowsAtOnce, rows - row);
    for (let i = 0; i < count; i++, row++) {
      random.fill(factor, 0, 1, normal, ROW_SPREAD);
      const isHeavy = row % HEAVY_EVERY === HEAVY_EVERY - 1;
      const scale = gain * Math.exp(factor[0]) * (isHeavy ? HEAVY_GAIN : 1);
      random.fill(values, i * columns, (i + 1) * columns, isHeavy ? laplace : normal, scale);
    }
    yield toHalf(values.subarray(0, count * columns));
  }
}

/** Deviates of a distribution from a table of its quantiles; sfc32 (Doty-Humphrey) chooses among them. */
class TableRandom {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(name: string, seed: number) {
    // FNV-1a of the name, so that a tensor's values do not depend on which come before it.
    let hash = 0x811c9dc5;
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
    this.#a = hash;
    this.#b = seed | 0;
    this.#c = Math.floor(seed / 2 ** 32) | 0;
    this.fill(new Float32Array(32), 0, 32, tables().normal, 1); // mixes the seed in
  }

  /** values[from .. to) = scale x random entries of `table`, which has 2^16; each draw of 32 bits gives two. */
  fill(values: Float32Array, from: number, to: number, table: Float32Array, scale: number): void {
    let [a, b, c, counter] = [this.#a, this.#b, this.#c, this.#counter];
    for (let i = from; i < to; i += 2) {
      const drawn = (((a + b) | 0) + counter) | 0;
      counter = (counter + 1) | 0;
      a = b ^ (b >>> 9);
      b = (c + (c << 3)) | 0;
      c = (((c << 21) | (c >>> 11)) + drawn) | 0;
      values[i] = scale * table[drawn >>> 16];
      if (i + 1 < to) values[i + 1] = scale * table[drawn & 0xffff];
    }
    [this.#a, this.#b, this.#c, this.#counter] = [a, b, c, counter];
  }
}

const TABLE_SIZE = 2 ** 16;

let made: { normal: Float32Array; laplace: Float32Array } | undefined;

/** Quantiles of both distributions at (i + 1/2) / 2^16, unit variance: up to 4.3 and 8.3 deviations. */
function tables(): { normal: Float32Array; laplace: Float32Array } {
  made ??= {
    normal: Float32Array.from({ length: TABLE_SIZE }, (_, i) => normalQuantile((i + 0.5) / TABLE_SIZE)),
    laplace: Float32Array.from({ length: TABLE_SIZE }, (_, i) => laplaceQuantile((i + 0.5) / TABLE_SIZE)),
  };
  return made;
}

function laplaceQuantile(p: number): number {
  const tail = Math.log(1 - Math.abs(2 * p - 1)) / Math.SQRT2;
  return p < 0.5 ? tail : -tail;
}

/** Inverse of the normal distribution, to 4.5e-4 (Abramowitz & Stegun 26.2.23): far below what a half resolves here. */
function normalQuantile(p: number): number {
  const t = Math.sqrt(-2 * Math.log(Math.min(p, 1 - p)));
  const value = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
  return p < 0.5 ? -value : value;
}
