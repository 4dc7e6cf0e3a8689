/**
 * Whole pictures by many schedulers against diffusers' own pipelines (e2e/golden/make_schedulers.py): steps, timesteps, noise
 * between steps, guidance, what the pipeline overrules and what from_config keeps.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type Intermediates } from "../src/pipeline.ts";
import { readFloats } from "../src/weights/convert.ts";
import type { ModelFiles } from "../src/weights/files.ts";
import { parseSafetensors } from "../src/weights/safetensors.ts";

const GOLDEN = path.join(import.meta.dirname, "golden");
const IO = path.join(GOLDEN, "schedulers/io.safetensors");

interface Run {
  readonly name: string;
  readonly model: string;
  /** scheduler_config.json instead of the model's own. */
  readonly config?: { readonly _class_name: string };
  readonly scheduler?: string;
  readonly steps?: number;
  readonly timesteps?: readonly number[];
  readonly eta?: number;
  readonly guidance?: number;
  readonly rescale?: number;
  readonly negative_prompt?: string;
  readonly prompt: string;
  readonly seed: number;
  readonly width: number;
  readonly height: number;
}

const runs = JSON.parse(readFileSync(path.join(GOLDEN, "schedulers/io.json"), "utf8")) as readonly Run[];
const io = parseSafetensors(readFileSync(IO), IO);
const floats = (key: string): Float32Array => readFloats(io.get(key)!, key).slice();

/** float32 sums in another order, over up to 14 calls of the UNet. */
const LATENTS_TOLERANCE = 1e-3;
/** Range 2, dB. */
const LEAST_PSNR = 45;

/** The model with another scheduler in its index and folder, as it would lie on a disk. */
async function filesOf({ model, config }: Run): Promise<ModelFiles> {
  const files = await diskFiles(path.join(GOLDEN, model));
  if (!config) return files;
  const text: ModelFiles["text"] = async (name, signal) => {
    if (name === "scheduler/scheduler_config.json") return JSON.stringify(config);
    const content = await files.text(name, signal);
    if (name !== "model_index.json") return content;
    return JSON.stringify({ ...JSON.parse(content!), scheduler: ["diffusers", config._class_name] });
  };
  return { location: files.location, text, open: (name, signal) => files.open(name, signal) };
}

let gpu: GPU;
beforeAll(async () => {
  gpu = await requestNodeGpu("auto");
});

test.each(runs.map((run) => [run.name, run] as const))("%s", async (name, run) => {
  const pipeline = await loadPipeline({ files: await filesOf(run), precision: "fp32", gpu });
  try {
    let seen: Intermediates | undefined;
    const steps: number[] = [];
    const request = {
      prompt: run.prompt,
      seed: run.seed,
      width: run.width,
      height: run.height,
      guidanceScale: run.guidance ?? 0,
      ...(run.negative_prompt !== undefined && { negativePrompt: run.negative_prompt }),
      ...(run.steps !== undefined && { numInferenceSteps: run.steps }),
      ...(run.timesteps && { timesteps: run.timesteps }),
      ...(run.scheduler && { scheduler: run.scheduler }),
      ...(run.eta !== undefined && { eta: run.eta }),
      ...(run.rescale !== undefined && { guidanceRescale: run.rescale }),
    };
    const { parameters, warnings } = await pipeline.generate(request, {
      onIntermediates: (values) => (seen = values),
      onStep: (event) => event.type === "step" && steps.push(event.step),
    });
    const latents = relativeL2(seen!.finalLatents, floats(`${name}.final_latents`));
    const picture = psnr(seen!.image, floats(`${name}.image`));
    console.log(`${name}: latents ${latents.toExponential(1)}, picture ${picture.toFixed(0)} dB`);
    expect(latents).toBeLessThanOrEqual(LATENTS_TOLERANCE);
    expect(picture).toBeGreaterThanOrEqual(LEAST_PSNR);
    const count = run.timesteps?.length ?? run.steps!;
    expect(steps).toEqual(Array.from({ length: count }, (_, i) => i + 1));
    expect(parameters["steps"]).toBe(String(count));
    expect(parameters["timesteps"]).toBe(run.timesteps?.join(","));
    expect(parameters["scheduler"]).toContain("Scheduler");
    expect(warnings).toEqual([]);
  } finally {
    await pipeline.dispose();
  }
});

function relativeL2(got: Float32Array, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  let [error, norm] = [0, 0];
  for (let i = 0; i < got.length; i++) {
    error += (got[i] - expected[i]) ** 2;
    norm += expected[i] ** 2;
  }
  return Math.sqrt(error / norm);
}

function psnr(got: Float32Array, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  const error = got.reduce((sum, value, i) => sum + (value - expected[i]) ** 2, 0) / got.length;
  return 10 * Math.log10(4 / error);
}
