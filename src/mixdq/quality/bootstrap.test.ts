import { expect, test } from "vitest";
import { countByAttribute, shareFound, type Attributes } from "./alignment.ts";
import { bootstrap, bootstrapMean, seededRandom } from "./bootstrap.ts";

/** About normally distributed: the mean of twelve even draws. */
function draws(count: number, seed: number): number[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => Array.from({ length: 12 }, random).reduce((a, b) => a + b) - 6);
}

test("a mean's interval is 1.96 standard errors to each side", () => {
  const values = draws(400, 1);
  const { value, low, high } = bootstrapMean(values);
  const spread = Math.sqrt(values.reduce((sum, x) => sum + (x - value) ** 2, 0) / values.length);
  const error = spread / Math.sqrt(values.length);
  for (const side of [value - low, high - value]) expect(Math.abs(side / error - 1.96)).toBeLessThan(0.2);
});

test("of 200 samples of normal numbers, about 95 % have the true mean in their interval", () => {
  const hits = Array.from({ length: 200 }, (_, i) => bootstrapMean(draws(60, 100 + i), { resamples: 400 })).filter(
    ({ low, high }) => low <= 0 && 0 <= high,
  );
  expect(hits.length).toBeGreaterThanOrEqual(180);
  expect(hits.length).toBeLessThanOrEqual(199);
});

test("the same values give the same interval, another seed another one", () => {
  const values = draws(30, 5);
  expect(bootstrapMean(values)).toEqual(bootstrapMean(values));
  expect(bootstrapMean(values, { seed: 1 }).low).not.toBe(bootstrapMean(values).low);
});

test("equal values have no spread", () => {
  expect(bootstrapMean([0.75, 0.75, 0.75])).toEqual({ value: 0.75, low: 0.75, high: 0.75 });
});

test("a statistic that repeated samples shift gets an interval around its value all the same", () => {
  // The share of different samples: 1 of all, about 1 - 1/e of a resample.
  const different = (indices: Uint32Array): number => new Set(indices).size / indices.length;
  const { value, low, high } = bootstrap(200, different, { centred: true });
  expect(value).toBe(1);
  expect(low).toBeGreaterThan(0.9);
  expect(high).toBeGreaterThan(1);
  expect(high).toBeLessThan(1.1);
  expect(bootstrap(200, different).low).toBeLessThan(0.65);
});

test("random numbers are even over 0..1", () => {
  const random = seededRandom(3);
  const counts = new Uint32Array(10);
  for (let i = 0; i < 10_000; i++) counts[Math.floor(random() * 10)]++;
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(120);
});

test("alignment counts what the prompt states, and nothing else", () => {
  const seen = { time: "day", object: "boat", color: "red" };
  expect(shareFound({ time: "day" }, seen)).toBe(1);
  expect(shareFound({ time: "day", object: "house", color: "red", place: "left" }, seen)).toBe(0.5);
  const pairs: { stated: Attributes; seen: Attributes }[] = [
    { stated: { time: "day", color: "blue" }, seen },
    { stated: { time: "night" }, seen },
    { stated: { object: "boat", time: "day" }, seen },
  ];
  expect(countByAttribute(pairs)).toEqual({
    color: { stated: 1, found: 0 },
    object: { stated: 1, found: 1 },
    time: { stated: 3, found: 2 },
  });
});
