/**
 * Noise schedulers: from a model's output at one noise level to the sample at the next. The three classes that few-step
 * models ship with, computed as diffusers 0.40 computes them (src/diffusers/schedulers).
 */
import { MixdqError } from "../base/errors.ts";
import { SchedulerConfig, type SchedulerFactory } from "./schedulerConfig.ts";
import { makeEulerAncestral, makeEulerDiscrete } from "./schedulerEuler.ts";
import { makeLcm } from "./schedulerLcm.ts";

export type { Scheduler, SchedulerFactory, SchedulerStep } from "./schedulerConfig.ts";

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
