import { expect, test } from "vitest";
import { guide, rescaleGuidance } from "./guidance.ts";

test("guidance goes from the negative past the positive", () => {
  expect(guide(Float32Array.of(1, -2), Float32Array.of(2, -1), 3)).toEqual(Float32Array.of(4, 1));
});

test("rescaled fully, a guided prediction deviates as the positive one does; in part, between both", () => {
  const positive = Float32Array.of(1, -1, 3, 0.5);
  const guided = Float32Array.of(4, -5, 9, 2);
  const deviation = (values: Float32Array): number => {
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0));
  };
  expect(deviation(rescaleGuidance(guided, positive, 1))).toBeCloseTo(deviation(positive), 5);
  expect(deviation(rescaleGuidance(guided, positive, 0.25))).toBeCloseTo(
    0.25 * deviation(positive) + 0.75 * deviation(guided),
    5,
  );
  expect(rescaleGuidance(guided, positive, 0)).toEqual(guided);
});
