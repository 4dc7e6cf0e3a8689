import { expect, test } from "vitest";
import { ssimScale } from "./ssimScale.ts";
import type { Trial } from "../choice.ts";

function trial(low: number, value: number, high: number): Trial {
  const ssim = { value, low, high };
  const scores = { prompts: 4, ssim, ssim11: ssim, psnr: ssim };
  return { name: "", bits: new Map(), averageBits: 4, shares: [1, 1], point: undefined, scores };
}

interface Ticked {
  min: number;
  max: number;
  axisLabel: { customValues: number[]; formatter(value: number): string };
}

const labelsOf = ({ axisLabel }: Ticked): string[] => axisLabel.customValues.map(axisLabel.formatter);

test("losses of one size are on a linear axis", () => {
  const { at, axis } = ssimScale([trial(0.982, 0.984, 0.986), trial(0.97, 0.975, 0.98)]);
  expect(at(0.984)).toBe(0.984);
  expect(axis).toEqual({ scale: true });
});

test("losses of many sizes are on a logarithmic one, with SSIM at its ticks and all trials within", () => {
  const trials = [trial(0.985, 0.987, 0.9885), trial(0.93, 0.95, 0.96), trial(0.78, 0.8, 0.81)];
  const scale = ssimScale(trials);
  const axis = scale.axis as Ticked;
  expect(labelsOf(axis)).toEqual(["0.8", "0.85", "0.9", "0.93", "0.95", "0.97", "0.98", "0.985"]);
  expect(scale.at(0.98) - scale.at(0.96)).toBeCloseTo(scale.at(0.9) - scale.at(0.8), 10);
  for (const { scores } of trials)
    for (const ssim of Object.values(scores.ssim)) {
      expect(scale.at(ssim)).toBeGreaterThan(axis.min);
      expect(scale.at(ssim)).toBeLessThan(axis.max);
    }
  expect(axis.axisLabel.customValues.every((value) => value > axis.min && value < axis.max)).toBe(true);
});

test("an interval that reaches 1 is cut, pictures that are equal are at the top; nine ticks at most", () => {
  const scale = ssimScale([trial(0.99, 0.996, 1), trial(1, 1, 1), trial(-0.1, 0.1, 0.3)]);
  const axis = scale.axis as Ticked;
  expect(scale.at(1)).toBe(scale.at(0.999));
  expect(scale.at(1)).toBeGreaterThan(scale.at(0.9989));
  expect(scale.at(1)).toBeLessThan(axis.max);
  const labels = labelsOf(axis);
  expect(labels).toEqual(["0", "0.5", "0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.998"]);
  expect(ssimScale([trial(1, 1, 1)]).axis).toEqual({ scale: true });
});
