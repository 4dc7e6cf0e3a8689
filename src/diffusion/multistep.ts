/**
 * What the multistep solvers on lambda = log(alpha / sigma) share (DPM-Solver, DEIS, UniPC): their noise levels and the
 * reading of a model's output. Rounded to float32 where diffusers 0.40 computes in float32.
 */
import { MixdqError } from "../base/errors.ts";
import { combine, f32, log32, sqrt32 } from "./float32.ts";
import {
  epsilonOfClean,
  PREDICTION_TYPES,
  readLimit,
  toClean,
  type Mixture,
  type PredictionType,
} from "./prediction.ts";
import { makeSigmaSchedule, type SchedulerConfig } from "./schedulerConfig.ts";
import {
  interpolate,
  ownTimesteps,
  readSigmaSpread,
  sigmaToTimestep,
  spreadSigmas,
  type SigmaSpread,
} from "./sigmas.ts";
import { readSpacing, roundHalfEven, solverTimesteps, type Spacing } from "./timestepSpacing.ts";

const BETAS = { start: 0.0001, end: 0.02, schedule: "linear" } as const;

type Prediction = PredictionType | "flow_prediction";

/** A config, read. */
export interface SolverModel {
  readonly config: SchedulerConfig;
  /** Of the training timesteps. */
  readonly table: Float32Array;
  readonly alphasCumprod: Float32Array;
  readonly spacing: Spacing;
  readonly spread: SigmaSpread;
  /** Rectified flow: a sample is (1 - sigma) clean + sigma noise. */
  readonly flow: { readonly shift: number } | undefined;
  readonly order: number;
  /** Fewer earlier outputs at the end of a short run. */
  readonly lowerOrderFinal: boolean;
  readonly prediction: Prediction;
  readonly toClean: (output: Float32Array, sample: Float32Array, level: Level) => Float32Array;
}

/** A noise level, in float32. */
export interface Level extends Mixture {
  readonly lambda: number;
  /** As it stands in the schedule: sigma / alpha, but for flows. */
  readonly scheduled: number;
}

/** `zeroSnr`: whether the class has `rescale_betas_zero_snr`. Throws `invalid-model` or `unsupported`. */
export function readSolver(config: SchedulerConfig, { zeroSnr }: { zeroSnr: boolean }): SolverModel {
  const { trainTimesteps, alphasCumprod, sigmas } = makeSigmaSchedule(config, { ...BETAS, zeroSnr });
  const prediction = config.choice<Prediction>("prediction_type", "epsilon", [...PREDICTION_TYPES, "flow_prediction"]);
  const limit = readLimit(config, { thresholding: true });
  return {
    config,
    table: sigmas,
    alphasCumprod,
    spacing: readSpacing(config, trainTimesteps, "linspace"),
    spread: readSigmaSpread(config),
    flow: config.flag("use_flow_sigmas") ? { shift: config.number("flow_shift", 1, 1e-2, 1e3) } : undefined,
    order: config.integer("solver_order", 2, 1, 3),
    lowerOrderFinal: config.flag("lower_order_final", true),
    prediction,
    toClean: (output, sample, level) =>
      limit(
        prediction === "flow_prediction"
          ? combine([1, sample], [-level.scheduled, output])
          : toClean(prediction, output, sample, level),
      ),
  };
}

/** The noise that an output stands for, with the model's limit on the clean sample. */
export function toLimitedEpsilon(
  model: SolverModel,
  output: Float32Array,
  sample: Float32Array,
  level: Level,
): Float32Array {
  return epsilonOfClean(model.toClean(output, sample, level), sample, level);
}

/** What `final_sigmas_type` says; DEIS has none and ends where the training schedule does. */
export type FinalSigma = "zero" | "sigma_min" | "last";

export interface SolverSchedule {
  /** [steps], whole numbers. */
  readonly timesteps: Float32Array;
  /** [steps + 1]. */
  readonly levels: readonly Level[];
}

