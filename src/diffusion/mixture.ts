/** Signal and noise at a timestep, in float32, from the running product of 1 - beta. */
import { combine, f32, sqrt32 } from "./float32.ts";
import type { Mixture, PredictionType } from "./prediction.ts";
import type { SchedulerConfig } from "./schedulerConfig.ts";

export const signalOf = (alphaCumprod: number): number => sqrt32(alphaCumprod);
/** A clean sample with the noise of a timestep. */
export const noised = (clean: Float32Array, noise: Float32Array, alphaCumprod: number): Float32Array =>
  combine([signalOf(alphaCumprod), clean], [noiseOf(alphaCumprod), noise]);
export const noiseOf = (alphaCumprod: number): number => sqrt32(f32(1 - alphaCumprod));

/**
 * The parts of a sample at `timestep`. Throws `unsupported` where nothing of the signal is left and the model predicts the
 * noise: that says nothing about the sample, and diffusers divides by zero.
 */
export function mixtureAt(
  config: SchedulerConfig,
  prediction: PredictionType,
  alphaCumprod: number,
  timestep: number,
): Mixture {
  if (alphaCumprod === 0 && prediction === "epsilon")
    throw config.unsupported("rescale_betas_zero_snr", `false for prediction_type "epsilon" at timestep ${timestep}`);
  return { alpha: signalOf(alphaCumprod), sigma: noiseOf(alphaCumprod) };
}
