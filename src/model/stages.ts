/** The three acts between prompt and picture, in diffusers' words. Latents and images are NCHW here, as diffusers has them. */
import type { RunOptions } from "../runtime/runtime.ts";
import { guidanceScaleEmbedding, timestepEmbedding } from "../diffusion/timestep.ts";
import type { Scheduler } from "../diffusion/scheduler.ts";
import type { UNetConfig, UNetShape } from "../diffusion/unet.ts";
import { throwIfAborted } from "../base/errors.ts";
import type { Inputs } from "../gpu/executor.ts";
import type { ModelDescription } from "./model.ts";
import { pooledToken } from "../text/encoder.ts";

type Outputs = Promise<Record<string, Float32Array>>;

/** A loaded model: its networks as functions, channels-last. */
export interface Stages {
  readonly model: ModelDescription;
  /** Plans the networks for latents of this shape. Throws `unsupported` where the device cannot hold them. */
  prepare(shape: UNetShape): void;
  encode(encoder: number, ids: Uint32Array, eos: Uint32Array | undefined, options: RunOptions): Outputs;
  unet(shape: UNetShape, inputs: Inputs, options: RunOptions): Outputs;
  decode(shape: { height: number; width: number }, latents: Float32Array, options: RunOptions): Outputs;
}

/** What the UNet knows of a prompt. */
export interface Conditioning {
  /** [tokens, cross_attention_dim]: the encoders' states side by side. */
  readonly hidden: Float32Array;
  /** [channels], SDXL only. */
  readonly pooled: Float32Array | undefined;
}

