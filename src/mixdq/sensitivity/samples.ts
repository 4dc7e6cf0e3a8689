/**
 * What the network is measured on: for every prompt one step of the float model on its way to a picture, with all that
 * an evaluation is compared with, and the network's memory just before that step.
 */
import { createGenerator } from "../../diffusion/noise.ts";
import type { Scheduler } from "../../diffusion/scheduler.ts";
import type { UNetShape } from "../../diffusion/unet.ts";
import { assertFinite, toRgba } from "../../model/output.ts";
import type { Settings } from "../../model/request.ts";
import { decodeLatents, denoise, encodePrompt, toChannelsFirst, type Stages } from "../../model/stages.ts";
import type { Executor } from "../../gpu/executor.ts";
import type { Snapshot } from "../../gpu/snapshot.ts";
import type { Picture } from "../quality/picture.ts";
import type { Precision } from "../../base/types.ts";

export interface Sample {
  /** The float UNet's output, NCHW. */
  readonly output: Float32Array;
  /** The clean latents that it predicts, NCHW. */
  readonly x0: Float32Array;
  /** What they look like; undefined where pictures are not compared. */
  readonly picture: Picture | undefined;
  /** The clean latents that another output predicts. */
  predict(output: Float32Array): Float32Array;
  /** The network's memory before the dispatch that comes next; moves on as the layers do. */
  snapshot: Snapshot;
}

export interface SampleOptions {
  readonly stages: Stages;
  readonly executor: Executor;
  readonly shape: UNetShape;
  readonly settings: Settings;
  readonly precision: Precision;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Prompt `index` with start noise of seed settings.seed + index, looked at in step index mod steps of the float model's own
 * way, so that the samples of a model with several steps are spread over all of them. `wantsPicture`: decode it.
 */
export async function makeSample(
  prompt: string,
  index: number,
  wantsPicture: boolean,
  { stages, executor, shape, settings, precision, signal }: SampleOptions,
): Promise<Sample> {
  const { unet } = stages.model;
  const latentShape = { channels: unet.inChannels, height: shape.height, width: shape.width };
  const count = latentShape.channels * shape.height * shape.width;
  const conditioning = await encodePrompt(stages, prompt, { signal, warnings: [] });
  assertFinite(conditioning.hidden, "text encoder", precision);
  const noise = createGenerator(settings.seed + index);
  const latents = noise.randn(count);
  const scheduler = stages.model.createScheduler(settings.steps);
  const step = index % settings.steps;
  let runs = 0;
  let snapshot: Snapshot | undefined;
  let output: Float32Array | undefined;
  let before: Float32Array | undefined;
  await denoise(
    {
      ...stages,
      async unet(shape, inputs, options) {
        const outputs = await stages.unet(shape, inputs, options);
        if (runs++ === step) {
          executor.writeInputs(inputs);
          snapshot = await executor.save(0);
          output = toChannelsFirst(outputs["out_sample"]!, latentShape);
        }
        return outputs;
      },
    },
    {
      latents,
      shape: latentShape,
      scheduler: watched(scheduler, (sample, i) => {
        if (i === step) before = sample;
      }),
      conditioning: [conditioning],
      guidanceScale: settings.guidanceScale,
      pixels: settings,
      noise: () => noise.randn(count),
      onStep: () => {},
      signal,
    },
  );
  assertFinite(output!, "UNet", precision);
  const silence = new Float32Array(count);
  const predict = (values: Float32Array): Float32Array => scheduler.step(values, step, before!, () => silence).denoised;
  const x0 = predict(output!);
  const picture = wantsPicture ? await pictureOf(x0, { stages, shape, settings, precision, signal }) : undefined;
  return { output: output!, x0, picture, predict, snapshot: snapshot! };
}

/** What latents look like once they are decoded. */
export async function pictureOf(
  x0: Float32Array,
  { stages, shape, settings: { width, height }, precision, signal }: Omit<SampleOptions, "executor">,
): Promise<Picture> {
  const latentShape = { channels: stages.model.unet.inChannels, height: shape.height, width: shape.width };
  const image = await decodeLatents(stages, Float32Array.from(x0), latentShape, signal);
  return { width, height, data: toRgba(image, width, height, precision) };
}

/** The scheduler, telling of the sample of every step. */
function watched(scheduler: Scheduler, onStep: (sample: Float32Array, step: number) => void): Scheduler {
  return {
    ...scheduler,
    step(output, index, sample, noise) {
      onStep(sample, index);
      return scheduler.step(output, index, sample, noise);
    },
  };
}
