/**
 * Noise schedulers: from a model's output at one noise level to the sample at the next, number for number what diffusers
 * 0.40 computes (src/diffusers/schedulers), and the published schedulers of two rectified flows.
 */
import { MixdqError } from "../base/errors.ts";
import { SchedulerConfig, type Asked, type Family, type Run } from "./schedulerConfig.ts";
import { makeDdim } from "./schedulerDdim.ts";
import { makeDeis } from "./schedulerDeis.ts";
import { makeDpmSolver } from "./schedulerDpmSolver.ts";
import { makeEulerAncestral, makeEulerDiscrete, makeHeun } from "./schedulerEuler.ts";
import { makePerFlow, makeRectifiedFlow } from "./schedulerFlow.ts";
import { makeLcm, makeTcd } from "./schedulerLcm.ts";
import { makePndm } from "./schedulerPndm.ts";
import { makeUniPc } from "./schedulerUniPc.ts";

/** A run with everything said; see Run. */
export type Scheduler = Required<Run> & {
  /** As many as were asked for, or as the scheduler makes of it. */
  readonly steps: number;
};

/** A number is that of the steps. */
export type ScheduleRequest =
  number | { readonly steps: number; readonly timesteps?: readonly number[] | undefined; readonly eta?: number };

/**
 * Begins a run of so many steps (1 up to what the model was trained with), or over the timesteps that are given instead.
 * Throws `invalid-input` for what the class refuses.
 */
export type SchedulerFactory = (request: ScheduleRequest) => Scheduler;

interface SchedulerClass {
  readonly make: (config: SchedulerConfig) => Family;
  /** Whether it takes a list of timesteps. */
  readonly timesteps?: true;
  /** Whether it reads eta. */
  readonly eta?: true;
}

/** diffusers' names, PeRFlow's own, and one for what InstaFlow's pipeline does without a class. */
const CLASSES: Readonly<Record<string, SchedulerClass>> = {
  DDIMScheduler: { make: makeDdim, eta: true },
  DEISMultistepScheduler: { make: makeDeis },
  DPMSolverMultistepScheduler: { make: makeDpmSolver, timesteps: true },
  EulerAncestralDiscreteScheduler: { make: makeEulerAncestral },
  EulerDiscreteScheduler: { make: makeEulerDiscrete, timesteps: true },
  HeunDiscreteScheduler: { make: makeHeun, timesteps: true },
  LCMScheduler: { make: makeLcm, timesteps: true },
  PeRFlowScheduler: { make: makePerFlow },
  PNDMScheduler: { make: makePndm },
  RectifiedFlowScheduler: { make: makeRectifiedFlow },
  TCDScheduler: { make: makeTcd, timesteps: true, eta: true },
  UniPCMultistepScheduler: { make: makeUniPc },
};

export const SCHEDULER_CLASSES: readonly string[] = Object.keys(CLASSES);

/** Whether a class reads `eta`; the others ignore it, as in diffusers. */
export const takesEta = (className: string): boolean => Object.hasOwn(CLASSES, className) && !!CLASSES[className].eta;

/**
 * The scheduler that a parsed scheduler_config.json describes; `where` is the file, for messages, `className` goes before the
 * config's own. Throws `invalid-model` for malformed values, `unsupported` for a class or option that we do not compute.
 */
export function createScheduler(config: unknown, where: string, className?: string): SchedulerFactory {
  const parsed = new SchedulerConfig(config, where, className);
  const known = Object.hasOwn(CLASSES, parsed.className) ? CLASSES[parsed.className] : undefined;
  if (known === undefined) throw parsed.unsupported("_class_name", `one of ${SCHEDULER_CLASSES.join(", ")}`);
  const family = known.make(parsed);
  return (request) => {
    const asked = readRequest(request, known, parsed.className);
    const run = family(asked);
    const steps = run.stepOf ? run.stepOf(run.timesteps.length - 1) : run.timesteps.length;
    return { scaleModelInput: (sample) => sample, stepOf: (call) => call + 1, ...run, steps };
  };
}

function readRequest(request: ScheduleRequest, known: SchedulerClass, className: string): Asked {
  const { steps, timesteps, eta = 0 } = typeof request === "number" ? { steps: request } : request;
  const refuse = (what: string, got: string, expected: string): never => {
    throw new MixdqError("invalid-input", `${what}: got ${got}, expected ${expected}.`);
  };
  if (!(eta >= 0 && eta <= 1)) refuse("eta", String(eta), "a number from 0 to 1");
  if (timesteps === undefined) {
    if (!Number.isInteger(steps) || steps < 1)
      refuse("numInferenceSteps", String(steps), "a whole number of at least 1. Choose another number of steps");
    return { steps, timesteps, eta };
  }
  if (!known.timesteps) {
    const takers = SCHEDULER_CLASSES.filter((name) => CLASSES[name].timesteps).join(", ");
    refuse("timesteps", `a list for ${className}`, `none: only ${takers} take them. Give a number of steps instead`);
  }
  if (timesteps.length === 0 || !timesteps.every((t) => Number.isFinite(t) && t >= 0))
    refuse("timesteps", `[${timesteps.slice(0, 20).join(", ")}]`, "at least one number, none below 0");
  return { steps: timesteps.length, timesteps, eta };
}