export interface ScheduleOptions {
  readonly steps: number;
  readonly timesteps?: readonly number[] | undefined;
  /** Only timesteps below this are used; default: all. */
  readonly last?: number | undefined;
  /** Noise levels made by the class itself, in double precision. */
  readonly sigmas?: readonly number[] | undefined;
  /** The same for a flow, where a noise level is a time. */
  readonly times?: readonly number[] | undefined;
  /** Whether the timesteps of spread noise levels are rounded; else they are cut. */
  readonly rounds: boolean;
  readonly final: FinalSigma;
}

/** The schedule of one run. Throws `invalid-input`. */
export function makeSchedule(model: SolverModel, options: ScheduleOptions): SolverSchedule {
  const { config, table, spread, flow, spacing } = model;
  const { steps, rounds } = options;
  if (options.timesteps && (spread.kind !== "none" || options.sigmas))
    throw ownTimesteps(config, spread.kind === "none" ? "noise levels of its own" : `use_${spread.kind}_sigmas`);
  const even = options.timesteps?.map(Math.trunc) ?? solverTimesteps(spacing, steps, options.last);
  const { kind } = spread;
  const ends = { first: table.at(-1)!, last: table[0] };
  const spreadLevels = kind === "none" ? undefined : spreadSigmas({ ...spread, kind }, ends, steps);
  const made = options.sigmas ?? options.times ?? spreadLevels;
  const sigmas = made ?? even.map((t) => interpolate(table, t));
  const timestepOf = (sigma: number): number =>
    options.times
      ? sigma * spacing.trainTimesteps
      : (rounds ? roundHalfEven : Math.trunc)(sigmaToTimestep(sigma, table));
  const timesteps = made ? made.map(timestepOf) : even;
  const final = options.final === "zero" ? 0 : options.final === "last" && made ? sigmas.at(-1)! : table[0];
  const levels = [...sigmas, final].map((sigma) => levelOf(f32(sigma), flow !== undefined));
  if (levels.some(({ lambda }) => Number.isNaN(lambda)))
    throw config.unsupported("use_flow_sigmas", "false with noise levels that are no times from 0 to 1");
  // From the second order on, steps are compared with each other: diffusers divides by a step of nothing.
  const isFalling = sigmas.every((_, i) => i === 0 || levels[i].lambda > levels[i - 1].lambda);
  if (model.order > 1 && !isFalling)
    throw new MixdqError(
      "invalid-input",
      `numInferenceSteps: got ${steps} timesteps of which some are equal, expected noise that falls from step to step. Choose fewer steps.`,
    );
  return { timesteps: Float32Array.from(timesteps, Math.trunc), levels };
}

function levelOf(scheduled: number, isFlow: boolean): Level {
  const alpha = isFlow ? f32(1 - scheduled) : f32(1 / sqrt32(f32(f32(scheduled * scheduled) + 1)));
  const sigma = isFlow ? scheduled : f32(scheduled * alpha);
  return { scheduled, alpha, sigma, lambda: f32(log32(alpha) - log32(sigma)) };
}

/** A clean sample at a noise level. */
export const noisedTo = ({ alpha, sigma }: Level, clean: Float32Array, noise: Float32Array): Float32Array =>
  combine([alpha, clean], [sigma, noise]);

/** The last outputs, newest first. */
export class History {
  readonly #size: number;
  #outputs: readonly Float32Array[] = [];

  constructor(size: number) {
    this.#size = size;
  }

  get outputs(): readonly Float32Array[] {
    return this.#outputs;
  }

  add(output: Float32Array): void {
    this.#outputs = [output, ...this.#outputs].slice(0, this.#size);
  }
}

/** How many outputs a step uses: as many as there are (`known`), fewer in the last two steps of a run below 15. */
export function orderAt(model: SolverModel, call: number, calls: number, known: number, isLowered: boolean): number {
  const isShort = model.lowerOrderFinal && calls < 15;
  const most = call === calls - 1 && (isShort || isLowered) ? 1 : call === calls - 2 && isShort ? 2 : model.order;
  return Math.min(most, model.order, known);
}
