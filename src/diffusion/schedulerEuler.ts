/**
 * Euler's method on the probability flow ODE (EulerDiscreteScheduler), its ancestral variant, which steps further down and
 * adds fresh noise (EulerAncestralDiscreteScheduler), and Heun's method, which corrects each step by a second look
 * (HeunDiscreteScheduler). Karras et al. 2022, arXiv 2206.00364; k-diffusion. Values are rounded to float32 where
 * diffusers 0.40 computes in float32.
 */
import { combine, exp32, f32, log32, sqrt32 } from "./float32.ts";
import { PREDICTION_TYPES, readLimit, type PredictionType } from "./prediction.ts";
import { makeSigmaSchedule, type Asked, type Family, type Run, type SchedulerConfig } from "./schedulerConfig.ts";
import {
  interpolate,
  linspace,
  ownTimesteps,
  readSigmaSpread,
  sigmaToTimestep,
  spreadSigmas,
  type SigmaSpread,
} from "./sigmas.ts";
import { readSpacing, spacedTimesteps, type Spacing } from "./timestepSpacing.ts";

const EULER_BETAS = { start: 0.0001, end: 0.02, schedule: "linear", zeroSnr: true } as const;
const HEUN_BETAS = { start: 0.00085, end: 0.012, schedule: "linear", exp: true } as const;

type Prediction = PredictionType | "original_sample";

/** EulerAncestralDiscreteScheduler; draws noise at every step, the last one (where it adds none) included. */
export function makeEulerAncestral(config: SchedulerConfig): Family {
  const { trainTimesteps, sigmas: table } = makeSigmaSchedule(config, EULER_BETAS);
  const spacing = readSpacing(config, trainTimesteps, "linspace");
  // diffusers' own class stops at "sample" as not implemented.
  const prediction = config.choice("prediction_type", "epsilon", ["epsilon", "v_prediction"]);
  return ({ steps }) => {
    const timesteps = Float32Array.from(spacedTimesteps(spacing, steps));
    const sigmas = Float32Array.from([...timesteps].map((t) => interpolate(table, t)).concat(0));
    const denoised: Run["denoised"] = (output, call, sample) => denoise(prediction, output, sample, sigmas[call]);
    return {
      ...makeInput(spacing, timesteps, sigmas),
      denoised,
      step(output, call, sample, noise) {
        const sigma = sigmas[call];
        const [up, down] = ancestralSigmas(sigma, sigmas[call + 1]);
        const prev = eulerStep(sample, derivative(sample, denoised(output, call, sample), sigma), f32(down - sigma));
        return combine([1, prev], [up, noise()]);
      },
    };
  };
}

/** EulerDiscreteScheduler without churn (which no pipeline turns on): never draws noise. */
export function makeEulerDiscrete(config: SchedulerConfig): Family {
  const { trainTimesteps, sigmas: table } = makeSigmaSchedule(config, EULER_BETAS);
  const spacing = readSpacing(config, trainTimesteps, "linspace");
  const prediction = config.choice<Prediction>("prediction_type", "epsilon", [...PREDICTION_TYPES, "original_sample"]);
  const spread = readSigmaSpread(config);
  const interpolation = config.choice("interpolation_type", "linear", ["linear", "log_linear"]);
  const finalSigmas = config.choice("final_sigmas_type", "zero", ["zero", "sigma_min"]);
  const finalSigma = finalSigmas === "zero" ? 0 : table[0];
  const isContinuous =
    config.choice("timestep_type", "discrete", ["discrete", "continuous"]) === "continuous" &&
    prediction === "v_prediction";

  return (asked) => {
    if (isContinuous && asked.timesteps) throw ownTimesteps(config, 'timestep_type "continuous"');
    const even = chosenTimesteps(config, spacing, spread, asked);
    const levels = interpolation === "linear" ? even.map((t) => interpolate(table, t)) : logLinear(table, even.length);
    const { timesteps, levels: spreadLevels } = spreadOver(spread, table, even, levels);
    const sigmas = Float32Array.from([...spreadLevels, finalSigma]);
    const denoised: Run["denoised"] = (output, call, sample) => denoise(prediction, output, sample, sigmas[call]);
    return {
      ...makeInput(spacing, isContinuous ? sigmas.slice(0, -1).map((s) => 0.25 * log32(s)) : timesteps, sigmas),
      denoised,
      step(output, call, sample) {
        const sigma = sigmas[call];
        const clean = denoised(output, call, sample);
        return eulerStep(sample, derivative(sample, clean, sigma), f32(sigmas[call + 1] - sigma));
      },
    };
  };
}

