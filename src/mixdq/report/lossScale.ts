/** An axis of values up to 1, such as SSIM, on which differences near 1 can be seen. */
import { MUTED } from "./charts.ts";
import type { Estimate } from "../quality/bootstrap.ts";

export interface LossScale {
  /** Where on the axis a value is. */
  at(value: number): number;
  readonly axis: object;
}

/** Losses that differ by more are shown by their logarithm. */
const STRETCH_FROM = 4;
const TICKS = [[7, 5, 3, 2, 1.5, 1], [5, 2, 1], [1]];
const MOST_TICKS = 9;

/**
 * What matters between 0.99 and 0.98 would be lost beside a baseline at 0.6: where the losses, 1 - value, differ that much,
 * the axis is logarithmic in them, with the values at its ticks, as `label` writes them.
 */
export function lossScale(estimates: readonly Estimate[], label = (value: number): string => `${value}`): LossScale {
  const loss = (value: number): number => 1 - value;
  const losses = estimates.map(({ value }) => loss(value)).filter((value) => value > 0);
  const most = Math.max(...estimates.map(({ low }) => loss(low)));
  // An interval that reaches 1 has no end on a logarithmic axis: it is cut where it is clear of all values.
  const cut = Math.min(...losses) / STRETCH_FROM;
  const least = Math.max(cut, Math.min(...estimates.map(({ high }) => loss(high))));
  if (!(most > STRETCH_FROM * least)) return { at: (value) => value, axis: linear(label) };
  const at = (value: number): number => -Math.log10(Math.max(loss(value), least));
  const [min, max] = [at(1 - 1.15 * most), at(1 - least) + 0.05];
  const ticks = TICKS.map((digits) =>
    [0, 1, 2, 3, 4, 5, 6]
      .flatMap((power) => digits.map((digit) => Number((1 - digit / 10 ** power).toFixed(power + 1))))
      .filter((value) => value < 1 && loss(value) > least && at(value) >= min && at(value) <= max),
  );
  const chosen = ticks.find((list) => list.length <= MOST_TICKS) ?? ticks.at(-1)!;
  const labels = new Map(chosen.map((value) => [at(value).toFixed(6), label(value)]));
  const customValues = chosen.map(at);
  const formatter = (value: number): string => labels.get(value.toFixed(6)) ?? "";
  return {
    at,
    axis: { min, max, axisTick: { customValues }, axisLabel: { color: MUTED, fontSize: 11, customValues, formatter } },
  };
}

function linear(label: (value: number) => string): object {
  const formatter = (value: number): string => label(Number(value.toFixed(6)));
  return { scale: true, axisLabel: { color: MUTED, fontSize: 11, formatter } };
}
