/**
 * Noise levels (sigmas) and the timesteps they belong to, in double precision as numpy computes them for diffusers'
 * schedulers.
 */
import { MixdqError } from "../base/errors.ts";
import { log32 } from "./float32.ts";
import type { SchedulerConfig } from "./schedulerConfig.ts";

/** numpy.linspace: `count` values from start to stop, both included. */
export function linspace(start: number, stop: number, count: number): number[] {
  const step = (stop - start) / Math.max(1, count - 1);
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? stop : i * step + start));
}

/** numpy.interp over the indices of `table`: linear between neighbours, constant outside. */
export function interpolate(table: Float32Array, x: number): number {
  const last = table.length - 1;
  if (x <= 0) return table[0];
  if (x >= last) return table[last];
  const i = Math.floor(x);
  return (table[i + 1] - table[i]) * (x - i) + table[i];
}

/** Noise levels that a config may set: SD's are 0.03 to 15, a zero terminal SNR gives 4096. */
const [LEAST_SIGMA, MOST_SIGMA] = [1e-6, 1e5];

const SPREADS = ["none", "karras", "exponential", "beta"] as const;
export type Spread = (typeof SPREADS)[number];

/** How noise levels are spread, and the ends that replace a schedule's own. */
export interface SigmaSpread {
  readonly kind: Spread;
  readonly min: number | undefined;
  readonly max: number | undefined;
}

/**
 * use_karras_sigmas and its like. sigma_min and sigma_max count for every class, as diffusers finds them in any config.
 * Throws `invalid-model` where there are several.
 */
export function readSigmaSpread(config: SchedulerConfig): SigmaSpread {
  const chosen = SPREADS.slice(1).filter((kind) => config.flag(`use_${kind}_sigmas`));
  if (chosen.length > 1) throw config.invalid(`use_${chosen[0]}_sigmas`, `false beside use_${chosen[1]}_sigmas`);
  const min = config.optionalNumber("sigma_min", LEAST_SIGMA, MOST_SIGMA);
  const max = config.optionalNumber("sigma_max", LEAST_SIGMA, MOST_SIGMA);
  if ((min ?? LEAST_SIGMA) >= (max ?? Infinity)) throw config.invalid("sigma_min", "less than sigma_max");
  return { kind: chosen[0] ?? "none", min, max };
}

/** Timesteps were given to a scheduler whose config has a `setting` that makes its own. */
export function ownTimesteps({ where }: SchedulerConfig, setting: string): MixdqError {
  return new MixdqError(
    "invalid-input",
    `timesteps: given, but ${where} has ${setting}, which makes its own. Leave them out, or choose another scheduler.`,
  );
}

/** `count` levels from the largest to the smallest; `first` and `last` are the schedule's own ends. In double precision. */
export function spreadSigmas(
  { kind, min, max }: SigmaSpread & { readonly kind: Exclude<Spread, "none"> },
  { first, last }: { readonly first: number; readonly last: number },
  count: number,
): number[] {
  const [from, to] = [max ?? first, min ?? last];
  switch (kind) {
    case "karras": {
      // Karras et al. 2022, arXiv 2206.00364, eq. 5.
      const RHO = 7;
      const [fromRoot, toRoot] = [from ** (1 / RHO), to ** (1 / RHO)];
      return linspace(0, 1, count).map((ramp) => (fromRoot + ramp * (toRoot - fromRoot)) ** RHO);
    }
    case "exponential":
      return linspace(Math.log(from), Math.log(to), count).map(Math.exp);
    case "beta":
      return linspace(0, 1, count).map((ramp) => to + betaQuantile(1 - ramp) * (from - to));
  }
}

/** Beta(a, a) with a = 0.6, after Lee et al. 2024 (arXiv 2407.12173). */
const BETA_SHAPE = 0.6;

/** The quantile function of Beta(0.6, 0.6): x with I_x = p, by bisection. */
export function betaQuantile(p: number): number {
  if (p > 0.5) return 1 - betaQuantile(1 - p);
  const target = 2 * p * betaSeries(0.5);
  let [low, high] = [0, 0.5];
  for (let i = 0; i < 100 && low < high; i++) {
    const middle = (low + high) / 2;
    if (betaSeries(middle) < target) low = middle;
    else high = middle;
  }
  return high;
}

/**
 * The incomplete beta function at x <= 1/2, but for a constant factor: x^a sum (1-a)_n / n! x^n / (a+n) (DLMF 8.17.7). As
 * the distribution is symmetric, I_x is half of this over its value at 1/2.
 */
function betaSeries(x: number): number {
  let [term, sum] = [1, 1 / BETA_SHAPE];
  for (let n = 1; term > 1e-18 && n < 100; n++) {
    term *= ((n - BETA_SHAPE) / n) * x;
    sum += term / (BETA_SHAPE + n);
  }
  return x ** BETA_SHAPE * sum;
}

/** The fractional training timestep of a noise level, by linear interpolation in its logarithm. */
export function sigmaToTimestep(sigma: number, trainingSigmas: Float32Array): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10));
  const logAt = (i: number) => log32(trainingSigmas[i]);
  let low = 0;
  // Training sigmas grow with the timestep; the last one at or below sigma is the lower neighbour.
  while (low < trainingSigmas.length - 2 && logAt(low + 1) <= logSigma) low++;
  const weight = (logAt(low) - logSigma) / Math.fround(logAt(low) - logAt(low + 1));
  const clamped = Math.min(1, Math.max(0, weight));
  return (1 - clamped) * low + clamped * (low + 1);
}
