/** Which timesteps a schedule visits: table 2 of Lin et al. 2023 (arXiv 2305.08891) as diffusers 0.40 computes it in numpy. */
import { MixdqError } from "../base/errors.ts";
import type { SchedulerConfig } from "./schedulerConfig.ts";
import { linspace } from "./sigmas.ts";

const TIMESTEP_SPACINGS = ["linspace", "leading", "trailing"] as const;
export type TimestepSpacing = (typeof TIMESTEP_SPACINGS)[number];

export interface Spacing {
  readonly kind: TimestepSpacing;
  readonly trainTimesteps: number;
  readonly stepsOffset: number;
}

/** `fallback` is the class's default of `timestep_spacing`. */
export function readSpacing(config: SchedulerConfig, trainTimesteps: number, fallback: TimestepSpacing): Spacing {
  return {
    kind: config.choice("timestep_spacing", fallback, TIMESTEP_SPACINGS),
    trainTimesteps,
    stepsOffset: config.integer("steps_offset", 0, 0, trainTimesteps),
  };
}

/** [steps], from the noisiest down; with linspace fractions. Throws `invalid-input`. */
export function spacedTimesteps({ kind, trainTimesteps, stepsOffset }: Spacing, steps: number): number[] {
  checkSteps(steps, trainTimesteps);
  switch (kind) {
    case "linspace":
      return linspace(0, trainTimesteps - 1, steps).reverse();
    case "leading": {
      const ratio = Math.floor(trainTimesteps / steps);
      return Array.from({ length: steps }, (_, i) => (steps - 1 - i) * ratio + stepsOffset);
    }
    case "trailing":
      return trailing(trainTimesteps, trainTimesteps, steps);
  }
}

/**
 * [steps] for the multistep solvers, in whole numbers: linspace and leading leave out the last of one more. Only the
 * timesteps below `last` are used. Throws `invalid-input`.
 */
export function solverTimesteps(
  { kind, trainTimesteps, stepsOffset }: Spacing,
  steps: number,
  last = trainTimesteps,
): number[] {
  checkSteps(steps, trainTimesteps);
  switch (kind) {
    case "linspace":
      return linspace(0, last - 1, steps + 1)
        .map(roundHalfEven)
        .reverse()
        .slice(0, -1);
    case "leading": {
      const ratio = Math.floor(last / (steps + 1));
      return Array.from({ length: steps }, (_, i) => (steps - i) * ratio + stepsOffset);
    }
    case "trailing":
      return trailing(last, trainTimesteps, steps);
  }
}

function trailing(last: number, trainTimesteps: number, steps: number): number[] {
  // As numpy.arange computes its stride. For some counts (61, 103, ...) rounding gives diffusers one timestep more, -1; the
  // count asked for is kept here.
  const ratio = trainTimesteps / steps;
  const stride = last - ratio - last;
  const count = last === trainTimesteps ? steps : Math.ceil(last / ratio);
  return Array.from({ length: count }, (_, i) => roundHalfEven(last + i * stride) - 1);
}

function checkSteps(steps: number, trainTimesteps: number): void {
  if (steps <= trainTimesteps) return;
  throw new MixdqError(
    "invalid-input",
    `numInferenceSteps: got ${steps}, expected at most the ${trainTimesteps} the model was trained with.`,
  );
}

export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const isTie = x - floor === 0.5;
  return isTie ? floor + (floor % 2) : Math.round(x);
}

/** The entry of a table for a timestep; `invalid-input` for one that lies beyond its end (by steps_offset, mostly). */
export function entryAt(table: Float32Array, timestep: number): number {
  const value = table[timestep];
  if (value !== undefined) return value;
  throw new MixdqError(
    "invalid-input",
    `timesteps: got ${timestep}, expected whole numbers from 0 to ${table.length - 1}. Choose fewer steps, or other timesteps.`,
  );
}
