/**
 * Samplers of distilled models that noise their estimate again at every step. LCMScheduler: Luo et al. 2023, arXiv
 * 2310.04378. TCDScheduler: Zheng et al. 2024, arXiv 2402.19159. Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { MixdqError } from "../base/errors.ts";
import { combine, f32, sqrt32 } from "./float32.ts";
import { mixtureAt, noised, noiseOf, signalOf } from "./mixture.ts";
import { PREDICTION_TYPES, readLimit, toClean, toEpsilon } from "./prediction.ts";
import { makeTrainingSchedule, type Asked, type Family, type Run, type SchedulerConfig } from "./schedulerConfig.ts";
import { entryAt } from "./timestepSpacing.ts";

const BETAS = { start: 0.00085, end: 0.012, schedule: "scaled_linear", zeroSnr: true } as const;
/** Variance of the data that the boundary scalings assume, 0.5^2 as in diffusers. */
const DATA_VARIANCE = 0.25;

/**
 * LCMScheduler; draws noise at every step but the last. `timestep_spacing`, `steps_offset` and `set_alpha_to_one` are
 * in its config files but have no effect on what diffusers computes, nor here.
 */
export function makeLcm(config: SchedulerConfig): Family {
  const { alphasCumprod, timestepsOf } = readDistilled(config);
  const prediction = config.choice("prediction_type", "epsilon", PREDICTION_TYPES);
  const timestepScaling = config.number("timestep_scaling", 10, 1e-3, 1e6);
  const limit = readLimit(config, { thresholding: true, clip: false });

  return (asked) => {
    const timesteps = timestepsOf(asked);
    const mixtures = [...timesteps].map((t) => mixtureAt(config, prediction, entryAt(alphasCumprod, t), t));
    const denoised: Run["denoised"] = (output, call, sample) => {
      const [skip, out] = boundaryScalings(f32(timesteps[call] * timestepScaling));
      return combine([out, limit(toClean(prediction, output, sample, mixtures[call]))], [skip, sample]);
    };
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noised(clean, noise, alphasCumprod[timesteps[call]]),
      denoised,
      step(output, call, sample, noise) {
        const clean = denoised(output, call, sample);
        if (call === timesteps.length - 1) return clean;
        const next = alphasCumprod[timesteps[call + 1]];
        return combine([signalOf(next), clean], [noiseOf(next), noise()]);
      },
    };
  };
}

/**
 * TCDScheduler; with eta above 0 it draws noise at every step but the last. Its config's clipping and thresholding have no
 * effect on what diffusers computes, nor here.
 */
export function makeTcd(config: SchedulerConfig): Family {
  const { alphasCumprod, timestepsOf } = readDistilled(config);
  const prediction = config.choice("prediction_type", "epsilon", PREDICTION_TYPES);

  return (asked) => {
    const timesteps = timestepsOf(asked);
    const mixtures = [...timesteps].map((t) => mixtureAt(config, prediction, entryAt(alphasCumprod, t), t));
    const denoised: Run["denoised"] = (output, call, sample) => toClean(prediction, output, sample, mixtures[call]);
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noised(clean, noise, alphasCumprod[timesteps[call]]),
      denoised,
      step(output, call, sample, noise) {
        const isLast = call === timesteps.length - 1;
        const next = isLast ? 0 : timesteps[call + 1];
        // The point that the model jumps to, below the next timestep: noise leads back up.
        const target = alphasCumprod[Math.floor(f32(f32(1 - asked.eta) * next))];
        const epsilon = toEpsilon(prediction, output, sample, mixtures[call]);
        const jumped = combine([signalOf(target), denoised(output, call, sample)], [noiseOf(target), epsilon]);
        if (asked.eta === 0 || isLast) return jumped;
        const kept = f32(alphasCumprod[next] / target);
        return combine([sqrt32(kept), jumped], [sqrt32(f32(1 - kept)), noise()]);
      },
    };
  };
}

/** What both read: the training schedule, and the timesteps of the distillation, of which a run visits a part. */
function readDistilled(config: SchedulerConfig) {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, BETAS);
  const originalSteps = config.integer("original_inference_steps", 50, 1, trainTimesteps);
  const timestepsOf = ({ steps, timesteps, distilledStrength }: Asked): Float32Array => {
    const stride = Math.floor(trainTimesteps / originalSteps);
    if (!timesteps) return evenTimesteps(stride, Math.trunc(originalSteps * distilledStrength), steps);
    const checked = checkedTimesteps(timesteps, trainTimesteps);
    return Float32Array.from(checked.slice(checked.length - Math.trunc(checked.length * distilledStrength)));
  };
  return { alphasCumprod, timestepsOf };
}

/** Throws `invalid-input` unless they are whole numbers in descending order. */
function checkedTimesteps(timesteps: readonly number[], trainTimesteps: number): readonly number[] {
  const wrong = timesteps.findIndex(
    (t, i) => !Number.isInteger(t) || t < 0 || t >= (i === 0 ? trainTimesteps : timesteps[i - 1]),
  );
  if (wrong < 0) return timesteps;
  throw new MixdqError(
    "invalid-input",
    `timesteps: got ${timesteps[wrong]} at ${wrong}, expected whole numbers in descending order from at most ${trainTimesteps - 1}, as this scheduler asks for.`,
  );
}

/** Evenly picked from the first timesteps of the distillation, noisiest first. Throws `invalid-input` for too many steps. */
function evenTimesteps(stride: number, originalSteps: number, steps: number): Float32Array {
  if (steps > originalSteps) {
    throw new MixdqError(
      "invalid-input",
      `numInferenceSteps: got ${steps}, expected at most the ${originalSteps} of the scheduler's ` +
        `original_inference_steps (with a picture, strength times as many). Choose fewer steps (LCM models need 1 to 8).`,
    );
  }
  const pick = originalSteps / steps;
  return Float32Array.from({ length: steps }, (_, i) => (originalSteps - Math.floor(i * pick)) * stride - 1);
}

/** c_skip and c_out: the output is the sample itself at time 0 and the model's estimate far from it. */
function boundaryScalings(scaledTimestep: number): [skip: number, out: number] {
  const variance = f32(f32(scaledTimestep * scaledTimestep) + DATA_VARIANCE);
  return [f32(DATA_VARIANCE / variance), f32(scaledTimestep / sqrt32(variance))];
}
