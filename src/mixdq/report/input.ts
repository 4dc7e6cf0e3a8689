/** What a report is made of, and the words that its parts share. */
import type { Allocation } from "../allocation/allocate.ts";
import type { Baseline } from "../allocation/baselines.ts";
import type { Choice } from "../allocation/choice.ts";
import type { Metric } from "../allocation/groups.ts";
import type { Group, Sensitivity } from "../allocation/sensitivity.ts";
import type { Point } from "../allocation/sweep.ts";

/** One prompt's picture twice, both PNG. */
export interface SamplePicture {
  readonly title: string;
  readonly reference: Uint8Array;
  readonly quantized: Uint8Array;
}

export interface ReportInput {
  readonly sensitivity: Sensitivity;
  readonly allocation: Allocation;
  /** The budget. */
  readonly weightBits: number;
  readonly points: readonly Point[];
  readonly baselines: readonly Baseline[];
  readonly pictures?: readonly SamplePicture[];
  /** Where pictures decided. */
  readonly choice?: Choice | undefined;
}

export const METRIC_NAMES: Readonly<Record<Group, string>> = { content: "SSIM", quality: "SQNR (dB)" };

/** What is summed over a group's layers, and what its range is called. */
export const SUM_NAMES: Readonly<Record<Metric, string>> = {
  ssim: METRIC_NAMES.content,
  sqnr: METRIC_NAMES.quality,
  noise: "−noise/signal",
};
export const RANGE_NAMES: Readonly<Record<Metric, string>> = { ssim: "SSIM", sqnr: "SQNR", noise: "noise" };

/** Such a sum with the digits that matter. */
export function formatSum(metric: Metric, sum: number): string {
  return metric === "noise" ? sum.toExponential(3) : sum.toFixed(metric === "ssim" ? 5 : 1);
}

/** A layer's metric with the digits that matter. */
export function format(group: Group, value: number): string {
  return value.toFixed(group === "content" ? 5 : 1);
}

/** The widths that weights were chosen from, rising. */
export function widthsOf({ allocation }: ReportInput): number[] {
  const candidates = allocation.weights.programs.flatMap((program) => program.candidates.slice(0, 1));
  return [...new Set(candidates.flatMap(({ values }) => [...values.keys()]))].sort((a, b) => a - b);
}
