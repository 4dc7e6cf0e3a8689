/** What e2e/golden/make_editing.py made: runs of diffusers' pipelines that begin with a picture, and the models they run. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { decode } from "fast-png";
import { expect } from "vitest";
import type { GenerateRequest } from "../base/types.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { readFloats } from "../weights/convert.ts";
import type { FileStream, ModelFiles } from "../weights/files.ts";
import { parseSafetensors, writeSafetensors, type StoredTensor } from "../weights/safetensors.ts";
import { toTensor } from "./pixels.ts";
import { resize } from "./resize.ts";

export const GOLDEN = path.join(import.meta.dirname, "../../e2e/golden");
export const EDITING = path.join(GOLDEN, "editing");
const IO = path.join(EDITING, "io.safetensors");

export interface EditingRun {
  readonly name: string;
  readonly model: string;
  readonly pipeline: string;
  readonly vae?: string;
  readonly vae_config?: object;
  readonly unet_config?: object;
  readonly config?: { readonly _class_name: string };
  readonly scheduler?: string;
  readonly model_index?: string;
  readonly strength?: number;
  readonly steps?: number;
  readonly timesteps?: readonly number[];
  readonly guidance?: number;
  readonly image_guidance?: number;
  readonly negative_prompt?: string;
  readonly crop?: number;
  readonly keep?: boolean;
  readonly width?: number;
  readonly height?: number;
  readonly prompt: string;
  readonly seed: number;
}

export const runs = JSON.parse(readFileSync(path.join(EDITING, "io.json"), "utf8")) as readonly EditingRun[];
export const io = parseSafetensors(readFileSync(IO), IO);
export const floats = (key: string): Float32Array => readFloats(io.get(key)!, key).slice();

export function readPicture(name: string): { width: number; height: number; data: Uint8Array } {
  const { width, height, channels, data } = decode(readFileSync(path.join(EDITING, name)));
  const rgba = Uint8Array.from({ length: width * height * 4 }, (_, i) =>
    i % 4 === 3 ? 255 : data[Math.floor(i / 4) * channels + (channels === 1 ? 0 : i % 4)],
  );
  return { width, height, data: rgba };
}

/** A model as it would lie on a disk, with the parts that a run replaces. */
export async function filesOf(run: EditingRun): Promise<ModelFiles> {
  const { name, model, vae, config } = run;
  const own = await diskFiles(path.join(GOLDEN, model));
  const other = vae === undefined ? own : await diskFiles(path.join(GOLDEN, vae));
  const of = (file: string): ModelFiles => (file.startsWith("vae/") ? other : own);
  const changes: Record<string, object | undefined> = {
    "vae/config.json": run.vae_config,
    "unet/config.json": run.unet_config,
    "model_index.json": {
      ...(config && { scheduler: ["diffusers", config._class_name] }),
      ...(run.model_index && { _class_name: run.model_index }),
      ...(name === "xl-refiner" && { requires_aesthetics_score: true }),
    },
  };
  const text: ModelFiles["text"] = async (file, signal) => {
    if (file === "scheduler/scheduler_config.json" && config) return JSON.stringify(config);
    const content = await of(file).text(file, signal);
    return content && changes[file] ? JSON.stringify({ ...JSON.parse(content), ...changes[file] }) : content;
  };
  const prefix = `unet.${name}.`;
  const replaced = [...io].filter(([key]) => key.startsWith(prefix));
  const open: ModelFiles["open"] = async (file, signal) => {
    const stream = await of(file).open(file, signal);
    if (!stream || !file.startsWith("unet/") || !file.endsWith(".safetensors") || replaced.length === 0) return stream;
    const tensors = parseSafetensors(await bytesOf(stream), file);
    for (const [key, tensor] of replaced) tensors.set(key.slice(prefix.length), tensor);
    return streamOf(writeSafetensors(Object.fromEntries([...tensors].map(([key, each]) => [key, written(each)]))));
  };
  return { location: name, text, open };
}

const written = ({ dtype, shape, bytes }: StoredTensor) => ({ dtype, shape, data: bytes });
const bytesOf = async ({ body }: FileStream): Promise<Uint8Array> =>
  new Uint8Array(await new Response(body as BodyInit).arrayBuffer());
const streamOf = (bytes: Uint8Array<ArrayBuffer>): FileStream => ({
  bytes: bytes.length,
  body: new Response(bytes).body!,
});

/** The encoders' input, [3, 48, 64]. */
export function encoderInput(): Float32Array {
  const { width, height, data } = decode(readFileSync(path.join(EDITING, "picture.png")));
  return toTensor(resize({ width, height, channels: 3, data: Uint8Array.from(data) }, 64, 48));
}

export const requestOf = (run: EditingRun): GenerateRequest => ({
  prompt: run.prompt,
  seed: run.seed,
  image: readPicture("picture.png"),
  ...(run.pipeline.endsWith("Inpaint") && { mask: readPicture("mask.png") }),
  ...(run.strength !== undefined && { strength: run.strength }),
  ...(run.width !== undefined && { width: run.width, height: run.height! }),
  guidanceScale: run.guidance ?? 0,
  ...(run.negative_prompt !== undefined && { negativePrompt: run.negative_prompt }),
  ...(run.image_guidance !== undefined && { imageGuidanceScale: run.image_guidance }),
  ...(run.steps !== undefined && { numInferenceSteps: run.steps }),
  ...(run.timesteps && { timesteps: run.timesteps }),
  ...(run.scheduler && { scheduler: run.scheduler }),
  ...(run.crop !== undefined && { maskPadding: run.crop }),
  ...(run.keep && { keepUnmasked: true }),
});

export function relativeL2(got: Float32Array, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  let [error, norm] = [0, 0];
  for (let i = 0; i < got.length; i++) {
    error += (got[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

export function psnr(got: Float32Array, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  const error = got.reduce((sum, value, i) => sum + (value - expected[i]) ** 2, 0) / got.length;
  return 10 * Math.log10(4 / error);
}
