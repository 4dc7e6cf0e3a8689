/**
 * LCMScheduler: a consistency model jumps to its estimate of the clean sample at every step and noises that again for
 * the next one. Luo et al. 2023, arXiv 2310.04378. Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { MixdqError } from "../base/errors.ts";
import type { SchedulerFactory } from "./schedulerConfig.ts";
import type { SchedulerConfig } from "./schedulerConfig.ts";
import { makeTrainingSchedule, PREDICTION_TYPES } from "./schedulerConfig.ts";

const f32 = Math.fround;
const DEFAULT_BETAS = { start: 0.00085, end: 0.012, schedule: "scaled_linear" } as const;
/** Variance of the data that the boundary scalings assume, 0.5^2 as in diffusers. */
const DATA_VARIANCE = 0.25;

/**
 * LCMScheduler; draws noise at every step but the last. `timestep_spacing`, `steps_offset` and `set_alpha_to_one` are
 * in its config files but have no effect on what diffusers computes, nor here.
 */
export function makeLcm(config: SchedulerConfig): SchedulerFactory {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, DEFAULT_BETAS);
  const prediction = config.choice("prediction_type", "epsilon", PREDICTION_TYPES);
  const originalSteps = config.integer("original_inference_steps", 50, 1, trainTimesteps);
  const timestepScaling = config.number("timestep_scaling", 10, 1e-3, 1e6);
  const clip = config.flag("clip_sample") ? config.number("clip_sample_range", 1, 1e-3, 1e6) : Infinity;
  config.refuse("thresholding");
  // At zero signal, noise says nothing about the sample: diffusers divides by zero here.
  if (prediction === "epsilon") config.refuse("rescale_betas_zero_snr");

  return (steps) => {
    const timesteps = makeTimesteps(trainTimesteps, originalSteps, steps);
    return {
      timesteps,
      initNoiseSigma: 1,
      scaleModelInput: (sample) => sample,
      step(modelOutput, stepIndex, sample, noise) {
        const timestep = timesteps[stepIndex];
        const signal = signalScale(alphasCumprod[timestep]);
        const noiseScale = signalScale(f32(1 - alphasCumprod[timestep]));
        const [skip, out] = boundaryScalings(f32(timestep * timestepScaling));

        const denoised = sample.map((value, i) => {
          let clean = modelOutput[i];
          if (prediction === "epsilon") clean = f32(f32(value - f32(noiseScale * clean)) / signal);
          if (prediction === "v_prediction") clean = f32(f32(signal * value) - f32(noiseScale * clean));
          clean = Math.min(clip, Math.max(-clip, clean));
          return f32(out * clean) + f32(skip * value);
        });
        if (stepIndex === steps - 1) return { prev: denoised, denoised };

        const next = alphasCumprod[timesteps[stepIndex + 1]];
        const nextSignal = signalScale(next);
        const nextNoise = signalScale(f32(1 - next));
        const fresh = noise();
        if (fresh.length !== sample.length) {
          throw new MixdqError("invalid-input", `noise: got ${fresh.length} values, expected ${sample.length}.`);
        }
        return { prev: denoised.map((value, i) => f32(nextSignal * value) + f32(nextNoise * fresh[i])), denoised };
      },
    };
  };
}

function signalScale(variance: number): number {
  return f32(Math.sqrt(variance));
}

/** Evenly picked from the timesteps of the distillation, noisiest first. Throws `invalid-input` for too many steps. */
function makeTimesteps(trainTimesteps: number, originalSteps: number, steps: number): Float32Array {
  if (steps > originalSteps) {
    throw new MixdqError(
      "invalid-input",
      `numInferenceSteps: got ${steps}, expected at most the ${originalSteps} of the scheduler's ` +
        `original_inference_steps. Choose fewer steps (LCM models need 1 to 8).`,
    );
  }
  const stride = Math.floor(trainTimesteps / originalSteps);
  const pick = originalSteps / steps;
  return Float32Array.from({ length: steps }, (_, i) => (originalSteps - Math.floor(i * pick)) * stride - 1);
}

/** c_skip and c_out: the output is the sample itself at time 0 and the model's estimate far from it. */
function boundaryScalings(scaledTimestep: number): [skip: number, out: number] {
  const variance = f32(f32(scaledTimestep * scaledTimestep) + DATA_VARIANCE);
  return [f32(DATA_VARIANCE / variance), f32(scaledTimestep / f32(Math.sqrt(variance)))];
}
