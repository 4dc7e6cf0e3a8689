/** What may be asked for, checked against the model before any work begins. */
import { MixdqError } from "../base/errors.ts";
import { show } from "../base/printable.ts";
import { parseSeed, type Seed } from "../base/seed.ts";
import type { GenerateOptions } from "../base/types.ts";
import { takesEta, type Scheduler } from "../diffusion/scheduler.ts";
import type { ModelDescription } from "./description.ts";

export type GenerateRequest = Omit<GenerateOptions, "signal" | "onStep">;

/** A request with the model's defaults filled in. */
export interface Settings {
  readonly prompt: string;
  readonly negativePrompt: string | undefined;
  /** For SDXL's second text encoder; undefined or empty: the same as for the first, as diffusers has it. */
  readonly prompt2: string | undefined;
  readonly negativePrompt2: string | undefined;
  readonly clipSkip: number;
  readonly seed: Seed;
  /** As many as the scheduler makes. */
  readonly steps: number;
  /** Begins a run anew: a scheduler remembers what it was told. */
  readonly createScheduler: () => Scheduler;
  readonly schedulerName: string;
  readonly timesteps: readonly number[] | undefined;
  readonly eta: number;
  readonly guidanceScale: number;
  readonly guidanceRescale: number;
  readonly width: number;
  readonly height: number;
}

/** Pixels along one side: more would need activations that no adapter of today binds. */
const MAX_SIZE = 4096;
const MAX_STEPS = 1000;

/** Fills in the model's defaults; throws `invalid-input` for anything out of range. */
export function checkRequest(
  request: GenerateRequest,
  model: Pick<
    ModelDescription,
    "unet" | "vae" | "defaultWidth" | "defaultHeight" | "schedulerOf" | "textEncoders" | "textState"
  >,
): Settings {
  const refuse = (what: string, got: unknown, expected: string): never => {
    throw new MixdqError("invalid-input", `${what}: got ${String(got)}, expected ${expected}.`);
  };
  if (request.scheduler !== undefined && typeof request.scheduler !== "string")
    refuse("scheduler", request.scheduler, "the name of a class");
  const named = model.schedulerOf(request.scheduler);
  const {
    prompt,
    negativePrompt,
    prompt2,
    negativePrompt2,
    clipSkip = 0,
    seed = Math.floor(Math.random() * 2 ** 32),
    timesteps,
    numInferenceSteps: steps = named.defaultSteps,
    eta = 0,
    guidanceScale = named.defaultGuidanceScale,
    guidanceRescale = 0,
    width = model.defaultWidth,
    height = model.defaultHeight,
  } = request;
  if (typeof prompt !== "string") refuse("prompt", typeof prompt, "a text");
  for (const [name, text] of Object.entries({ prompt2, negativePrompt2 }))
    if (text !== undefined && model.textEncoders.length < 2)
      refuse(name, show(text), "none: this model has one text encoder");
  const most = mostClipSkip(model);
  if (!Number.isInteger(clipSkip) || clipSkip < 0 || clipSkip > most)
    refuse("clipSkip", clipSkip, `a whole number from 0 to ${most}, the layers of this model's text encoders`);
  if (!Number.isInteger(steps) || steps < 1 || steps > MAX_STEPS)
    refuse("numInferenceSteps", steps, `a whole number from 1 to ${MAX_STEPS}`);
  if (timesteps !== undefined && !(Array.isArray(timesteps) && timesteps.length <= MAX_STEPS))
    refuse("timesteps", typeof timesteps, `a list of at most ${MAX_STEPS} numbers`);
  if (!(guidanceRescale >= 0 && guidanceRescale <= 1))
    refuse("guidanceRescale", guidanceRescale, "a number from 0 to 1");
  if (!Number.isFinite(guidanceScale) || guidanceScale < 0)
    refuse("guidanceScale", guidanceScale, "a number from 0 on");
  const unit = Math.max(8, model.vae.scale);
  for (const [name, size] of Object.entries({ width, height }))
    if (!Number.isInteger(size) || size < unit || size > MAX_SIZE || size % unit !== 0)
      refuse(name, size, `a multiple of ${unit} pixels from ${unit} to ${MAX_SIZE}`);
  const createScheduler = (): Scheduler => named.create({ steps, timesteps, eta });
  return {
    prompt,
    negativePrompt,
    prompt2,
    negativePrompt2,
    clipSkip,
    seed: parseSeed(seed),
    steps: createScheduler().steps,
    createScheduler,
    schedulerName: named.name,
    timesteps,
    eta,
    guidanceScale,
    guidanceRescale,
    width,
    height,
  };
}

/** As many as all encoders can skip and still have a state to read. */
function mostClipSkip({ textEncoders, textState }: Pick<ModelDescription, "textEncoders" | "textState">): number {
  const layers = Math.min(...textEncoders.map(({ config }) => config.integer("num_hidden_layers")));
  return textState === "last" ? layers : layers - 1;
}

/** What was asked for and has no effect, for the user to know. */
export function warnOfRequest({ eta, schedulerName }: Settings): readonly string[] {
  return eta > 0 && !takesEta(schedulerName)
    ? [`eta ${eta} has no effect: ${schedulerName} does not read it (DDIMScheduler and TCDScheduler do).`]
    : [];
}

/** Whether the UNet sees a negative prompt too; a model that was distilled with its guidance is only told the scale. */
export function isGuided(
  { guidanceScale }: Pick<Settings, "guidanceScale">,
  { unet }: Pick<ModelDescription, "unet">,
): boolean {
  return guidanceScale > 1 && unet.timeCondProjDim === undefined;
}
