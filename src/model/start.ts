/** Where denoising begins: with noise, or with a picture and as much noise as the strength says; and what it is bound to. */
import type { NoiseGenerator } from "../diffusion/noise.ts";
import type { Scheduler } from "../diffusion/scheduler.ts";
import { combine } from "../diffusion/float32.ts";
import type { Edit } from "./edit.ts";
import { sizeOf } from "./layout.ts";
import type { LoadedModel } from "./loaded.ts";
import { latentMask } from "./pixels.ts";
import { imagesOf, type Settings } from "./request.ts";

export interface Start {
  /** Unit variance, [C, h, w]. */
  readonly noise: Float32Array;
  /** What the first call begins with, [C, h, w]. */
  readonly sample: Float32Array;
  /** Channels that the UNet reads behind the sample's, [more, h, w] for each image of its batch. */
  readonly beside?: readonly Float32Array[] | undefined;
  /** Puts back what is not repainted, with the noise of call `next`; of no call after the last. */
  keep?(sample: Float32Array, next: number | undefined): Float32Array;
}

export interface StartOptions {
  readonly generator: NoiseGenerator;
  /** Instead of the generator's. */
  readonly noise: Float32Array | undefined;
  readonly signal: AbortSignal | undefined;
}

/** Draws from the generator when and what diffusers' pipelines draw. Throws what encoding throws. */
export async function startOf(
  model: LoadedModel,
  settings: Settings,
  scheduler: Scheduler,
  options: StartOptions,
): Promise<Start> {
  const { edit } = settings;
  if (!edit || model.description.unetReads === "edited") {
    const noise = options.noise ?? options.generator.randn(sizeOf(model.latentShape(settings)));
    const beside = edit && (await editedChannels(model, settings, edit, options));
    return { noise, sample: pureNoise(noise, scheduler), beside };
  }
  return edit.isMasked
    ? startMasked(model, settings, edit, scheduler, options)
    : startPicture(model, settings, edit, scheduler, options);
}

const pureNoise = (noise: Float32Array, { initNoiseSigma }: Scheduler): Float32Array =>
  noise.map((value) => Math.fround(value * initNoiseSigma));

/** StableDiffusionImg2ImgPipeline and its relatives. */
async function startPicture(
  model: LoadedModel,
  settings: Settings,
  edit: Edit,
  scheduler: Scheduler,
  { generator, noise: given, signal }: StartOptions,
): Promise<Start> {
  const shape = model.latentShape(settings);
  const clean = await model.vae.encode(edit.drawn.pixels, shape, { sample: generator.randn, signal });
  const noise = given ?? generator.randn(sizeOf(shape));
  return { noise, sample: scheduler.addNoise(clean, noise, 0) };
}

/** StableDiffusionInpaintPipeline and StableDiffusionXLInpaintPipeline. */
async function startMasked(
  model: LoadedModel,
  settings: Settings,
  edit: Edit,
  scheduler: Scheduler,
  { generator, noise: given, signal }: StartOptions,
): Promise<Start> {
  const shape = model.latentShape(settings);
  const { pixels } = edit.drawn;
  const mask = edit.drawn.mask!;
  const readsMask = model.description.unetReads === "masked";
  const isWhole = edit.strength === 1;
  const encode = (picture: Float32Array): Promise<Float32Array> =>
    model.vae.encode(picture, shape, { sample: generator.randn, signal });
  const clean = readsMask && isWhole ? undefined : await encode(pixels);
  const noise = given ?? generator.randn(sizeOf(shape));
  const sample = isWhole ? pureNoise(noise, scheduler) : scheduler.addNoise(clean!, noise, 0);
  const small = latentMask(mask, settings, model.vae.config.scale);
  if (!readsMask) {
    // The pipelines encode the picture with a hole for this UNet too, and use no more of it than its draw.
    if (model.vae.config.kind === "AutoencoderKL") generator.randn(sizeOf(shape));
    const keep: Start["keep"] = (sample, next) =>
      blended(small, next === undefined ? clean! : scheduler.addNoise(clean!, noise, next), sample);
    return { noise, sample, keep };
  }
  const hole = pixels.map((value, i) => value * (1 - mask[i % mask.length]));
  const around = await encode(hole);
  const channels = new Float32Array(small.length + around.length);
  channels.set(small);
  channels.set(around, small.length);
  return { noise, sample, beside: Array<Float32Array>(imagesOf(settings, model.description)).fill(channels) };
}

/** (1 - mask) kept + mask sample; a mask of [h, w] for all channels. */
function blended(mask: Float32Array, kept: Float32Array, sample: Float32Array): Float32Array {
  const of = (values: Float32Array, weight: (m: number) => number): Float32Array =>
    values.map((value, i) => weight(mask[i % mask.length]) * value);
  return combine([1, of(kept, (m) => 1 - m)], [1, of(sample, (m) => m)]);
}

/** StableDiffusionInstructPix2PixPipeline: the picture's mean, not scaled; with guidance, of its third image nothing. */
async function editedChannels(
  model: LoadedModel,
  settings: Settings,
  edit: Edit,
  { signal }: StartOptions,
): Promise<readonly Float32Array[]> {
  const shape = model.latentShape(settings);
  const latents = await model.vae.encode(edit.drawn.pixels, shape, { isScaled: false, signal });
  const nothing = new Float32Array(latents.length);
  return imagesOf(settings, model.description) === 3 ? [latents, latents, nothing] : [latents];
}
