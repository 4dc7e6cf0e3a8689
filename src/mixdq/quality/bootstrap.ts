/**
 * How far a figure would move with other prompts: bootstrap confidence intervals (Efron 1979; percentile intervals,
 * Efron and Tibshirani 1993, chapter 13). Seeded: the same pictures give the same interval.
 */

/** A figure and its 95 % confidence interval. */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

export interface BootstrapOptions {
  readonly resamples?: number;
  readonly seed?: number;
  /**
   * For a statistic that is biased by the number of its samples (Fréchet distance): resamples repeat some samples, which
   * shifts all of them one way, off the value. The interval is then moved back by the shift of their mean.
   */
  readonly centred?: boolean;
}

export const RESAMPLES = 1000;
export const CONFIDENCE = 0.95;

/**
 * `statistic` of all `count` samples, with the interval from its values on `resamples` draws of `count` samples with
 * replacement. It is given the samples' indices, in an array that is reused.
 */
export function bootstrap(
  count: number,
  statistic: (indices: Uint32Array) => number,
  { resamples = RESAMPLES, seed = 0, centred = false }: BootstrapOptions = {},
): Estimate {
  const value = statistic(Uint32Array.from({ length: count }, (_, i) => i));
  const random = seededRandom(seed);
  const indices = new Uint32Array(count);
  const values = Float64Array.from({ length: resamples }, () => {
    for (let i = 0; i < count; i++) indices[i] = Math.floor(random() * count);
    return statistic(indices);
  }).sort();
  const shift = centred ? meanOf(values) - value : 0;
  const tail = (1 - CONFIDENCE) / 2;
  return {
    value,
    // The value is always within: rounding, or very few samples, could put it just outside.
    low: Math.min(value, quantile(values, tail) - shift),
    high: Math.max(value, quantile(values, 1 - tail) - shift),
  };
}

/** The mean of one figure a sample. */
export function bootstrapMean(values: readonly number[], options?: BootstrapOptions): Estimate {
  const mean = (indices: Uint32Array): number => {
    let sum = 0;
    for (let i = 0; i < indices.length; i++) sum += values[indices[i]];
    return sum / indices.length;
  };
  return bootstrap(values.length, mean, options);
}

/** 0 <= number < 1, from a 32-bit state (mulberry32; Tommy Ettinger, public domain): good enough to draw samples with. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Between the two nearest of the sorted values, linearly. */
function quantile(sorted: Float64Array, share: number): number {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

function meanOf(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
