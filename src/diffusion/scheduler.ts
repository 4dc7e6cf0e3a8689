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

/** A run with everything said, its calls counted from 0; see Run. */
export type Scheduler = Required<Run> & {
  /** As many as were asked for or as the scheduler makes of it; the last of them, where it begins later. */
  readonly steps: number;
};

/** A number is that of the steps. */
export type ScheduleRequest =
  | number
  | {
      readonly steps: number;
      readonly timesteps?: readonly number[] | undefined;
      readonly eta?: number;
      /**
       * Of a run that begins with a picture, above 0 up to 1: the part of its steps that is taken, the last ones, rounded
       * down (diffusers' get_timesteps).
       */
      readonly strength?: number | undefined;
      /** LatentConsistencyModelImg2ImgPipeline's strength: as many steps as asked for, but from the cleaner timesteps. */
      readonly distilledStrength?: number | undefined;
    };

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
  /** Calls of a step that may begin a run (diffusers' `order`). Default: 1. */
  readonly calls?: number;
}

/** diffusers' names, PeRFlow's own, and one for what InstaFlow's pipeline does without a class. */
const CLASSES: Readonly<Record<string, SchedulerClass>> = {
  DDIMScheduler: { make: makeDdim, eta: true },
  DEISMultistepScheduler: { make: makeDeis },
  DPMSolverMultistepScheduler: { make: makeDpmSolver, timesteps: true },
  EulerAncestralDiscreteScheduler: { make: makeEulerAncestral },
  EulerDiscreteScheduler: { make: makeEulerDiscrete, timesteps: true },
  HeunDiscreteScheduler: { make: makeHeun, timesteps: true, calls: 2 },
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
    const strength = typeof request === "number" ? 1 : (request.strength ?? 1);
    return begunAt(family(asked), firstCall(asked.steps, strength, known.calls ?? 1));
  };
}

/** Throws `invalid-input` where no step is left. */
function firstCall(steps: number, strength: number, callsOfStep: number): number {
  if (!(strength > 0 && strength <= 1))
    throw new MixdqError("invalid-input", `strength: got ${strength}, expected a number above 0, up to 1.`);
  const taken = Math.trunc(steps * strength);
  if (taken >= 1) return (steps - taken) * callsOfStep;
  const [least, enough] = [Math.ceil((1 / steps) * 1e4) / 1e4, stepsFor(strength)];
  throw new MixdqError(
    "invalid-input",
    `strength: got ${strength} of ${steps} step(s), which leaves none to take. Choose ${enough} or more steps, or a strength of at least ${least}.`,
  );
}

/** The fewest steps of which a strength leaves one. */
export function stepsFor(strength: number): number {
  const steps = Math.ceil(1 / strength);
  return Math.trunc(steps * strength) >= 1 ? steps : steps + 1;
}

/** The rest of a run, whose calls are counted from its beginning. */
function begunAt(run: Run, first: number): Scheduler {
  const stepOf = (call: number): number => run.stepOf?.(call) ?? call + 1;
  const before = stepOf(first) - 1;
  const timesteps = run.timesteps.slice(first);
  return {
    timesteps,
    initNoiseSigma: run.initNoiseSigma,
    steps: stepOf(run.timesteps.length - 1) - before,
    scaleModelInput: (sample, call) => run.scaleModelInput?.(sample, call + first) ?? sample,
    addNoise: (clean, noise, call) => run.addNoise(clean, noise, call + first),
    denoised: (output, call, sample) => run.denoised(output, call + first, sample),
    step: (output, call, sample, noise) => run.step(output, call + first, sample, noise),
    stepOf: (call) => stepOf(call + first) - before,
  };
}

function readRequest(request: ScheduleRequest, known: SchedulerClass, className: string): Asked {
  const given = typeof request === "number" ? { steps: request } : request;
  const { steps, timesteps, eta = 0, distilledStrength = 1 } = given;
  const refuse = (what: string, got: string, expected: string): never => {
    throw new MixdqError("invalid-input", `${what}: got ${got}, expected ${expected}.`);
  };
  if (!(eta >= 0 && eta <= 1)) refuse("eta", String(eta), "a number from 0 to 1");
  if (timesteps === undefined) {
    if (!Number.isInteger(steps) || steps < 1)
      refuse("numInferenceSteps", String(steps), "a whole number of at least 1. Choose another number of steps");
    return { steps, timesteps, eta, distilledStrength };
  }
  if (!known.timesteps) {
    const takers = SCHEDULER_CLASSES.filter((name) => CLASSES[name].timesteps).join(", ");
    refuse("timesteps", `a list for ${className}`, `none: only ${takers} take them. Give a number of steps instead`);
  }
  if (timesteps.length === 0 || !timesteps.every((t) => Number.isFinite(t) && t >= 0))
    refuse("timesteps", `[${timesteps.slice(0, 20).join(", ")}]`, "at least one number, none below 0");
  return { steps: timesteps.length, timesteps, eta, distilledStrength };
}
