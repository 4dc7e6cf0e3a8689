/**
 * Resampling of 8-bit pictures, bit for bit as Pillow 12 does it (src/libImaging/Resample.c): separable, first along rows, with
 * weights in 22-bit fixed point and a picture of bytes between the two passes. diffusers' VaeImageProcessor resizes so.
 */

/** Bytes, row by row from the top, `channels` each. */
export interface Bitmap {
  readonly width: number;
  readonly height: number;
  readonly channels: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

interface Filter {
  /** Beyond this distance from the centre, in pixels of the coarser picture, weights are 0. */
  readonly support: number;
  weight(x: number): number;
}

const sinc = (x: number): number => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

export const LANCZOS: Filter = { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) };

/** Pillow's own default: Keys' cubic with a = -1/2. */
export const BICUBIC: Filter = {
  support: 2,
  weight(x) {
    const [a, at] = [-0.5, Math.abs(x)];
    if (at < 1) return ((a + 2) * at - (a + 3)) * at * at + 1;
    return at < 2 ? (((at - 5) * at + 8) * at - 4) * a : 0;
  },
};

export interface ResizeOptions {
  /** Default: LANCZOS. */
  readonly filter?: Filter;
  /** The part of the picture that becomes the result, [left, top, right, bottom]. Default: all of it. */
  readonly box?: readonly [left: number, top: number, right: number, bottom: number];
}

/** A picture of another size; of the same size, itself. */
export function resize(
  source: Bitmap,
  width: number,
  height: number,
  { filter = LANCZOS, box = [0, 0, source.width, source.height] }: ResizeOptions = {},
): Bitmap {
  const [left, top, right, bottom] = box;
  const isWide = width === source.width && left === 0 && right === width;
  const isHigh = height === source.height && top === 0 && bottom === height;
  const wide = isWide ? source : alongRows(source, width, weightsFor(source.width, left, right, width, filter));
  return isHigh ? wide : alongColumns(wide, height, weightsFor(source.height, top, bottom, height, filter));
}

/** A part of a picture; what lies outside it is 0. */
export function crop(source: Bitmap, left: number, top: number, right: number, bottom: number): Bitmap {
  const { width, height, channels, data } = source;
  const out = new Uint8Array((right - left) * (bottom - top) * channels);
  const [first, last] = [Math.max(0, left), Math.min(width, right)];
  for (let y = Math.max(0, top); y < Math.min(height, bottom); y++) {
    const row = data.subarray((y * width + first) * channels, (y * width + Math.max(first, last)) * channels);
    out.set(row, ((y - top) * (right - left) + first - left) * channels);
  }
  return { width: right - left, height: bottom - top, channels, data: out };
}

/** For each result: where its window begins, and the weights there. */
interface Weights {
  readonly first: Int32Array;
  readonly counts: Int32Array;
  /** `stride` for each result. */
  readonly values: Int32Array;
  readonly stride: number;
}

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

function weightsFor(size: number, from: number, to: number, results: number, { support, weight }: Filter): Weights {
  const scale = (to - from) / results;
  const widened = Math.max(1, scale);
  const reach = support * widened;
  const stride = Math.ceil(reach) * 2 + 1;
  const [first, counts] = [new Int32Array(results), new Int32Array(results)];
  const values = new Int32Array(results * stride);
  for (let i = 0; i < results; i++) {
    const centre = from + (i + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - reach + 0.5));
    const count = Math.min(size, Math.trunc(centre + reach + 0.5)) - begin;
    const window = Array.from({ length: count }, (_, x) => weight((x + begin - centre + 0.5) * (1 / widened)));
    const sum = window.reduce((a, b) => a + b, 0);
    window.forEach((value, x) => {
      const fixed = (sum === 0 ? value : value / sum) * (1 << PRECISION_BITS);
      values[i * stride + x] = Math.trunc(fixed < 0 ? fixed - 0.5 : fixed + 0.5);
    });
    first[i] = begin;
    counts[i] = count;
  }
  return { first, counts, values, stride };
}

function alongRows({ width, height, channels, data }: Bitmap, results: number, weights: Weights): Bitmap {
  const { first, counts, values, stride } = weights;
  const out = new Uint8ClampedArray(results * height * channels);
  for (let y = 0; y < height; y++)
    for (let i = 0; i < results; i++)
      for (let c = 0; c < channels; c++) {
        let sum = HALF;
        let at = (y * width + first[i]) * channels + c;
        for (let x = 0; x < counts[i]; x++, at += channels) sum += data[at] * values[i * stride + x];
        out[(y * results + i) * channels + c] = sum >> PRECISION_BITS;
      }
  return { width: results, height, channels, data: out };
}

function alongColumns({ width, channels, data }: Bitmap, results: number, weights: Weights): Bitmap {
  const { first, counts, values, stride } = weights;
  const row = width * channels;
  const out = new Uint8ClampedArray(results * row);
  for (let i = 0; i < results; i++)
    for (let c = 0; c < row; c++) {
      let sum = HALF;
      let at = first[i] * row + c;
      for (let y = 0; y < counts[i]; y++, at += row) sum += data[at] * values[i * stride + y];
      out[i * row + c] = sum >> PRECISION_BITS;
    }
  return { width, height: results, channels, data: out };
}
