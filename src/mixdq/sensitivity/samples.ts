/**
 * What the network is measured on: for every prompt one step of the float model on its way to a picture, with all that
 * an evaluation is compared with, and the network's memory just before that step.
 */
import { seedAfter } from "../../base/seed.ts";
import { denoise } from "../../model/denoise.ts";
import type { LoadedModel } from "../../model/loaded.ts";
import { assertFinite, toRgba } from "../../model/output.ts";
import type { Settings } from "../../model/request.ts";
import type { Executor } from "../../gpu/executor.ts";
import type { Snapshot } from "../../gpu/snapshot.ts";
import type { Picture } from "../quality/picture.ts";

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
  readonly model: LoadedModel;
  /** The UNet's. */
  readonly executor: Executor;
  readonly settings: Settings;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Prompt `index` with start noise of seed settings.seed + index, looked at in call index mod calls of the float model's own
 * way, so that the samples of a model with several steps are spread over all of them. `wantsPicture`: decode it.
 */
export async function makeSample(
  prompt: string,
  index: number,
  wantsPicture: boolean,
  { model, executor, settings, signal }: SampleOptions,
): Promise<Sample> {
  const scheduler = settings.createScheduler();
  const call = index % scheduler.timesteps.length;
  let seen: { snapshot: Snapshot; before: Float32Array; output: Float32Array } | undefined;
  const request = { ...settings, prompt, seed: seedAfter(settings.seed, index) };
  await denoise(model, await model.encode(request, signal), request, {
    observer: {
      async after(at, { inputs, sample, prediction }) {
        if (at !== call) return;
        executor.writeInputs(inputs);
        seen = { snapshot: await executor.save(0), before: sample, output: prediction };
      },
    },
    signal,
  });
  const { snapshot, before, output } = seen!;
  assertFinite(output, "UNet", model.precision);
  const predict = (values: Float32Array): Float32Array => scheduler.denoised(values, call, before);
  const x0 = predict(output);
  const picture = wantsPicture ? await pictureOf(x0, { model, settings, signal }) : undefined;
  return { output, x0, picture, predict, snapshot };
}

/** What latents look like once they are decoded. */
export async function pictureOf(
  x0: Float32Array,
  { model, settings, signal }: Omit<SampleOptions, "executor">,
): Promise<Picture> {
  const { width, height } = settings;
  const image = await model.vae.decode(Float32Array.from(x0), model.latentShape(settings), signal);
  return { width, height, data: toRgba(image, width, height, model.precision) };
}
