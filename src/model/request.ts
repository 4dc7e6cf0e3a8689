/** What may be asked for, checked against the model before any work begins. */
import { MixdqError } from "../base/errors.ts";
import type { GenerateOptions } from "../base/types.ts";
import type { ModelDescription } from "./description.ts";

export type GenerateRequest = Omit<GenerateOptions, "signal" | "onStep">;

/** A request with the model's defaults filled in. */
export interface Settings {
  readonly prompt: string;
  readonly negativePrompt: string | undefined;
  readonly seed: number;
  readonly steps: number;
  readonly guidanceScale: number;
  readonly width: number;
  readonly height: number;
}

/** Pixels along one side: more would need activations that no adapter of today binds. */
const MAX_SIZE = 4096;
const MAX_STEPS = 1000;

/** Fills in the model's defaults; throws `invalid-input` for anything out of range. */
export function checkRequest(
  request: GenerateRequest,
  model: Pick<ModelDescription, "unet" | "vae" | "defaultWidth" | "defaultHeight" | "defaultSteps">,
): Settings {
  const {
    prompt,
    negativePrompt,
    seed = Math.floor(Math.random() * 2 ** 32),
    numInferenceSteps: steps = model.defaultSteps,
    // A model distilled with a guidance embedding wants one; diffusers' default for it.
    guidanceScale = model.unet.timeCondProjDim === undefined ? 0 : 8.5,
    width = model.defaultWidth,
    height = model.defaultHeight,
  } = request;
  const refuse = (what: string, got: unknown, expected: string): never => {
    throw new MixdqError("invalid-input", `${what}: got ${String(got)}, expected ${expected}.`);
  };
  if (typeof prompt !== "string") refuse("prompt", typeof prompt, "a text");
  if (!Number.isSafeInteger(seed) || seed < 0) refuse("seed", seed, "a whole number from 0 to 2^53 - 1");
  if (!Number.isInteger(steps) || steps < 1 || steps > MAX_STEPS)
    refuse("numInferenceSteps", steps, `a whole number from 1 to ${MAX_STEPS}`);
  if (!Number.isFinite(guidanceScale) || guidanceScale < 0)
    refuse("guidanceScale", guidanceScale, "a number from 0 on");
  const unit = Math.max(8, model.vae.scale);
  for (const [name, size] of Object.entries({ width, height }))
    if (!Number.isInteger(size) || size < unit || size > MAX_SIZE || size % unit !== 0)
      refuse(name, size, `a multiple of ${unit} pixels from ${unit} to ${MAX_SIZE}`);
  return { prompt, negativePrompt, seed, steps, guidanceScale, width, height };
}

/** Whether the UNet sees a negative prompt too; a model that was distilled with its guidance is only told the scale. */
export function isGuided(
  { guidanceScale }: Pick<Settings, "guidanceScale">,
  { unet }: Pick<ModelDescription, "unet">,
): boolean {
  return guidanceScale > 1 && unet.timeCondProjDim === undefined;
}
