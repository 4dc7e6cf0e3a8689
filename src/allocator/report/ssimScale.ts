/** An axis of SSIM on which differences near 1 can be seen. */
import { MUTED } from "./charts.ts";
import type { Trial } from "../choice.ts";

export interface SsimScale {
  /** Where on the axis an SSIM is. */
  at(ssim: number): number;
  readonly axis: object;
}

/** Losses that differ by more are shown by their logarithm. */
const STRETCH_FROM = 4;
const TICKS = [[7, 5, 3, 2, 1.5, 1], [5, 2, 1], [1]];
const MOST_TICKS = 9;

/**
 * What matters between 0.99 and 0.98 would be lost beside a baseline at 0.6: where the losses, 1 - SSIM, differ that much,
 * the axis is logarithmic in them, with SSIM at its ticks.
 */
export function ssimScale(trials: readonly Trial[]): SsimScale {
  const loss = (ssim: number): number => 1 - ssim;
  const values = trials.map(({ scores }) => loss(scores.ssim.value)).filter((value) => value > 0);
  const most = Math.max(...trials.map(({ scores }) => loss(scores.ssim.low)));
  // An interval that reaches 1 has no end on a logarithmic axis: it is cut where it is clear of all values.
  const cut = Math.min(...values) / STRETCH_FROM;
  const least = Math.max(cut, Math.min(...trials.map(({ scores }) => loss(scores.ssim.high))));
  if (!(most > STRETCH_FROM * least)) return { at: (ssim) => ssim, axis: { scale: true } };
  const at = (ssim: number): number => -Math.log10(Math.max(loss(ssim), least));
  const [min, max] = [at(1 - 1.15 * most), at(1 - least) + 0.05];
  const ticks = TICKS.map((digits) =>
    [0, 1, 2, 3, 4, 5, 6]
      .flatMap((power) => digits.map((digit) => Number((1 - digit / 10 ** power).toFixed(power + 1))))
      .filter((ssim) => ssim < 1 && loss(ssim) > least && at(ssim) >= min && at(ssim) <= max),
  );
  const chosen = ticks.find((list) => list.length <= MOST_TICKS) ?? ticks.at(-1)!;
  const labels = new Map(chosen.map((ssim) => [at(ssim).toFixed(6), `${ssim}`]));
  const customValues = chosen.map(at);
  const formatter = (value: number): string => labels.get(value.toFixed(6)) ?? "";
  return {
    at,
    axis: { min, max, axisTick: { customValues }, axisLabel: { color: MUTED, fontSize: 11, customValues, formatter } },
  };
}
