import { expect, test } from "vitest";
import { lossScale } from "./lossScale.ts";
import type { Estimate } from "../quality/bootstrap.ts";

const estimate = (low: number, value: number, high: number): Estimate => ({ value, low, high });

interface Ticked {
  min: number;
  max: number;
  axisLabel: { customValues: number[]; formatter(value: number): string };
}

const labelsOf = ({ axisLabel }: Ticked): string[] => axisLabel.customValues.map(axisLabel.formatter);

test("losses of one size are on a linear axis", () => {
  const { at, axis } = lossScale([estimate(0.982, 0.984, 0.986), estimate(0.97, 0.975, 0.98)]);
  expect(at(0.984)).toBe(0.984);
  expect(axis).toMatchObject({ scale: true });
  const percent = lossScale([estimate(0.984, 0.984, 0.984)], (value) => `${100 * value} %`).axis as Ticked;
  expect(percent.axisLabel.formatter(0.9)).toBe("90 %");
});

test("losses of many sizes are on a logarithmic one, with the values at its ticks and all of them within", () => {
  const estimates = [estimate(0.985, 0.987, 0.9885), estimate(0.93, 0.95, 0.96), estimate(0.78, 0.8, 0.81)];
  const scale = lossScale(estimates);
  const axis = scale.axis as Ticked;
  expect(labelsOf(axis)).toEqual(["0.8", "0.85", "0.9", "0.93", "0.95", "0.97", "0.98", "0.985"]);
  expect(scale.at(0.98) - scale.at(0.96)).toBeCloseTo(scale.at(0.9) - scale.at(0.8), 10);
  for (const value of estimates.flatMap((one) => Object.values(one) as number[])) {
    expect(scale.at(value)).toBeGreaterThan(axis.min);
    expect(scale.at(value)).toBeLessThan(axis.max);
  }
  expect(axis.axisLabel.customValues.every((value) => value > axis.min && value < axis.max)).toBe(true);
});

test("an interval that reaches 1 is cut, pictures that are equal are at the top; nine ticks at most", () => {
  const scale = lossScale([estimate(0.99, 0.996, 1), estimate(1, 1, 1), estimate(-0.1, 0.1, 0.3)]);
  const axis = scale.axis as Ticked;
  expect(scale.at(1)).toBe(scale.at(0.999));
  expect(scale.at(1)).toBeGreaterThan(scale.at(0.9989));
  expect(scale.at(1)).toBeLessThan(axis.max);
  const labels = labelsOf(axis);
  expect(labels).toEqual(["0", "0.5", "0.8", "0.9", "0.95", "0.98", "0.99", "0.995", "0.998"]);
  expect(lossScale([estimate(1, 1, 1)]).axis).toMatchObject({ scale: true });
});
