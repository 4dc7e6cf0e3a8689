import { expect, test } from "vitest";
import { MixdqError } from "../base/errors.ts";
import golden from "./golden/noise.json" with { type: "json" };
import { parseSeed } from "../base/seed.ts";
import { createGenerator } from "./noise.ts";

// PyTorch's vectorised log and cosine are within an ulp or two of the correctly rounded ones we use.
const TOLERANCE = 2e-6;

test.each(golden.cases)("the draws of seed $seed are torch.randn's, one after the other", ({ seed, draws }) => {
  const generator = createGenerator(parseSeed(seed));
  for (const draw of draws) {
    const values = generator.randn(draw.size);
    expect(values.length).toBe(draw.size);
    let sum = 0;
    for (const value of values) sum += value;
    expect(Math.abs(sum - draw.sum)).toBeLessThan(TOLERANCE * Math.sqrt(draw.size + 1));
    draw.indices.forEach((index, i) => {
      expect(Math.abs(values[index] - draw.values[i]), `value ${index} of ${draw.size}`).toBeLessThan(TOLERANCE);
    });
  }
});

test("only the low 32 bits of the seed count, as in PyTorch", () => {
  expect(createGenerator(2 ** 40 + 5).randn(20)).toEqual(createGenerator(5).randn(20));
});

test("a seed that PyTorch would not take is refused with the range", () => {
  for (const seed of [0.5, 2 ** 53, Number.NaN, 2n ** 64n, -(2n ** 63n) - 1n]) {
    expect(() => createGenerator(seed)).toThrow(MixdqError);
    expect(() => createGenerator(seed)).toThrow(/seed: got .* expected a whole number from -2\^63 to 2\^64 - 1/);
  }
});

test("the values have mean 0 and variance 1", () => {
  const values = createGenerator(11).randn(100_000);
  let sum = 0;
  let squares = 0;
  for (const value of values) {
    sum += value;
    squares += value * value;
  }
  // Four standard errors.
  expect(Math.abs(sum / values.length)).toBeLessThan(4 / Math.sqrt(values.length));
  expect(Math.abs(squares / values.length - 1)).toBeLessThan(4 * Math.sqrt(2 / values.length));
});
