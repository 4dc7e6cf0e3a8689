/**
 * PNDMScheduler: a linear multistep method on DDIM's transfer, begun by Runge-Kutta steps or, with `skip_prk_steps`, by one
 * extra call. Liu et al. 2022, arXiv 2202.09778. Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { MixdqError } from "../base/errors.ts";
import { combine, f32, sqrt32, type Term } from "./float32.ts";
import { mixtureAt, noised, noiseOf, signalOf } from "./mixture.ts";
import { toClean } from "./prediction.ts";
import { makeTrainingSchedule, type Family, type Run, type SchedulerConfig } from "./schedulerConfig.ts";
import { entryAt, readSpacing, roundHalfEven, spacedTimesteps } from "./timestepSpacing.ts";

const BETAS = { start: 0.0001, end: 0.02, schedule: "linear" } as const;
/** The first steps, that are Runge-Kutta's, and the calls that each takes. */
const PRK_STEPS = 3;
const PRK_CALLS = 4;

/** PNDMScheduler. Never draws noise. */
export function makePndm(config: SchedulerConfig): Family {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, BETAS);
  const spacing = readSpacing(config, trainTimesteps, "leading");
  const prediction = config.choice("prediction_type", "epsilon", ["epsilon", "v_prediction"]);
  const skipsPrk = config.flag("skip_prk_steps");
  const finalAlpha = config.flag("set_alpha_to_one") ? 1 : alphasCumprod[0];
  const alphaAt = (t: number): number => (t >= 0 ? entryAt(alphasCumprod, t) : finalAlpha);

  /** DDIM's transfer between two timesteps, formula 11 of the paper. */
  const transfer = (sample: Float32Array, from: number, to: number, output: Float32Array): Float32Array => {
    const [alpha, next] = [alphaAt(from), alphaAt(to)];
    const [beta, nextBeta] = [f32(1 - alpha), f32(1 - next)];
    const epsilon = prediction === "epsilon" ? output : combine([signalOf(alpha), output], [noiseOf(alpha), sample]);
    const scale = sqrt32(f32(next / alpha));
    const divisor = f32(f32(alpha * sqrt32(nextBeta)) + sqrt32(f32(f32(alpha * beta) * next)));
    const change = epsilon.map((value) => f32(f32(next - alpha) * value) / divisor);
    return combine([scale, sample], [-1, change]);
  };

  return ({ steps }) => {
    const even = spacedTimesteps(spacing, steps).map(roundHalfEven).reverse();
    const stride = Math.floor(trainTimesteps / steps);
    const prk = skipsPrk ? [] : prkTimesteps(even, stride);
    const plms = skipsPrk ? [...even.slice(0, -1), ...even.slice(-2, -1), even.at(-1)!] : even.slice(0, -PRK_STEPS);
    const timesteps = Float32Array.from([...prk, ...plms.reverse()]);
    for (const t of timesteps) entryAt(alphasCumprod, t);

    // What is done depends on the calls so far, also in a run that begins later.
    let calls = 0;
    let outputs: readonly Float32Array[] = [];
    let start: Float32Array;
    let sum: Float32Array | undefined;

    /** Four calls: the slopes at the step's beginning, twice at its middle, and at its end, weighted as Runge and Kutta do. */
    const prkStep = (output: Float32Array, call: number, sample: Float32Array): Float32Array => {
      const phase = calls % PRK_CALLS;
      const from = timesteps[calls - phase];
      const to = timesteps[call] - (calls % 2 ? 0 : Math.floor(stride / 2));
      if (phase === 0) [start, outputs] = [sample, [...outputs, output]];
      const weighted: Term = [phase === 0 || phase === 3 ? 1 / 6 : 1 / 3, output];
      const average = sum ? combine([1, sum], weighted) : combine(weighted);
      sum = phase === 3 ? undefined : average;
      return transfer(start, from, to, phase === 3 ? average : output);
    };

    const plmsStep = (output: Float32Array, call: number, sample: Float32Array): Float32Array => {
      let [from, to] = [timesteps[call], timesteps[call] - stride];
      if (calls === 1) {
        // The first step once more, with the mean of the slopes at its two ends.
        [from, to] = [from + stride, from];
        const mean = output.map((value, i) => f32(value + outputs[0][i]) / 2);
        return transfer(start, from, to, mean);
      }
      if (calls === 0) start = sample;
      outputs = [...outputs.slice(-3), output];
      return transfer(sample, from, to, adamsBashforth(outputs));
    };

    const denoised: Run["denoised"] = (output, call, sample) =>
      toClean(prediction, output, sample, mixtureAt(config, prediction, alphasCumprod[timesteps[call]], call));
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => noised(clean, noise, alphasCumprod[timesteps[call]]),
      denoised,
      stepOf: (call) =>
        skipsPrk
          ? Math.max(1, call)
          : call < prk.length
            ? Math.floor(call / PRK_CALLS) + 1
            : call - prk.length + PRK_STEPS + 1,
      step(output, call, sample) {
        const next = (calls < prk.length ? prkStep : plmsStep)(output, call, sample);
        calls++;
        return next;
      },
    };
  };
}

/** Twelve calls for the first three steps, from their beginnings (`even` ascends) over their middles. */
function prkTimesteps(even: readonly number[], stride: number): number[] {
  if (even.length <= PRK_STEPS)
    throw new MixdqError(
      "invalid-input",
      `numInferenceSteps: got ${even.length}, expected at least ${PRK_STEPS + 1} as the scheduler's skip_prk_steps is false. Choose more steps.`,
    );
  const half = Math.floor(stride / 2);
  const ascending = even.slice(-PRK_STEPS - 1).flatMap((t) => [t, t + half]);
  return ascending
    .slice(0, -1)
    .flatMap((t) => [t, t])
    .slice(1, -1)
    .reverse();
}

/** The slope over the next step from those at up to four points. */
function adamsBashforth(outputs: readonly Float32Array[]): Float32Array {
  const [e1, e2, e3, e4] = outputs.toReversed() as [Float32Array, ...Float32Array[]];
  if (!e2) return e1;
  if (!e3) return combine([3, e1], [-1, e2]).map((value) => value / 2);
  if (!e4) return combine([23, e1], [-16, e2], [5, e3]).map((value) => value / 12);
  return combine([1 / 24, combine([55, e1], [-59, e2], [37, e3], [-9, e4])]);
}
