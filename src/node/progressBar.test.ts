import { expect, test } from "vitest";
import { describeDuration, describeProgress, remaining } from "./progressBar.ts";

test("what is left follows from the speed so far", () => {
  expect(remaining(10_000, 5, 20)).toBe(40_000);
  expect(remaining(0, 0, 20)).toBeUndefined();
  expect(remaining(5_000, 0, 20)).toBeUndefined();
});

test("a bar shows share, count and time", () => {
  expect(describeProgress(8.4, 32, "prompts", 80_000)).toBe(
    "[######------------------] 26 %, 8 of 32 prompts, 1 min 20 s left",
  );
  expect(describeProgress(0, 32, "prompts", undefined)).toBe("[------------------------] 0 %, 0 of 32 prompts");
  expect(describeProgress(32, 32, "prompts", 0)).toBe("[########################] 100 %, 32 of 32 prompts, 0 s left");
});

test("durations in two units", () => {
  expect([9_400, 59_600, 80_000, 7_500_000, 3_599_000].map(describeDuration)).toEqual([
    "9 s",
    "1 min 0 s",
    "1 min 20 s",
    "2 h 5 min",
    "59 min 59 s",
  ]);
});
