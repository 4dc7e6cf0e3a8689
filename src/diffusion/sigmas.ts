/**
 * Noise levels (sigmas) and the timesteps they belong to, in double precision as numpy computes them for diffusers'
 * Euler schedulers.
 */

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

/**
 * As many levels as given, spread from the largest to the smallest by Karras et al. 2022 (arXiv 2206.00364, eq. 5,
 * rho = 7) or evenly in their logarithm. `limits` replace the ends.
 */
export function convertSigmas(
  spread: "karras" | "exponential",
  sigmas: readonly number[],
  limits: { readonly min?: number | undefined; readonly max?: number | undefined },
): number[] {
  const max = limits.max ?? sigmas[0];
  const min = limits.min ?? sigmas[sigmas.length - 1];
  if (spread === "exponential") return linspace(Math.log(max), Math.log(min), sigmas.length).map(Math.exp);
  const RHO = 7;
  const maxRoot = max ** (1 / RHO);
  const minRoot = min ** (1 / RHO);
  return linspace(0, 1, sigmas.length).map((ramp) => (maxRoot + ramp * (minRoot - maxRoot)) ** RHO);
}

/** The fractional training timestep of a noise level, by linear interpolation in its logarithm. */
export function sigmaToTimestep(sigma: number, trainingSigmas: Float32Array): number {
  const logSigma = Math.log(Math.max(sigma, 1e-10));
  const logAt = (i: number) => Math.fround(Math.log(trainingSigmas[i]));
  let low = 0;
  // Training sigmas grow with the timestep; the last one at or below sigma is the lower neighbour.
  while (low < trainingSigmas.length - 2 && logAt(low + 1) <= logSigma) low++;
  const weight = (logAt(low) - logSigma) / Math.fround(logAt(low) - logAt(low + 1));
  const clamped = Math.min(1, Math.max(0, weight));
  return (1 - clamped) * low + clamped * (low + 1);
}