/** HeunDiscreteScheduler: two calls a step, the last step one. Never draws noise. */
export function makeHeun(config: SchedulerConfig): Family {
  const { trainTimesteps, sigmas: table } = makeSigmaSchedule(config, HEUN_BETAS);
  const spacing = readSpacing(config, trainTimesteps, "linspace");
  const prediction = config.choice("prediction_type", "epsilon", PREDICTION_TYPES);
  const limit = readLimit(config, { clip: false });
  const spread = readSigmaSpread(config);
  return (asked) => {
    const even = chosenTimesteps(config, spacing, spread, asked);
    const once = spreadOver(
      spread,
      table,
      even,
      even.map((t) => interpolate(table, t)),
    );
    const levels = Float32Array.from([...once.levels, 0]);
    // Each level but the first is visited twice: at the end of its step and at the beginning of the next.
    const levelOf = (call: number): number => (call + 1) >> 1;
    const calls = 2 * once.levels.length - 1;
    const sigmas = Float32Array.from({ length: calls }, (_, call) => levels[levelOf(call)]);
    const timesteps = Float32Array.from({ length: calls }, (_, call) => once.timesteps[levelOf(call)]);
    const denoised: Run["denoised"] = (output, call, sample) =>
      limit(denoise(prediction, output, sample, sigmas[call]));
    let first: { readonly sample: Float32Array; readonly slope: Float32Array; readonly dt: number } | undefined;
    return {
      ...makeInput(spacing, timesteps, sigmas),
      denoised,
      stepOf: (call) => (call >> 1) + 1,
      step(output, call, sample) {
        const sigma = sigmas[call];
        const slope = derivative(sample, denoised(output, call, sample), sigma);
        if (call % 2 === 0) {
          first = { sample, slope, dt: f32(levels[levelOf(call) + 1] - sigma) };
          return eulerStep(sample, slope, first.dt);
        }
        const { sample: start, slope: firstSlope, dt } = first!;
        return eulerStep(
          start,
          firstSlope.map((value, i) => f32(value + slope[i]) / 2),
          dt,
        );
      },
    };
  };
}

/** Evenly spaced, or those that were given, which go with no other spread of the noise levels. */
function chosenTimesteps(config: SchedulerConfig, spacing: Spacing, spread: SigmaSpread, asked: Asked): number[] {
  if (asked.timesteps === undefined) return [...Float32Array.from(spacedTimesteps(spacing, asked.steps))];
  if (spread.kind !== "none") throw ownTimesteps(config, `use_${spread.kind}_sigmas`);
  return [...asked.timesteps];
}

function spreadOver(spread: SigmaSpread, table: Float32Array, timesteps: readonly number[], levels: readonly number[]) {
  const { kind } = spread;
  if (kind === "none") return { timesteps: Float32Array.from(timesteps), levels };
  const ends = { first: levels[0], last: levels.at(-1)! };
  const spreadLevels = spreadSigmas({ ...spread, kind }, ends, timesteps.length);
  return { timesteps: Float32Array.from(spreadLevels, (sigma) => sigmaToTimestep(sigma, table)), levels: spreadLevels };
}

/** One level more than there are steps, evenly in their logarithm. */
function logLinear(table: Float32Array, steps: number): number[] {
  const [from, to] = [log32(table[table.length - 1]), log32(table[0])];
  return linspace(from, to, steps + 1).map((level) => exp32(f32(level)));
}

function makeInput(
  { kind }: Spacing,
  timesteps: Float32Array,
  sigmas: Float32Array,
): Pick<Run, "timesteps" | "initNoiseSigma" | "addNoise"> & Required<Pick<Run, "scaleModelInput">> {
  const maxSigma = sigmas.reduce((a, b) => Math.max(a, b));
  return {
    timesteps,
    initNoiseSigma: kind === "leading" ? norm(maxSigma) : maxSigma,
    addNoise: (clean, noise, call) => combine([1, clean], [sigmas[call], noise]),
    scaleModelInput(sample, call) {
      const scale = norm(sigmas[call]);
      return sample.map((value) => value / scale);
    },
  };
}

/** sqrt(sigma^2 + 1): how much larger than unit variance a sample at this noise level is. */
function norm(sigma: number): number {
  return sqrt32(f32(f32(sigma * sigma) + 1));
}

/** The clean sample that a model output at noise level sigma stands for. */
function denoise(prediction: Prediction, output: Float32Array, sample: Float32Array, sigma: number): Float32Array {
  switch (prediction) {
    case "epsilon":
      return combine([1, sample], [-sigma, output]);
    case "v_prediction": {
      const outputScale = f32(-sigma / norm(sigma));
      const variance = f32(f32(sigma * sigma) + 1);
      return sample.map((value, i) => f32(output[i] * outputScale) + f32(value / variance));
    }
    case "sample":
    case "original_sample":
      return output.slice();
  }
}

function derivative(sample: Float32Array, clean: Float32Array, sigma: number): Float32Array {
  return sample.map((value, i) => f32(value - clean[i]) / sigma);
}

function eulerStep(sample: Float32Array, slope: Float32Array, dt: number): Float32Array {
  return combine([1, sample], [dt, slope]);
}

/** How much noise an ancestral step adds (up), and the level it first descends to (down): up^2 + down^2 = to^2. */
function ancestralSigmas(from: number, to: number): [up: number, down: number] {
  const fromSquared = f32(from * from);
  const toSquared = f32(to * to);
  const up = sqrt32(f32(f32(toSquared * f32(fromSquared - toSquared)) / fromSquared));
  // Rounding may leave a negative zero of a difference, whose root would be NaN (as it is in diffusers).
  return [up, sqrt32(Math.max(0, f32(toSquared - f32(up * up))))];
}
