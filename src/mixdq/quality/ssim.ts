/**
 * Structural similarity of two pictures (Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error
 * Visibility to Structural Similarity", 2004), by colour and averaged, in two forms: with one window over nearly the
 * whole picture, as MixDQ measures a layer's sensitivity, and with the paper's Gaussian window of 11x11. Numbers equal
 * those of scikit-image's `structural_similarity` with the parameters named below.
 */
import { MixdqError } from "../../base/errors.ts";
import { assertSameSize, COLOR_CHANNELS, colorPlane, type Picture } from "./picture.ts";

const RANGE = 255;
const C1 = (0.01 * RANGE) ** 2;
const C2 = (0.03 * RANGE) ** 2;

const GAUSSIAN_SIZE = 11;
const GAUSSIAN_SIGMA = 1.5;

/** The weighted means of a plane in every window that lies within it; all windows of a picture are one size. */
interface Window {
  readonly means: (plane: Float64Array, width: number, height: number) => Float64Array;
  /** From E[xy] - E[x]E[y] to the covariance: n / (n - 1) for the sample's, 1 for the population's. */
  readonly covarianceScale: number;
}

/**
 * MixDQ's form: a uniform window with the largest odd side that fits, sample covariance
 * (`win_size=511, channel_axis=2` for 512x512 pixels; 2x2 windows there). 1 for equal pictures, at least -1.
 * Throws `invalid-input` for pictures of different sizes or less than 3 pixels high or wide.
 */
export function ssim(a: Picture, b: Picture): number {
  assertSameSize(a, b, "SSIM");
  const shortest = Math.min(a.width, a.height);
  const side = shortest % 2 === 0 ? shortest - 1 : shortest;
  if (side < 3) throw tooSmall(a, 3);
  return meanSimilarity(a, b, uniformWindow(side));
}

/**
 * The usual form: a Gaussian window of 11x11 with sigma 1.5, population covariance, windows within the picture only
 * (`gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2`). Throws as `ssim`, below 11 pixels.
 */
export function ssim11(a: Picture, b: Picture): number {
  assertSameSize(a, b, "SSIM");
  if (Math.min(a.width, a.height) < GAUSSIAN_SIZE) throw tooSmall(a, GAUSSIAN_SIZE);
  return meanSimilarity(a, b, gaussianWindow());
}

function meanSimilarity(a: Picture, b: Picture, { means, covarianceScale }: Window): number {
  let sum = 0;
  for (let channel = 0; channel < COLOR_CHANNELS; channel++) {
    const [x, y] = [colorPlane(a, channel), colorPlane(b, channel)];
    const meansOf = (plane: Float64Array): Float64Array => means(plane, a.width, a.height);
    const [mx, my] = [meansOf(x), meansOf(y)];
    const [mxx, myy, mxy] = [meansOf(product(x, x)), meansOf(product(y, y)), meansOf(product(x, y))];
    const similarity = (i: number): number => {
      const [ux, uy] = [mx[i], my[i]];
      const vx = covarianceScale * (mxx[i] - ux * ux);
      const vy = covarianceScale * (myy[i] - uy * uy);
      const vxy = covarianceScale * (mxy[i] - ux * uy);
      return ((2 * ux * uy + C1) * (2 * vxy + C2)) / ((ux * ux + uy * uy + C1) * (vx + vy + C2));
    };
    let total = 0;
    for (let i = 0; i < mx.length; i++) total += similarity(i);
    sum += total / mx.length;
  }
  return sum / COLOR_CHANNELS;
}

function product(x: Float64Array, y: Float64Array): Float64Array {
  return x.map((value, i) => value * y[i]);
}

/** By a table of sums from the top left corner: sums of 8-bit products are whole numbers far below 2^53, so exact. */
function uniformWindow(side: number): Window {
  const count = side * side;
  return {
    covarianceScale: count / (count - 1),
    means(plane, width, height) {
      const stride = width + 1;
      const sums = new Float64Array(stride * (height + 1));
      for (let y = 0; y < height; y++) {
        let row = 0;
        for (let x = 0; x < width; x++) {
          row += plane[y * width + x];
          sums[(y + 1) * stride + x + 1] = sums[y * stride + x + 1] + row;
        }
      }
      const columns = width - side + 1;
      return Float64Array.from({ length: columns * (height - side + 1) }, (_, i) => {
        const top = Math.floor(i / columns) * stride + (i % columns);
        const bottom = top + side * stride;
        return (sums[bottom + side] - sums[bottom] - sums[top + side] + sums[top]) / count;
      });
    },
  };
}

function gaussianWindow(): Window {
  const weights = Float64Array.from({ length: GAUSSIAN_SIZE }, (_, i) =>
    Math.exp(-((i - (GAUSSIAN_SIZE - 1) / 2) ** 2) / (2 * GAUSSIAN_SIGMA ** 2)),
  );
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const kernel = weights.map((weight) => weight / total);
  return {
    covarianceScale: 1,
    means(plane, width, height) {
      const columns = width - GAUSSIAN_SIZE + 1;
      const across = weightedSums(
        plane,
        kernel,
        columns * height,
        (i) => Math.floor(i / columns) * width + (i % columns),
        1,
      );
      return weightedSums(across, kernel, columns * (height - GAUSSIAN_SIZE + 1), (i) => i, columns);
    },
  };
}

/** sum_k kernel[k] * values[start(i) + k * step] for `count` outputs i. */
function weightedSums(
  values: Float64Array,
  kernel: Float64Array,
  count: number,
  start: (i: number) => number,
  step: number,
): Float64Array {
  const result = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const first = start(i);
    let sum = 0;
    for (let k = 0; k < kernel.length; k++) sum += kernel[k] * values[first + k * step];
    result[i] = sum;
  }
  return result;
}

function tooSmall({ width, height }: Picture, least: number): MixdqError {
  return new MixdqError(
    "invalid-input",
    `SSIM: got pictures of ${width}x${height} pixels, expected at least ${least}x${least}, the window. Make larger ones.`,
  );
}
