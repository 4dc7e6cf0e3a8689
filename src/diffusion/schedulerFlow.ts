/**
 * Rectified flows, whose models give the velocity along (nearly) straight paths, by Euler's method. InstaFlow: Liu et al.
 * 2024, arXiv 2309.06380, as its published RectifiedFlowPipeline runs it. PeRFlow: Yan et al. 2024, arXiv 2405.07510, as its
 * published PeRFlowScheduler computes it. In float32.
 */
import { combine, f32, sqrt32 } from "./float32.ts";
import { makeTrainingSchedule, type Family, type SchedulerConfig } from "./schedulerConfig.ts";
import { linspace } from "./sigmas.ts";
import { noised } from "./mixture.ts";

const PERFLOW_BETAS = { start: 0.00085, end: 0.012, schedule: "scaled_linear" } as const;

/** Far above the published 4. */
const MAX_WINDOWS = 64;

/** InstaFlow: the model gives clean - noise, at times from 1000 down. Never draws noise. */
export function makeRectifiedFlow(): Family {
  return ({ steps }) => {
    const timesteps = Float32Array.from({ length: steps }, (_, i) => (1 - i / steps) * 1000);
    return {
      timesteps,
      initNoiseSigma: 1,
      addNoise: (clean, noise, call) => combine([1 - timesteps[call] / 1000, clean], [timesteps[call] / 1000, noise]),
      denoised: (output, call, sample) => combine([1, sample], [timesteps[call] / 1000, output]),
      step: (output, _call, sample) => combine([1, sample], [1 / steps, output]),
    };
  };
}

/** PeRFlowScheduler: a straight path within each window of time; at least one step a window. Never draws noise. */
export function makePerFlow(config: SchedulerConfig): Family {
  const { trainTimesteps, alphasCumprod } = makeTrainingSchedule(config, PERFLOW_BETAS);
  const prediction = config.choice("prediction_type", "ddim_eps", ["ddim_eps", "diff_eps", "velocity"]);
  const count = config.integer("num_time_windows", 4, 1, Math.min(MAX_WINDOWS, trainTimesteps));
  const clean = config.number("t_clean", 0, 0, 0.5 / count);
  // From the noisiest on: where each begins, and at last where it ends.
  const bounds = [...Array.from({ length: count }, (_, i) => (count - i) / count), clean];

  /** The sample at the window's end that an output leads to. */
  const windowEnd = (output: Float32Array, sample: Float32Array, time: number, window: Window): Float32Array => {
    const { start, end, alphaStart, alphaEnd } = window;
    const ratio = f32(alphaEnd / alphaStart);
    const lambda = prediction === "ddim_eps" ? sqrt32(ratio) : f32(1 / sqrt32(f32(alphaStart / alphaEnd)));
    const gamma = sqrt32(f32(alphaStart / alphaEnd));
    const eta =
      prediction === "ddim_eps"
        ? f32(sqrt32(f32(1 - alphaEnd)) - sqrt32(f32(ratio * f32(1 - alphaStart))))
        : f32(-sqrt32(f32(1 - f32(gamma * gamma))) / gamma);
    const divisor = f32(f32(lambda * f32(time - start)) + f32(end - time));
    const own = f32(f32(lambda * f32(end - start)) / divisor);
    return combine([own, sample], [f32(f32(eta * f32(end - time)) / divisor), output]);
  };

  const velocityOf = (output: Float32Array, sample: Float32Array, timestep: number): Float32Array => {
    if (prediction === "velocity") return output;
    const time = f32(timestep / trainTimesteps);
    const window = windowOf(time, bounds, trainTimesteps, alphasCumprod);
    const left = f32(window.end - f32(window.start + f32(time - window.start)));
    return windowEnd(output, sample, time, window).map((value, i) => f32(value - sample[i]) / left);
  };

  return ({ steps: asked }) => {
    const steps = Math.max(asked, count);
    const timesteps = Float32Array.from(
      bounds.slice(0, -1).flatMap((start, i) => {
        const own = Math.floor(steps / count) + (i < steps % count ? 1 : 0);
        const times = linspace(start, bounds[i + 1], own + 1).slice(0, -1);
        return times.map((time) => Math.trunc(time * trainTimesteps));
      }),
    );
    return {
      timesteps,
      initNoiseSigma: 1,
      // Its timesteps count from 1.
      addNoise: (clean, noise, call) => noised(clean, noise, alphasCumprod[Math.max(0, timesteps[call] - 1)]),
      denoised: (output, call, sample) => {
        const timestep = timesteps[call];
        return combine([1, sample], [-timestep / trainTimesteps, velocityOf(output, sample, timestep)]);
      },
      step(output, call, sample) {
        const timestep = timesteps[call];
        const dt = f32(((timesteps[call + 1] ?? 0) - timestep) / trainTimesteps);
        return combine([1, sample], [dt, velocityOf(output, sample, timestep)]);
      },
    };
  };
}

interface Window {
  readonly start: number;
  readonly end: number;
  readonly alphaStart: number;
  readonly alphaEnd: number;
}

function windowOf(
  time: number,
  bounds: readonly number[],
  trainTimesteps: number,
  alphasCumprod: Float32Array,
): Window {
  const ends = bounds.slice(1);
  const from = ends.findIndex((end) => f32(time - 0.1 / trainTimesteps) > end);
  const i = from < 0 ? ends.length - 1 : from;
  const [start, end] = [f32(bounds[i]), f32(ends[i])];
  const at = (t: number): number => alphasCumprod[Math.max(0, Math.trunc(f32(f32(t * trainTimesteps) - 1)))];
  return { start, end, alphaStart: at(start), alphaEnd: at(end) };
}
