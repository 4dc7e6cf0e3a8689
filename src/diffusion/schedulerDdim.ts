/**
 * DDIMScheduler: the deterministic walk of Song et al. 2021 (arXiv 2010.02502), with `eta` of the ancestral noise put back.
 * Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { combine, f32, sqrt32 } from "./float32.ts";
import { mixtureAt, noised, signalOf } from "./mixture.ts";
import { PREDICTION_TYPES, readLimit, toClean, toEpsilon } from "./prediction.ts";
import { makeTrainingSchedule, type Family, type Run, type SchedulerConfig } from "./schedulerConfig.ts";
import { entryAt, readSpacing, roundHalfEven, spacedTimesteps } from "./timestepSpacing.ts";

const BETAS = { start: 0.0001, end: 0.02, schedule: "linear", zeroSnr: true } as const;

/** DDIMScheduler; with eta above 0 it draws noise at every step, the last one included. */
export function makeDdim(config: SchedulerConfig): Family {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, BETAS);
  const spacing = readSpacing(config, trainTimesteps, "leading");
  const prediction = config.choice("prediction_type", "epsilon", PREDICTION_TYPES);
  const limit = readLimit(config, { thresholding: true, clip: true });
  const finalAlpha = config.flag("set_alpha_to_one", true) ? 1 : alphasCumprod[0];
  return ({ steps, eta }) => {
    const timesteps = Float32Array.from(spacedTimesteps(spacing, steps).map(roundHalfEven));
    const stride = Math.floor(trainTimesteps / steps);
    const mixtures = [...timesteps].map((t) => mixtureAt(config, prediction, entryAt(alphasCumprod, t), t));
    const denoised: Run["denoised"] = (output, call, sample) =>
      limit(toClean(prediction, output, sample, mixtures[call]));
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noised(clean, noise, alphasCumprod[timesteps[call]]),
      denoised,
      step(output, call, sample, noise) {
        const [now, before] = [timesteps[call], timesteps[call] - stride];
        const alpha = alphasCumprod[now];
        const alphaBefore = before >= 0 ? alphasCumprod[before] : finalAlpha;
        const variance = f32(f32(f32(1 - alphaBefore) / f32(1 - alpha)) * f32(1 - f32(alpha / alphaBefore)));
        const deviation = f32(f32(eta) * sqrt32(variance));
        // Rounding may leave a negative zero of a difference, whose root would be NaN.
        const direction = sqrt32(Math.max(0, f32(f32(1 - alphaBefore) - f32(deviation * deviation))));
        const epsilon = toEpsilon(prediction, output, sample, mixtures[call]);
        const prev = combine([signalOf(alphaBefore), denoised(output, call, sample)], [direction, epsilon]);
        return eta > 0 ? combine([1, prev], [deviation, noise()]) : prev;
      },
    };
  };
}
