/** What may be asked for, checked against the model before any work begins. */
import { MixdqError } from "../base/errors.ts";
import { parseSeed, type Seed } from "../base/seed.ts";
import type { GenerateRequest } from "../base/types.ts";
import { stepsFor, takesEta, type Scheduler } from "../diffusion/scheduler.ts";
import type { ModelDescription } from "./description.ts";
import { readEdit, strengthOf, type Edit } from "./edit.ts";

export type { GenerateRequest } from "../base/types.ts";

/** A request with the model's defaults filled in. */
export interface Settings {
  readonly prompt: string;
  readonly negativePrompt: string | undefined;
  readonly seed: Seed;
  /** As many as the scheduler makes, and of these, with a strength, as many as are taken. */
  readonly steps: number;
  /** As many as were asked for. */
  readonly askedSteps: number;
  /** Begins a run anew: a scheduler remembers what it was told. */
  readonly createScheduler: () => Scheduler;
  readonly schedulerName: string;
  readonly timesteps: readonly number[] | undefined;
  readonly eta: number;
  readonly guidanceScale: number;
  readonly guidanceRescale: number;
  readonly width: number;
  readonly height: number;
  /** What is done with a picture that was given. */
  readonly edit: Edit | undefined;
}

export type RequestedModel = Pick<
  ModelDescription,
  | "unet"
  | "vae"
  | "unetReads"
  | "requiresAestheticsScore"
  | "location"
  | "defaultWidth"
  | "defaultHeight"
  | "schedulerOf"
>;

/** Pixels along one side: more would need activations that no adapter of today binds. */
const MAX_SIZE = 4096;
const MAX_STEPS = 1000;

/** Fills in the model's defaults; throws `invalid-input` for anything out of range. */
export function checkRequest(request: GenerateRequest, model: RequestedModel): Settings {
  const refuse = (what: string, got: unknown, expected: string): never => {
    throw new MixdqError("invalid-input", `${what}: got ${String(got)}, expected ${expected}.`);
  };
  if (request.scheduler !== undefined && typeof request.scheduler !== "string")
    refuse("scheduler", request.scheduler, "the name of a class");
  const named = model.schedulerOf(request.scheduler);
  const isXl = model.unet.addition !== undefined;
  const isEdited = model.unetReads === "edited";
  const strength = request.image && !isEdited ? strengthOf(request, { isXl }) : undefined;
  // A strength that leaves nothing of the model's own steps was not asked for.
  const enough = strength !== undefined && strength > 0 && strength <= 1 ? stepsFor(strength) : 1;
  const size = request.image ? pictureSize(request, model) : request;
  const {
    prompt,
    negativePrompt,
    seed = Math.floor(Math.random() * 2 ** 32),
    timesteps,
    numInferenceSteps: steps = Math.max(named.defaultSteps, enough),
    eta = 0,
    guidanceScale = named.defaultGuidanceScale,
    guidanceRescale = 0,
  } = request;
  const { width = model.defaultWidth, height = model.defaultHeight } = size;
  if (typeof prompt !== "string") refuse("prompt", typeof prompt, "a text");
  if (!Number.isInteger(steps) || steps < 1 || steps > MAX_STEPS)
    refuse("numInferenceSteps", steps, `a whole number from 1 to ${MAX_STEPS}`);
  if (timesteps !== undefined && !(Array.isArray(timesteps) && timesteps.length <= MAX_STEPS))
    refuse("timesteps", typeof timesteps, `a list of at most ${MAX_STEPS} numbers`);
  if (!(guidanceRescale >= 0 && guidanceRescale <= 1))
    refuse("guidanceRescale", guidanceRescale, "a number from 0 to 1");
  if (!Number.isFinite(guidanceScale) || guidanceScale < 0)
    refuse("guidanceScale", guidanceScale, "a number from 0 on");
  const edit = readEdit(request, { ...model, isXl }, { width, height });
  const unit = unitOf(request, model);
  for (const [name, size] of Object.entries({ width, height }))
    if (!Number.isInteger(size) || size < unit || size > MAX_SIZE || size % unit !== 0)
      refuse(name, size, `a multiple of ${unit} pixels from ${unit} to ${MAX_SIZE}`);
  const createScheduler = (): Scheduler => named.create({ steps, timesteps, eta, strength });
  return {
    prompt,
    negativePrompt,
    seed: parseSeed(seed),
    steps: createScheduler().steps,
    askedSteps: strength === undefined ? createScheduler().steps : (timesteps?.length ?? steps),
    createScheduler,
    schedulerName: named.name,
    timesteps,
    eta,
    guidanceScale,
    guidanceRescale,
    width,
    height,
    edit,
  };
}

/** diffusers' pipelines take multiples of 8 from text, and of the VAE's scale from pictures. */
const unitOf = ({ image }: GenerateRequest, { vae }: RequestedModel): number =>
  image ? vae.scale : Math.max(8, vae.scale);

/** The picture's own size, rounded down, where none is asked for; what is drawn of a part, at the model's own. */
function pictureSize(request: GenerateRequest, model: RequestedModel): { width?: number; height?: number } {
  const { image, maskPadding, width, height } = request;
  if (maskPadding !== undefined) return { ...(width && { width }), ...(height && { height }) };
  const unit = unitOf(request, model);
  const own = { width: image!.width - (image!.width % unit), height: image!.height - (image!.height % unit) };
  const sizes = { width: width ?? own.width, height: height ?? own.height };
  const isGiven = width !== undefined && height !== undefined;
  if (!isGiven && Object.values(own).some((side) => side < unit || side > MAX_SIZE))
    throw new MixdqError(
      "invalid-input",
      `image: got ${image!.width}x${image!.height} pixels, expected from ${unit} to ${MAX_SIZE} along each side where no ` +
        `width and height are given. Give the size to draw at.`,
    );
  return sizes;
}

/** What was asked for and has no effect, for the user to know. */
export function warnOfRequest({ eta, schedulerName }: Settings): readonly string[] {
  return eta > 0 && !takesEta(schedulerName)
    ? [`eta ${eta} has no effect: ${schedulerName} does not read it (DDIMScheduler and TCDScheduler do).`]
    : [];
}

/** How many the UNet sees at once: with guidance a negative prompt too, and where it edits, the prompt without the picture. */
export function imagesOf(
  settings: Pick<Settings, "guidanceScale" | "edit">,
  model: Pick<ModelDescription, "unet" | "unetReads">,
): 1 | 2 | 3 {
  if (!isGuided(settings, model)) return 1;
  if (model.unetReads !== "edited") return 2;
  return settings.edit!.imageGuidanceScale >= 1 ? 3 : 1;
}

/** Whether the UNet sees a negative prompt too; a model that was distilled with its guidance is only told the scale. */
export function isGuided(
  { guidanceScale }: Pick<Settings, "guidanceScale">,
  { unet }: Pick<ModelDescription, "unet">,
): boolean {
  return guidanceScale > 1 && unet.timeCondProjDim === undefined;
}
