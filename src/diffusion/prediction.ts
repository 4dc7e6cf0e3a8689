/**
 * What a model's output says about the sample x = alpha * clean + sigma * epsilon, in float32: the clean sample or the
 * noise. diffusers 0.40 has these lines in every scheduler.
 */
import { combine, f32 } from "./float32.ts";
import type { SchedulerConfig } from "./schedulerConfig.ts";

export const PREDICTION_TYPES = ["epsilon", "v_prediction", "sample"] as const;
export type PredictionType = (typeof PREDICTION_TYPES)[number];

/** How much of a sample is signal and how much is noise. */
export interface Mixture {
  readonly alpha: number;
  readonly sigma: number;
}

export function toClean(
  prediction: PredictionType,
  output: Float32Array,
  sample: Float32Array,
  { alpha, sigma }: Mixture,
): Float32Array {
  switch (prediction) {
    case "epsilon":
      return sample.map((value, i) => f32(value - f32(sigma * output[i])) / alpha);
    case "v_prediction":
      return combine([alpha, sample], [-sigma, output]);
    case "sample":
      return output.slice();
  }
}

export function toEpsilon(
  prediction: PredictionType,
  output: Float32Array,
  sample: Float32Array,
  { alpha, sigma }: Mixture,
): Float32Array {
  switch (prediction) {
    case "epsilon":
      return output.slice();
    case "v_prediction":
      return combine([alpha, output], [sigma, sample]);
    case "sample":
      return epsilonOfClean(output, sample, { alpha, sigma });
  }
}

/** The noise in a sample whose clean part is known. */
export function epsilonOfClean(clean: Float32Array, sample: Float32Array, { alpha, sigma }: Mixture): Float32Array {
  return sample.map((value, i) => f32(value - f32(alpha * clean[i])) / sigma);
}

/** What becomes of an estimate of the clean sample before it is used. */
export type Limit = (clean: Float32Array) => Float32Array;

/**
 * `thresholding` goes before `clip_sample`, as in diffusers; each only where the class has it. Dynamic thresholding is
 * section 2.3 of Saharia et al. 2022 (arXiv 2205.11487): clipped at a quantile of the magnitudes and scaled to it.
 * `clip` is the class's default of `clip_sample`.
 */
export function readLimit(config: SchedulerConfig, has: { thresholding?: true; clip?: boolean }): Limit {
  if (has.thresholding && config.flag("thresholding")) {
    const ratio = config.number("dynamic_thresholding_ratio", 0.995, 0, 1);
    const most = config.number("sample_max_value", 1, 1e-3, 1e6);
    return (clean) => {
      const limit = f32(Math.min(most, Math.max(1, quantile(clean.map(Math.abs), ratio))));
      return clean.map((value) => f32(Math.min(limit, Math.max(-limit, value))) / limit);
    };
  }
  if (has.clip !== undefined && config.flag("clip_sample", has.clip)) {
    const range = config.number("clip_sample_range", 1, 1e-3, 1e6);
    return (clean) => clean.map((value) => Math.min(range, Math.max(-range, value)));
  }
  return (clean) => clean;
}

/** torch.quantile: linear between the two values that a rank falls between. */
function quantile(values: Float32Array, ratio: number): number {
  const sorted = values.slice().sort();
  const rank = f32(f32(ratio) * (sorted.length - 1));
  const low = Math.floor(rank);
  const weight = f32(rank - low);
  const [from, to] = [sorted[low], sorted[Math.min(low + 1, sorted.length - 1)]];
  return from + weight * (to - from);
}
