/**
 * Euler's method on the probability flow ODE (EulerDiscreteScheduler) and its ancestral variant, which steps further
 * down and adds fresh noise (EulerAncestralDiscreteScheduler). Karras et al. 2022, arXiv 2206.00364; k-diffusion.
 * Values are rounded to float32 where diffusers 0.40 computes in float32.
 */
import { MixdqError } from "../base/errors.ts";
import type { Scheduler, SchedulerFactory } from "./schedulerConfig.ts";
import type { PredictionType, SchedulerConfig, TimestepSpacing } from "./schedulerConfig.ts";
import { makeTrainingSchedule, PREDICTION_TYPES, TIMESTEP_SPACINGS, trainingSigmas } from "./schedulerConfig.ts";
import { convertSigmas, interpolate, linspace, sigmaToTimestep } from "./sigmas.ts";

const f32 = Math.fround;
const DEFAULT_BETAS = { start: 0.0001, end: 0.02, schedule: "linear" } as const;

/** Noise levels that a config may set: SD's are 0.03 to 15, a zero terminal SNR gives 4096. */
const [LEAST_SIGMA, MOST_SIGMA] = [1e-6, 1e5];

/** What both classes share: the config, read once, and the sigmas of the training timesteps. */
interface EulerModel {
  readonly trainTimesteps: number;
  readonly sigmas: Float32Array;
  readonly spacing: TimestepSpacing;
  readonly stepsOffset: number;
}

/** EulerAncestralDiscreteScheduler; draws noise at every step, the last one (where it adds none) included. */
export function makeEulerAncestral(config: SchedulerConfig): SchedulerFactory {
  const model = readEulerModel(config);
  // diffusers' own class stops at "sample" as not implemented.
  const prediction = config.choice("prediction_type", "epsilon", ["epsilon", "v_prediction"]);
  return (steps) => {
    const timesteps = makeTimesteps(model, steps);
    const sigmas = Float32Array.from([...timesteps].map((t) => interpolate(model.sigmas, t)).concat(0));
    return {
      ...makeInput(model, timesteps, sigmas),
      step(modelOutput, stepIndex, sample, noise) {
        const sigma = sigmas[stepIndex];
        const [up, down] = ancestralSigmas(sigma, sigmas[stepIndex + 1]);
        const denoised = denoise(prediction, modelOutput, sample, sigma);
        const prev = eulerStep(sample, denoised, sigma, f32(down - sigma));
        const fresh = noise();
        if (fresh.length !== sample.length) {
          throw new MixdqError("invalid-input", `noise: got ${fresh.length} values, expected ${sample.length}.`);
        }
        return { prev: prev.map((value, i) => value + f32(fresh[i] * up)), denoised };
      },
    };
  };
}

/** EulerDiscreteScheduler without churn (which no pipeline turns on): never draws noise. */
export function makeEulerDiscrete(config: SchedulerConfig): SchedulerFactory {
  const model = readEulerModel(config);
  const prediction = config.choice<PredictionType | "original_sample">("prediction_type", "epsilon", [
    ...PREDICTION_TYPES,
    "original_sample",
  ]);
  config.refuse("use_beta_sigmas");
  const spread = readSigmaSpread(config);
  // With the spreads below the interpolation is overwritten, so only then does its type matter.
  if (spread === "none") config.choice("interpolation_type", "linear", ["linear"]);
  const limits = {
    min: config.optionalNumber("sigma_min", LEAST_SIGMA, MOST_SIGMA),
    max: config.optionalNumber("sigma_max", LEAST_SIGMA, MOST_SIGMA),
  };
  if ((limits.min ?? LEAST_SIGMA) >= (limits.max ?? Infinity)) throw config.invalid("sigma_min", "less than sigma_max");
  const finalSigmas = config.choice("final_sigmas_type", "zero", ["zero", "sigma_min"]);
  const finalSigma = finalSigmas === "zero" ? 0 : model.sigmas[0];
  const isContinuous =
    config.choice("timestep_type", "discrete", ["discrete", "continuous"]) === "continuous" &&
    prediction === "v_prediction";

  return (steps) => {
    let timesteps = makeTimesteps(model, steps);
    let levels = [...timesteps].map((t) => interpolate(model.sigmas, t));
    if (spread !== "none") {
      levels = convertSigmas(spread, levels, limits);
      timesteps = Float32Array.from(levels, (sigma) => sigmaToTimestep(sigma, model.sigmas));
    }
    const sigmas = Float32Array.from([...levels, finalSigma]);
    if (isContinuous) timesteps = sigmas.slice(0, -1).map((sigma) => 0.25 * f32(Math.log(sigma)));
    return {
      ...makeInput(model, timesteps, sigmas),
      step(modelOutput, stepIndex, sample) {
        const sigma = sigmas[stepIndex];
        const denoised = denoise(prediction, modelOutput, sample, sigma);
        return { prev: eulerStep(sample, denoised, sigma, f32(sigmas[stepIndex + 1] - sigma)), denoised };
      },
    };
  };
}

