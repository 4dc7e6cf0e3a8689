/**
 * Which scheduler a model runs with, from what its files say and what diffusers' pipelines make of it, and how many steps
 * and how much guidance it gets where nobody says.
 */
import type { Config } from "../base/config.ts";
import { invalidInput, MixdqError } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { createScheduler, SCHEDULER_CLASSES, type SchedulerFactory } from "../diffusion/scheduler.ts";

export interface NamedScheduler {
  /** diffusers' class. */
  readonly name: string;
  readonly create: SchedulerFactory;
  readonly defaultSteps: number;
  readonly defaultGuidanceScale: number;
}

/** The model's own scheduler, or one of another class made of its config. */
export type SchedulerChoice = (className?: string) => NamedScheduler;

export interface SchedulerSource {
  /** scheduler_config.json */
  readonly config: Config;
  /** The scheduler's class as model_index.json names it: it goes before the config's own. */
  readonly named: string | undefined;
  /** The pipeline's class. */
  readonly pipeline: string;
  readonly isXl: boolean;
  /** The UNet reads the guidance scale as an embedding. */
  readonly embedsGuidance: boolean;
}

/** Pipelines that walk a rectified flow without any scheduler class. */
const FLOW_PIPELINES = ["RectifiedFlowPipeline", "InstaFlowPipeline"];

/** Throws `invalid-model` or `unsupported` for a model's own scheduler, `invalid-input` for another class. */
export function readSchedulers(source: SchedulerSource): SchedulerChoice {
  const { config, named, pipeline } = source;
  const isFlow = FLOW_PIPELINES.includes(pipeline);
  const ownName = isFlow ? "RectifiedFlowScheduler" : (named ?? config.className);
  if (!SCHEDULER_CLASSES.includes(ownName)) {
    const where = named === undefined ? `${config.where}: got "_class_name"` : 'model_index.json: got "scheduler"';
    throw new MixdqError(
      "unsupported",
      `${where} ${printable(JSON.stringify(ownName))}, expected one of ${SCHEDULER_CLASSES.join(", ")}. ` +
        "Save the model with one of these (in diffusers: pipe.scheduler = CLASS.from_config(pipe.scheduler.config)).",
    );
  }
  const create = createScheduler(ownSettings(source), config.where, ownName);
  const own: NamedScheduler = {
    name: ownName,
    create: isLatentConsistency(pipeline) ? withinDistillation(create) : create,
    ...(fewSteps(ownName, source) ?? pipelineDefaults(source)),
  };
  return (className) => {
    if (className === undefined) return own;
    if (!SCHEDULER_CLASSES.includes(className))
      throw invalidInput(`scheduler: got ${className.slice(0, 80)}, expected one of ${SCHEDULER_CLASSES.join(", ")}.`);
    if (isLatentConsistency(pipeline) && className !== "LCMScheduler")
      throw new MixdqError(
        "unsupported",
        `scheduler: got ${className}, expected LCMScheduler: ${pipeline} runs with no other. Leave the scheduler out.`,
      );
    const other = createScheduler(otherSettings(className, source), config.where, className);
    const create = isLatentConsistency(pipeline) ? withinDistillation(other) : other;
    const defaults = samplerDefaults(className, source) ?? fewSteps(ownName, source) ?? pipelineDefaults(source);
    return { name: className, create, ...defaults };
  };
}

/** LatentConsistencyModelImg2ImgPipeline leaves it to its scheduler what a strength means. */
function withinDistillation(create: SchedulerFactory): SchedulerFactory {
  return (request) => {
    if (typeof request === "number" || request.strength === undefined) return create(request);
    const { strength, ...rest } = request;
    return create({ ...rest, distilledStrength: strength });
  };
}

const isLatentConsistency = (pipeline: string): boolean => pipeline.startsWith("LatentConsistency");

/** Stable Diffusion 1 and 2; their pipeline class overrules what its parts' configs say. */
export function isStableDiffusion({ pipeline, isXl }: Pick<SchedulerSource, "pipeline" | "isXl">): boolean {
  return !isXl && !isLatentConsistency(pipeline);
}

/** StableDiffusionPipeline's constructor sets steps_offset to 1 and turns clip_sample off, whatever the file says. */
function ownSettings(source: SchedulerSource): Record<string, unknown> {
  const { values } = source.config;
  return isStableDiffusion(source) ? { ...values, steps_offset: 1, clip_sample: false } : { ...values };
}

/**
 * CLASS.from_config(pipe.scheduler.config): what the file says in so many words is kept, all else takes the new class's
 * defaults, also where the pipeline has overruled a default of the old class.
 */
function otherSettings(className: string, source: SchedulerSource): Record<string, unknown> {
  const own = ownSettings(source);
  const settings = Object.fromEntries(Object.keys(source.config.values).map((key) => [key, own[key]]));
  if (className !== "PeRFlowScheduler") return settings;
  // PeRFlow has words of its own for what a model predicts; its published scripts say these.
  const prediction = settings["prediction_type"] ?? "epsilon";
  const ownWords: Record<string, string> = {
    epsilon: source.isXl ? "ddim_eps" : "diff_eps",
    v_prediction: "velocity",
  };
  return { ...settings, prediction_type: ownWords[String(prediction)] ?? prediction };
}

type Defaults = Pick<NamedScheduler, "defaultSteps" | "defaultGuidanceScale">;

/** Those of the pipeline's __call__. */
function pipelineDefaults({ isXl, pipeline, embedsGuidance }: SchedulerSource): Defaults {
  if (isLatentConsistency(pipeline)) return { defaultSteps: 4, defaultGuidanceScale: 8.5 };
  return { defaultSteps: 50, defaultGuidanceScale: embedsGuidance ? 8.5 : isXl ? 5 : 7.5 };
}

/** Samplers that only distilled models have a use for. */
function samplerDefaults(className: string, source: SchedulerSource): Defaults | undefined {
  const { defaultGuidanceScale } = pipelineDefaults(source);
  switch (className) {
    case "LCMScheduler":
    case "TCDScheduler":
      return { defaultSteps: 4, defaultGuidanceScale: source.embedsGuidance ? 8.5 : 0 };
    case "PeRFlowScheduler":
      return { defaultSteps: 4, defaultGuidanceScale };
    case "RectifiedFlowScheduler":
      return { defaultSteps: 1, defaultGuidanceScale: 0 };
    default:
      return undefined;
  }
}

/**
 * A model distilled to few steps, as far as its files tell: by its sampler, or by `timestep_spacing: trailing`, which the
 * Turbo models have. Not with a zero terminal SNR: ordinary models trained that way want trailing, too.
 */
function fewSteps(ownName: string, source: SchedulerSource): Defaults | undefined {
  const { timestep_spacing: spacing, rescale_betas_zero_snr: zeroSnr } = source.config.values;
  const sampler = samplerDefaults(ownName, source);
  if (sampler) return sampler;
  if (spacing !== "trailing" || zeroSnr === true) return undefined;
  return { defaultSteps: 1, defaultGuidanceScale: source.embedsGuidance ? 8.5 : 0 };
}
