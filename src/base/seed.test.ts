import { expect, test } from "vitest";
import { parseSeed, seedAfter, seedToJson, twisterSeed } from "./seed.ts";

test.each([
  [0, 0],
  [-0, 0],
  [-7, -7],
  ["42", 42],
  [" +42 ", 42],
  ["-9223372036854775808", -(2n ** 63n)],
  [2n ** 64n - 1n, 2n ** 64n - 1n],
  ["1152921504606846977", 1152921504606846977n],
  [12n, 12],
])("%s is a seed", (given, seed) => {
  expect(Object.is(parseSeed(given), seed)).toBe(true);
});

test.each([
  [0.5, "seed: got 0.5, expected a whole number from -2^63 to 2^64 - 1."],
  [Number.NaN, "seed: got NaN"],
  [2 ** 53, "Beyond 2^53 a number is not exact: give a bigint or the digits as text."],
  [2n ** 64n, "seed: got 18446744073709551616"],
  [-(2n ** 63n) - 1n, "seed: got -9223372036854775809"],
  ["18446744073709551616", "seed: got 18446744073709551616"],
  ["1e3", "seed: got 1e3"],
  ["", "seed: got ,"],
  [null, "seed: got null"],
  [{}, "seed: got [object Object]"],
])("%s is none", (given, message) => {
  expect(() => parseSeed(given)).toThrow(expect.objectContaining({ code: "invalid-input" }));
  expect(() => parseSeed(given)).toThrow(message);
});

test("a message names the flag and holds little of a long text", () => {
  expect(() => parseSeed("9".repeat(10_000), "--seed")).toThrow(/^--seed: got 9{80}, expected/);
});

test("a series counts on, also where numbers are not exact, and begins again after the last seed", () => {
  expect(seedAfter(5, 3)).toBe(8);
  expect(seedAfter(2 ** 53 - 1, 2)).toBe(2n ** 53n + 1n);
  expect(seedAfter(-1, 2)).toBe(1);
  expect(seedAfter(2n ** 64n - 1n, 2)).toBe(1);
  expect([seedToJson(3), seedToJson(2n ** 60n)]).toEqual([3, "1152921504606846976"]);
});

test("the twister takes the low 32 bits of the two's complement", () => {
  expect([-1, -(2n ** 63n), 2 ** 40 + 5, 2n ** 64n - 1n].map(twisterSeed)).toEqual([2 ** 32 - 1, 0, 5, 2 ** 32 - 1]);
});
