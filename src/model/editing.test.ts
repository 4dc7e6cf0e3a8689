/** Pictures from pictures by the kernels' CPU twins, against diffusers' own pipelines (e2e/golden/make_editing.py). */
import path from "node:path";
import { describe, expect, test } from "vitest";
import { diskFiles } from "../node/diskFiles.ts";
import { TwinRuntime } from "../runtime/twin.testing.ts";
import { denoise } from "./denoise.ts";
import { readModel } from "./description.ts";
import {
  encoderInput,
  filesOf,
  floats,
  GOLDEN,
  io,
  psnr,
  relativeL2,
  requestOf,
  runs,
  type EditingRun,
} from "./editing.testing.ts";
import { loadModel } from "./load.ts";
import type { LoadedModel } from "./loaded.ts";
import { finishImage } from "./output.ts";
import { checkRequest } from "./request.ts";

/** PyTorch's float32 against doubles, over one network, and over up to 9 calls of the UNet. */
const ENCODER_TOLERANCE = 1e-5;
const LATENTS_TOLERANCE = 1e-4;
/** Range 2, dB. */
const LEAST_PSNR = 45;
/** Bytes of a finished picture: one that was drawn at the edge between two may be rounded the other way, with its neighbours. */
const ROUNDED_OTHERWISE = 1e-3;

async function load(run: EditingRun): Promise<{ model: LoadedModel; runtime: TwinRuntime }> {
  const files = await filesOf(run);
  const runtime = new TwinRuntime();
  return { model: await loadModel(await readModel(files), runtime, { files, precision: "fp32" }), runtime };
}

describe("an encoder alone", () => {
  test.each(["sd15-ancestral", "sd21-v", "sdxl-euler-cfg", "postcard"])("%s", async (name) => {
    const folder = name === "postcard" ? path.join(GOLDEN, "../../models/postcard") : path.join(GOLDEN, name);
    const files = await diskFiles(folder);
    const model = await loadModel(await readModel(files), new TwinRuntime(), { files, precision: "fp32" });
    const { scale, latentChannels, kind } = model.vae.config;
    const shape = { channels: latentChannels, height: 48 / scale, width: 64 / scale };
    const mean = await model.vae.encode(encoderInput(), shape, { isScaled: false, signal: undefined });
    const expected = floats(`encode.${name}`);
    const count = mean.length;
    expect(expected.length).toBe(kind === "AutoencoderKL" ? 2 * count : count);
    expect(relativeL2(mean, expected.slice(0, count))).toBeLessThanOrEqual(ENCODER_TOLERANCE);
    if (kind !== "AutoencoderKL") return;
    // A sample of unit noise lies one deviation from the mean.
    const sampled = await model.vae.encode(encoderInput(), shape, {
      sample: (count) => new Float32Array(count).fill(1),
      isScaled: false,
      signal: undefined,
    });
    const deviation = expected.slice(count).map((logVariance) => Math.exp(0.5 * logVariance));
    const got = sampled.map((value, i) => value - mean[i]);
    expect(relativeL2(got, deviation)).toBeLessThanOrEqual(ENCODER_TOLERANCE);
  });
});

test.each(runs.map((run) => [run.name, run] as const))("%s", async (name, run) => {
  const { model, runtime } = await load(run);
  const settings = checkRequest(requestOf(run), model.description);
  const text = await model.encode(settings);
  const steps: number[] = [];
  const { finalLatents } = await denoise(model, text, settings, { onStep: (step) => steps.push(step) });
  expect(relativeL2(finalLatents, floats(`${name}.final_latents`))).toBeLessThanOrEqual(LATENTS_TOLERANCE);
  expect(steps).toEqual(Array.from({ length: settings.steps }, (_, i) => i + 1));
  if (!io.has(`${name}.image`)) return;
  const image = await model.vae.decode(finalLatents, model.latentShape(settings), undefined);
  expect(psnr(image, floats(`${name}.image`))).toBeGreaterThanOrEqual(LEAST_PSNR);
  const times = [0, 0, 0, 0, 0];
  const picture = finishImage(model, settings, image, { warnings: text.warnings, times });
  expect(picture.parameters).toMatchObject({
    steps: String(run.timesteps?.length ?? run.steps),
    ...(run.strength !== undefined && { strength: String(run.strength) }),
  });
  const finished = io.get(`${name}.finished`);
  if (finished) {
    expect([picture.height, picture.width, 3]).toEqual(finished.shape);
    const got = Uint8Array.from(picture.data.filter((_, i) => i % 4 !== 3));
    const differences = Array.from(got, (byte, i) => Math.abs(byte - finished.bytes[i])).filter((each) => each > 0);
    expect(differences.every((each) => each === 1)).toBe(true);
    expect(differences.length / got.length).toBeLessThanOrEqual(ROUNDED_OTHERWISE);
  }
  // The same picture again is not encoded again.
  const encodings = (): number => runtime.runs.filter((each) => each.startsWith("vae_encoder")).length;
  const before = encodings();
  if (name !== "sd-kl") return;
  await denoise(model, text, settings);
  expect([before, encodings()]).toEqual([1, 1]);
});