export interface LatentShape {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

/** prompt -> tokens -> states. What did not fit into the tokenizer's length goes to `warnings`. */
export async function encodePrompt(
  { model, encode }: Pick<Stages, "model" | "encode">,
  prompt: string,
  { signal, warnings }: { signal: AbortSignal | undefined; warnings: string[] },
): Promise<Conditioning> {
  const states: Float32Array[] = [];
  let pooled: Float32Array | undefined;
  const tokens = model.textEncoders[0]!.tokenizer.length;
  for (const [i, { tokenizer, config, projects }] of model.textEncoders.entries()) {
    const { ids, truncated } = tokenizer.encode(prompt);
    if (truncated !== undefined && i === 0)
      warnings.push(`The prompt is longer than the model reads (${tokenizer.length} tokens). Cut off: "${truncated}"`);
    const eos = projects ? Uint32Array.of(pooledToken(config, ids)) : undefined;
    const outputs = await encode(i, Uint32Array.from(ids), eos, { signal });
    states.push(outputs["hidden"]!);
    pooled = outputs["pooled"] ?? pooled;
  }
  return { hidden: sideBySide(states, tokens), pooled: model.unet.addition ? pooled : undefined };
}

export interface DenoiseOptions {
  /** Unit variance, NCHW. */
  readonly latents: Float32Array;
  readonly shape: LatentShape;
  readonly scheduler: Scheduler;
  /** [negative, positive] with guidance, [positive] without. */
  readonly conditioning: readonly Conditioning[];
  readonly guidanceScale: number;
  /** The picture's size, which SDXL is told. */
  readonly pixels: { readonly width: number; readonly height: number };
  /** Fresh noise for the scheduler, NCHW. */
  readonly noise: () => Float32Array;
  /** Step `step` (from 1) begins. */
  readonly onStep: (step: number) => void;
  readonly signal: AbortSignal | undefined;
}

/** noise -> latents, one UNet run a step. `unetOut` is the first step's, before guidance. */
export async function denoise(
  { model, unet }: Stages,
  { latents, shape, scheduler, conditioning, guidanceScale, pixels, noise, onStep, signal }: DenoiseOptions,
): Promise<{ finalLatents: Float32Array; unetOut: Float32Array }> {
  const batch = conditioning.length;
  const { height, width } = pixels;
  const fixed: Record<string, Float32Array> = {
    encoder_hidden_states: joined(conditioning.map(({ hidden }) => hidden)),
    ...(model.unet.addition && {
      add_embeds: joined(
        conditioning.map(({ pooled }) => addedEmbeddings(model.unet, pooled!, [height, width, 0, 0, height, width])),
      ),
    }),
    ...(model.unet.timeCondProjDim !== undefined && {
      timestep_cond: guidanceScaleEmbedding(guidanceScale - 1, model.unet.timeCondProjDim),
    }),
  };
  const tokens = conditioning[0]!.hidden.length / model.unet.crossAttentionDim;
  let sample = latents.map((value) => Math.fround(value * scheduler.initNoiseSigma));
  let unetOut: Float32Array | undefined;
  for (const [i, timestep] of scheduler.timesteps.entries()) {
    throwIfAborted(signal);
    onStep(i + 1);
    const input = toChannelsLast(scheduler.scaleModelInput(sample, i), shape);
    const { out_sample: output } = await unet(
      { batch, height: shape.height, width: shape.width, tokens },
      {
        ...fixed,
        sample: joined(conditioning.map(() => input)),
        time_proj: joined(conditioning.map(() => projectTime(model.unet, [timestep]))),
      },
      { signal },
    );
    const predictions = conditioning.map((_, b) =>
      toChannelsFirst(output!.subarray((b * output!.length) / batch, ((b + 1) * output!.length) / batch), shape),
    );
    unetOut ??= joined(predictions);
    const prediction = predictions[1]
      ? predictions[0]!.map((negative, j) => negative + guidanceScale * (predictions[1]![j]! - negative))
      : predictions[0]!;
    sample = Float32Array.from(scheduler.step(prediction, i, sample, noise).prev);
  }
  return { finalLatents: sample, unetOut: unetOut! };
}

/** latents -> [3, H, W], nominally -1..1. */
export async function decodeLatents(
  { model, decode }: Stages,
  latents: Float32Array,
  shape: LatentShape,
  signal: AbortSignal | undefined,
): Promise<Float32Array> {
  const { scalingFactor, latentsMean, latentsStd, scale } = model.vae;
  const plane = shape.height * shape.width;
  // Only SDXL's pipeline reads the statistics (diffusers, pipeline_stable_diffusion_xl.py).
  const statistics = model.unet.addition && latentsMean && latentsStd;
  const unscaled = latents.map((value, i) => {
    const channel = Math.floor(i / plane);
    return statistics ? (value * latentsStd[channel]!) / scalingFactor + latentsMean[channel]! : value / scalingFactor;
  });
  const { image } = await decode(shape, toChannelsLast(unscaled, shape), { signal });
  return toChannelsFirst(image!, { channels: 3, height: shape.height * scale, width: shape.width * scale });
}

/** Timesteps -> the UNet's sinusoidal projection, [n, block_out_channels[0]]. */
export function projectTime(unet: UNetConfig, timesteps: ArrayLike<number>): Float32Array {
  const { flipSinToCos, freqShift, timeProjDim } = unet;
  return timestepEmbedding(timesteps, timeProjDim, { flipSinToCos, freqShift });
}

/** SDXL's text_time conditioning of one picture: the pooled prompt, then each of the six numbers projected. */
export function addedEmbeddings(unet: UNetConfig, pooled: Float32Array, timeIds: ArrayLike<number>): Float32Array {
  const { flipSinToCos, freqShift } = unet;
  return joined([pooled, timestepEmbedding(timeIds, unet.addition!.timeEmbedDim, { flipSinToCos, freqShift })]);
}

/** [C, H, W] -> [H, W, C]. */
export function toChannelsLast(values: Float32Array, { channels, height, width }: LatentShape): Float32Array {
  const plane = height * width;
  const out = new Float32Array(values.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < plane; i++) out[i * channels + c] = values[c * plane + i]!;
  return out;
}

/** [H, W, C] -> [C, H, W]. */
export function toChannelsFirst(values: Float32Array, { channels, height, width }: LatentShape): Float32Array {
  const plane = height * width;
  const out = new Float32Array(values.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < plane; i++) out[c * plane + i] = values[i * channels + c]!;
  return out;
}

/** [rows, a], [rows, b], ... -> [rows, a + b + ...]. */
function sideBySide(parts: readonly Float32Array[], rows: number): Float32Array {
  const widths = parts.map(({ length }) => length / rows);
  const width = widths.reduce((a, b) => a + b, 0);
  const out = new Float32Array(rows * width);
  let offset = 0;
  for (const [i, part] of parts.entries()) {
    for (let row = 0; row < rows; row++)
      out.set(part.subarray(row * widths[i]!, (row + 1) * widths[i]!), row * width + offset);
    offset += widths[i]!;
  }
  return out;
}

/** One after the other. */
export function joined(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0]!;
  const out = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}