function readEulerModel(config: SchedulerConfig): EulerModel {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, DEFAULT_BETAS);
  // With a zero terminal SNR the first sigma would be infinite; diffusers takes the smallest f16 subnormal instead.
  if (config.flag("rescale_betas_zero_snr")) alphasCumprod[trainTimesteps - 1] = 2 ** -24;
  const sigmas = trainingSigmas(alphasCumprod);
  if (!sigmas.every(Number.isFinite)) throw config.invalid("trained_betas", "betas below 1, so that signal remains");
  // Steps are divided by the noise level that they begin at.
  if (sigmas.includes(0)) throw config.invalid("beta_start", "betas above 0, so that there is noise at every timestep");
  return {
    trainTimesteps,
    sigmas,
    spacing: config.choice("timestep_spacing", "linspace", TIMESTEP_SPACINGS),
    stepsOffset: config.integer("steps_offset", 0, 0, trainTimesteps),
  };
}

function readSigmaSpread(config: SchedulerConfig): "none" | "karras" | "exponential" {
  const isKarras = config.flag("use_karras_sigmas");
  const isExponential = config.flag("use_exponential_sigmas");
  if (isKarras && isExponential) throw config.invalid("use_karras_sigmas", "false beside use_exponential_sigmas");
  return isKarras ? "karras" : isExponential ? "exponential" : "none";
}

/** [steps], from the noisiest down. Table 2 of Lin et al. 2023, arXiv 2305.08891. Throws `invalid-input`. */
function makeTimesteps({ trainTimesteps, spacing, stepsOffset }: EulerModel, steps: number): Float32Array {
  if (steps > trainTimesteps) {
    throw new MixdqError(
      "invalid-input",
      `numInferenceSteps: got ${steps}, expected at most the ${trainTimesteps} the model was trained with.`,
    );
  }
  switch (spacing) {
    case "linspace":
      return Float32Array.from(linspace(0, trainTimesteps - 1, steps)).reverse();
    case "leading": {
      const ratio = Math.floor(trainTimesteps / steps);
      return Float32Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + stepsOffset);
    }
    case "trailing": {
      // For some counts (61, 103, ...) rounding gives diffusers one timestep more, -1; we keep the count asked for.
      const stride = trainTimesteps - trainTimesteps / steps - trainTimesteps;
      return Float32Array.from({ length: steps }, (_, i) => roundHalfEven(trainTimesteps + i * stride) - 1);
    }
  }
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const isTie = x - floor === 0.5;
  return isTie ? floor + (floor % 2) : Math.round(x);
}

function makeInput(
  model: EulerModel,
  timesteps: Float32Array,
  sigmas: Float32Array,
): Pick<Scheduler, "timesteps" | "initNoiseSigma" | "scaleModelInput"> {
  const maxSigma = sigmas.reduce((a, b) => Math.max(a, b));
  return {
    timesteps,
    initNoiseSigma: model.spacing === "leading" ? norm(maxSigma) : maxSigma,
    scaleModelInput(sample, stepIndex) {
      const scale = norm(sigmas[stepIndex]);
      return sample.map((value) => value / scale);
    },
  };
}

/** sqrt(sigma^2 + 1): how much larger than unit variance a sample at this noise level is. */
function norm(sigma: number): number {
  return f32(Math.sqrt(f32(f32(sigma * sigma) + 1)));
}

/** The clean sample that a model output at noise level sigma stands for. */
function denoise(
  prediction: PredictionType | "original_sample",
  modelOutput: Float32Array,
  sample: Float32Array,
  sigma: number,
): Float32Array {
  switch (prediction) {
    case "epsilon":
      return sample.map((value, i) => value - f32(sigma * modelOutput[i]));
    case "v_prediction": {
      const outputScale = f32(-sigma / norm(sigma));
      const variance = f32(f32(sigma * sigma) + 1);
      return sample.map((value, i) => f32(modelOutput[i] * outputScale) + f32(value / variance));
    }
    case "sample":
    case "original_sample":
      return modelOutput.slice();
  }
}

function eulerStep(sample: Float32Array, denoised: Float32Array, sigma: number, dt: number): Float32Array {
  return sample.map((value, i) => value + f32(f32(f32(value - denoised[i]) / sigma) * dt));
}

/** How much noise an ancestral step adds (up), and the level it first descends to (down): up^2 + down^2 = to^2. */
function ancestralSigmas(from: number, to: number): [up: number, down: number] {
  const fromSquared = f32(from * from);
  const toSquared = f32(to * to);
  const up = f32(Math.sqrt(f32(f32(toSquared * f32(fromSquared - toSquared)) / fromSquared)));
  // Rounding may leave a negative zero of a difference, whose root would be NaN (as it is in diffusers).
  return [up, f32(Math.sqrt(Math.max(0, f32(toSquared - f32(up * up)))))];
}
