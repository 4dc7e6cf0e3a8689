/** One encoded request and one seed become latents. */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { guide, guideEdit, rescaleGuidance } from "../diffusion/guidance.ts";
import { createGenerator } from "../diffusion/noise.ts";
import type { Inputs, RunOptions } from "../runtime/network.ts";
import { joined, sizeOf } from "./layout.ts";
import type { LoadedModel } from "./loaded.ts";
import { assertFinite } from "./output.ts";
import type { Settings } from "./request.ts";
import { startOf } from "./start.ts";
import type { EncodedText } from "./text.ts";

/** Looks into the UNet's runs. */
export interface UNetObserver extends Pick<RunOptions, "onTensor" | "wantsTensor"> {
  /** Before call `call` (from 0): what the network is about to read, channels-last. */
  before?(inputs: Inputs, call: number): void;
  /** After it and before anything else runs: the sample that went into the call, and the prediction without guidance, [C, H, W] each. */
  after?(call: number, state: { inputs: Inputs; sample: Float32Array; prediction: Float32Array }): Promise<void>;
}

export interface DenoiseOptions {
  /** Start noise of unit variance instead of the seed's, [C, h, w]; the seed then makes only the noise between steps. */
  readonly latents?: Float32Array | undefined;
  /** Step `step` (from 1) of `steps` begins; once, also where it calls the UNet several times. */
  readonly onStep?: ((step: number, steps: number) => void) | undefined;
  readonly observer?: UNetObserver | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Denoised {
  /** The start noise, unit variance, [C, h, w]. */
  readonly latents: Float32Array;
  readonly finalLatents: Float32Array;
  /** The first call's predictions of all images, before guidance. */
  readonly unetOut: Float32Array;
}

/** Throws `invalid-input` for latents that do not fit, `invalid-output`, and as `Network.run`. */
export async function denoise(
  model: LoadedModel,
  text: EncodedText,
  settings: Settings,
  { latents: given, onStep, observer, signal }: DenoiseOptions = {},
): Promise<Denoised> {
  const { guidanceScale, seed, steps } = settings;
  const shape = model.latentShape(settings);
  const count = sizeOf(shape);
  const generator = createGenerator(seed);
  if (given) checkStartLatents(given, shape, settings);
  const scheduler = settings.createScheduler();
  const start = await startOf(model, settings, scheduler, { generator, noise: given, signal });
  const context = model.unet.context(text, {
    latents: shape,
    pixels: settings,
    guidanceScale,
    beside: start.beside,
    requiresAestheticsScore: model.description.requiresAestheticsScore,
  });

  let { sample } = start;
  let unetOut: Float32Array | undefined;
  for (const [i, timestep] of scheduler.timesteps.entries()) {
    throwIfAborted(signal);
    if (i === 0 || scheduler.stepOf(i) !== scheduler.stepOf(i - 1)) onStep?.(scheduler.stepOf(i), steps);
    const input = scheduler.scaleModelInput(sample, i);
    const inputs = observer && model.unet.inputs(input, timestep, context);
    if (inputs) observer.before?.(inputs, i);
    const predictions = await model.unet.run(input, timestep, context, { ...observing(observer), signal });
    if (inputs) await observer.after?.(i, { inputs, sample, prediction: predictions.at(-1)! });
    unetOut ??= joined(predictions);
    const prediction = guided(predictions, settings);
    sample = Float32Array.from(scheduler.step(prediction, i, sample, () => generator.randn(count)));
    const isLast = i === scheduler.timesteps.length - 1;
    if (start.keep) sample = start.keep(sample, isLast ? undefined : i + 1);
  }
  assertFinite(sample, "UNet", model.precision);
  return { latents: start.noise, finalLatents: sample, unetOut: unetOut! };
}

const observing = (observer: UNetObserver | undefined): RunOptions =>
  observer?.onTensor ? { onTensor: observer.onTensor, wantsTensor: observer.wantsTensor } : {};

/** Classifier-free guidance of [negative, positive], or of three where a picture is edited; a single prediction as it is. */
function guided(predictions: readonly Float32Array[], settings: Settings): Float32Array {
  const { guidanceScale, guidanceRescale, edit } = settings;
  if (predictions.length === 3) return guideEdit(predictions, guidanceScale, edit!.imageGuidanceScale);
  const [first, positive] = predictions;
  if (!positive) return first!;
  const prediction = guide(first!, positive, guidanceScale);
  return guidanceRescale > 0 ? rescaleGuidance(prediction, positive, guidanceRescale) : prediction;
}

function checkStartLatents(
  latents: Float32Array,
  shape: { readonly channels: number; readonly height: number; readonly width: number },
  { width, height }: Settings,
): void {
  const count = sizeOf(shape);
  if (latents.length !== count)
    throw new MixdqError(
      "invalid-input",
      `The start latents have ${latents.length} values, ${width}x${height} pixels need [1, ${shape.channels}, ` +
        `${shape.height}, ${shape.width}] = ${count}.`,
    );
  const broken = latents.findIndex((value) => !Number.isFinite(value));
  if (broken >= 0)
    throw new MixdqError(
      "invalid-input",
      `The start latents hold ${latents[broken]} at ${broken}, expected finite numbers of unit variance. Make them again.`,
    );
}
