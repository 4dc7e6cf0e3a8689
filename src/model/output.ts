/** From a decoder's output to an image with its statistics and parameters, and the guard against NaN and infinity. */
import { debug } from "../base/debug.ts";
import { MixdqError } from "../base/errors.ts";
import type { EngineInfo, GenerateStats, Precision, RawImage } from "../base/types.ts";
import type { LoadedModel } from "./loaded.ts";
import { toRgb, withAlpha } from "./pixels.ts";
import { isGuided, warnOfRequest, type Settings } from "./request.ts";

/** Said by the stage where it happened: a decoder with ReLU can turn NaN into a picture that looks merely odd. */
export function assertFinite(values: ArrayLike<number>, stage: string, precision: Precision): void {
  for (let i = 0; i < values.length; i++)
    if (!Number.isFinite(values[i]))
      throw new MixdqError(
        "invalid-output",
        `The ${stage}'s output holds ${values[i]} at ${i}: its numbers left the range of ${precision}. ${adviceFor(precision)}`,
      );
}

function adviceFor(precision: Precision): string {
  return precision === "fp16"
    ? "Use precision fp32; if it stays, the weights are damaged: download them again."
    : "The weights are damaged: download them again.";
}

/** What to tell of a picture that shows nothing: every pixel of one colour (black, most often). undefined where it is not so. */
export function warnOfOneColour(rgba: Uint8ClampedArray): string | undefined {
  for (let i = 4; i < rgba.length; i++) if (rgba[i] !== rgba[i - 4]) return undefined;
  const [red, green, blue] = rgba;
  return (
    `Every pixel of the picture has the same colour, rgb(${red}, ${green}, ${blue}). The model's numbers may have left ` +
    `their range: try precision fp32, another seed, or check scaling_factor in vae/config.json.`
  );
}

/** [1, 3, H, W] in -1..1 -> RGBA bytes. */
export function toRgba(
  image: Float32Array,
  width: number,
  height: number,
  precision: Precision,
): Uint8ClampedArray<ArrayBuffer> {
  const plane = width * height;
  const out = new Uint8ClampedArray(plane * 4);
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = image[channel * plane + i];
      if (!Number.isFinite(value))
        throw new MixdqError(
          "invalid-output",
          `The picture holds ${value} at pixel (${i % width}, ${Math.floor(i / width)}): the model's numbers left the ` +
            `range of ${precision}. ${adviceFor(precision)}`,
        );
      out[4 * i + channel] = (value / 2 + 0.5) * 255; // rounds and clamps
    }
    out[4 * i + 3] = 255;
  }
  return out;
}

/** What an engine tells of itself. */
export function describeEngine({ description, precision, runtime, weightBytes }: LoadedModel): EngineInfo {
  return {
    model: description.location,
    precision,
    backend: runtime.backend,
    adapter: runtime.adapter,
    features: runtime.features,
    defaultWidth: description.defaultWidth,
    defaultHeight: description.defaultHeight,
    defaultSteps: description.defaultSteps,
    defaultGuidanceScale: description.defaultGuidanceScale,
    latentChannels: description.vae.latentChannels,
    vaeScale: description.vae.scale,
    weightBytes,
  };
}

/**
 * A picture with all that belongs to it. `image` [3, H, W], nominally -1..1; `times` in milliseconds: when the request
 * began, when its kernels were compiled, the text encoded, the latents denoised, the picture decoded. Throws `invalid-output`.
 */
export function finishImage(
  model: LoadedModel,
  settings: Settings,
  image: Float32Array,
  { warnings, times }: { readonly warnings: readonly string[]; readonly times: readonly number[] },
): RawImage {
  const { seed, edit } = settings;
  const [began, prepared, encoded, denoised, decoded] = times as [number, number, number, number, number];
  const stats: GenerateStats = {
    compileMs: prepared - began,
    encodeMs: encoded - prepared,
    unetMs: denoised - encoded,
    decodeMs: decoded - denoised,
    totalMs: decoded - began,
    steps: settings.steps,
    weightBytes: model.weightBytes,
    activationBytes: model.activationBytes,
  };
  debug(1, () => JSON.stringify(stats));
  const pixels = toRgba(image, settings.width, settings.height, model.precision);
  const blank = warnOfOneColour(pixels);
  const drawn = { width: settings.width, height: settings.height, data: pixels };
  const { width, height, data } = edit ? withAlpha(edit.finish(toRgb(drawn))) : drawn;
  const all = [...warnings, ...warnOfRequest(settings), ...(blank === undefined ? [] : [blank])];
  return { width, height, data, seed, stats, warnings: all, parameters: parametersOf(model, settings) };
}

/** What a picture was made with, as its PNG says it. */
function parametersOf(model: LoadedModel, settings: Settings): Record<string, string> {
  const { prompt, negativePrompt, seed, askedSteps, timesteps, eta, guidanceScale, guidanceRescale, width, height } =
    settings;
  const guided = isGuided(settings, model.description);
  const { description, precision, runtime } = model;
  return {
    prompt,
    ...(guided && negativePrompt !== undefined && { negativePrompt }),
    seed: String(seed),
    steps: String(askedSteps),
    ...(timesteps && { timesteps: timesteps.join(",") }),
    ...(eta > 0 && { eta: String(eta) }),
    guidanceScale: String(guidanceScale),
    ...(guided && guidanceRescale > 0 && { guidanceRescale: String(guidanceRescale) }),
    width: String(width),
    height: String(height),
    ...settings.edit?.parameters,
    scheduler: settings.schedulerName,
    model: description.location,
    precision,
    backend: runtime.backend,
  };
}
