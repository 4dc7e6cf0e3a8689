import { expect, test } from "vitest";
import golden from "./golden/quality.json" with { type: "json" };
import { seededRandom } from "./bootstrap.ts";
import { frechetFloor, frechetTo, type Gaussian } from "./frechet.ts";
import type { Picture } from "./picture.ts";
import { psnr, psnrCeiling } from "./psnr.ts";
import { ssim, ssim11 } from "./ssim.ts";

function picture(width: number, height: number, value: (x: number, y: number, channel: number) => number): Picture {
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) for (let c = 0; c < 3; c++) data[4 * (y * width + x) + c] = value(x, y, c);
  return { width, height, data };
}

/** As make_quality_golden.py has them. */
function pictures({
  width,
  height,
  strength,
}: {
  width: number;
  height: number;
  strength: number;
}): [Picture, Picture] {
  const a = (x: number, y: number, c: number): number => (7 * x + 13 * y + 29 * c + x * y) % 256;
  const b = (x: number, y: number, c: number): number => a(x, y, c) + strength * (((5 * x + 3 * y + 11 * c) % 17) - 8);
  return [picture(width, height, a), picture(width, height, b)];
}

function features(count: number, size: number, phase: number): number[][] {
  return Array.from({ length: count }, (_, i) =>
    Array.from(
      { length: size },
      (_, j) =>
        Math.sin(1.7 * i + 0.9 * j * j + phase) + 0.5 * Math.cos(0.37 * i * j + phase) + (0.1 * phase * j) / size,
    ),
  );
}

test.each(golden.similarity)("$width x $height pixels, changed by $strength: as scikit-image measures", (c) => {
  const [a, b] = pictures(c);
  expect(ssim(a, b)).toBeCloseTo(c.ssim, 9);
  expect(ssim11(a, b)).toBeCloseTo(c.ssim11, 9);
  expect(psnr(a, b)).toBeCloseTo(c.psnr, 9);
  expect(psnr(b, a)).toBe(psnr(a, b));
});

test("equal pictures are similar by 1 and have the largest finite PSNR", () => {
  const [a] = pictures({ width: 20, height: 16, strength: 1 });
  expect([ssim(a, a), ssim11(a, a)]).toEqual([1, 1]);
  const almost = { ...a, data: a.data.slice() };
  almost.data[1] += 1;
  expect(psnr(a, almost)).toBeCloseTo(psnrCeiling(a), 12);
  expect(psnr(a, a)).toBe(psnrCeiling(a));
});

test("alpha is not compared", () => {
  const [a] = pictures({ width: 20, height: 16, strength: 1 });
  const clear = { ...a, data: a.data.map((value, i) => (i % 4 === 3 ? 0 : value)) };
  expect([ssim(a, clear), psnr(a, clear)]).toEqual([1, psnrCeiling(a)]);
});

test("pictures that cannot be compared are refused", () => {
  const flat = (width: number, height: number): Picture => picture(width, height, () => 9);
  for (const measure of [ssim, ssim11, psnr])
    expect(() => measure(flat(16, 12), flat(12, 16))).toThrow("got pictures of 16x12 and 12x16 pixels");
  expect(() => ssim(flat(2, 9), flat(2, 9))).toThrow("got pictures of 2x9 pixels, expected at least 3x3");
  expect(() => ssim11(flat(10, 10), flat(10, 10))).toThrow("expected at least 11x11");
});

const indicesOf = (samples: readonly unknown[]): number[] => samples.map((_, i) => i);

/** Mean and unbiased covariance, by the definition. */
function gaussianOf(samples: readonly number[][]): Gaussian {
  const size = samples[0].length;
  const mean = Float64Array.from({ length: size }, (_, i) => average(samples.map((sample) => sample[i])));
  const covariance = Float64Array.from({ length: size * size }, (_, at) => {
    const [i, j] = [Math.floor(at / size), at % size];
    const products = samples.map((sample) => (sample[i] - mean[i]) * (sample[j] - mean[j]));
    return (average(products) * samples.length) / (samples.length - 1);
  });
  return { mean, covariance };
}

const average = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

test.each(golden.distances)(
  "Fréchet distance of $count from $other samples of $size features: as SciPy has it",
  (c) => {
    const [a, b] = [features(c.count, c.size, 0), features(c.other, c.size, c.phase)];
    expect(frechetTo(gaussianOf(a), b)(indicesOf(b))).toBeCloseTo(c.distance, 8);
    expect(frechetTo(gaussianOf(b), a)(indicesOf(a))).toBeCloseTo(c.distance, 8);
  },
);

test("the samples that the indices name are taken, as often as they name them", () => {
  const [a, b] = [features(30, 5, 0), features(9, 5, 1)];
  const reference = gaussianOf(a);
  const indices = [3, 3, 0, 8, 8, 8, 1];
  const named = indices.map((i) => b[i]);
  expect(frechetTo(reference, b)(indices)).toBeCloseTo(frechetTo(reference, named)(indicesOf(named)), 12);
});

/** Independent features with these means and variances. */
function independent(mean: number[], variance: number[]): Gaussian {
  const covariance = new Float64Array(mean.length ** 2);
  variance.forEach((value, i) => (covariance[i * mean.length + i] = value));
  return { mean: Float64Array.from(mean), covariance };
}

test("between independent features the distance is known in closed form", () => {
  // Four points whose unbiased covariance is diagonal, with variances 9 and 1.
  const [u, v] = [Math.sqrt(9 * 0.75), Math.sqrt(0.75)];
  const samples = [
    [3 + u, 1 + v, 7],
    [3 + u, 1 - v, 7],
    [3 - u, 1 + v, 7],
    [3 - u, 1 - v, 7],
  ];
  const distance = (mean: number[], variance: number[]): number =>
    frechetTo(independent(mean, variance), samples)(indicesOf(samples));
  expect(distance([0, 1, 5], [1, 4, 25])).toBeCloseTo(9 + 0 + 4 + (1 - 3) ** 2 + (2 - 1) ** 2 + 25, 10);
  expect(distance([3, 1, 7], [9, 1, 0])).toBeCloseTo(0, 10);
});

test("an eigenvalue that rounding left below zero counts as zero, a truly negative one is refused", () => {
  const samples = [
    [1, 0],
    [-1, 0],
  ];
  expect(frechetTo(independent([0, 0], [2, -1e-9]), samples)([0, 1])).toBeCloseTo(0, 8);
  expect(() => frechetTo(independent([0, 0], [1, -0.1]), samples)).toThrow(
    "an eigenvalue of -0.1 beside 1, expected none below zero",
  );
  expect(() => frechetTo(independent([0], [1]), samples)).toThrow("got 2 features, expected 1");
});

test("the floor falls with the number of samples, about as 1/n", () => {
  const reference = gaussianOf(features(400, 8, 1));
  const floor = (count: number): number => frechetFloor(reference, count, seededRandom(1));
  expect(floor(64)).toBe(floor(64));
  expect(floor(64) / floor(512)).toBeGreaterThan(5);
  expect(floor(64) / floor(512)).toBeLessThan(13);
});
