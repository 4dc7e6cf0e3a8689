/**
 * Noise schedulers: from a model's output at one noise level to the sample at the next. The three classes that few-step
 * models ship with, computed as diffusers 0.40 computes them (src/diffusers/schedulers).
 */
import { MixdqError } from "../errors.ts";
import { SchedulerConfig } from "./schedulerConfig.ts";
import { makeEulerAncestral, makeEulerDiscrete } from "./schedulerEuler.ts";
import { makeLcm } from "./schedulerLcm.ts";

/** One run's schedule. Elementwise, so samples may be in any layout; nothing here changes its arguments. */
export interface Scheduler {
  /** What the UNet is told at each step; its length is the number of steps. */
  readonly timesteps: Float32Array;
  /** The start noise (unit variance) is multiplied by this. */
  readonly initNoiseSigma: number;
  /** The UNet's input at a step. */
  scaleModelInput(sample: Float32Array, stepIndex: number): Float32Array;
  /**
   * The sample at the next noise level, and the clean sample as estimated now (for previews). `noise` gives fresh
   * N(0, 1) values, as many as the sample has; it is called exactly when diffusers draws from its generator.
   */
  step(modelOutput: Float32Array, stepIndex: number, sample: Float32Array, noise: () => Float32Array): SchedulerStep;
}

export interface SchedulerStep {
  readonly prev: Float32Array;
  readonly denoised: Float32Array;
}

/** A schedule for so many steps (1 up to what the model was trained with). Throws `invalid-input` for other counts. */
export type SchedulerFactory = (steps: number) => Scheduler;

const CLASSES: Readonly<Record<string, (config: SchedulerConfig) => SchedulerFactory>> = {
  EulerAncestralDiscreteScheduler: makeEulerAncestral,
  EulerDiscreteScheduler: makeEulerDiscrete,
  LCMScheduler: makeLcm,
};

/**
 * The scheduler that a parsed scheduler_config.json describes; `where` is the file, for messages. Throws
 * `invalid-model` for malformed values, `unsupported` for a class or option that we do not compute.
 */
export function createScheduler(config: unknown, where: string): SchedulerFactory {
  const parsed = new SchedulerConfig(config, where);
  const make = Object.hasOwn(CLASSES, parsed.className) ? CLASSES[parsed.className] : undefined;
  if (make === undefined) throw parsed.unsupported("_class_name", `one of ${Object.keys(CLASSES).join(", ")}`);
  const factory = make(parsed);
  return (steps) => {
    if (!Number.isInteger(steps) || steps < 1) {
      throw new MixdqError(
        "invalid-input",
        `numInferenceSteps: got ${steps}, expected a whole number of at least 1. Choose another number of steps.`,
      );
    }
    return factory(steps);
  };
}
