/** Pictures of models in one file, as diffusers' own script writes them, against diffusers' picture of the same model. */
import path from "node:path";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { modelFiles } from "../src/node/modelPlaces.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { loadPipeline } from "../src/pipeline.ts";
import { parseSafetensors } from "../src/weights/safetensors.ts";
import { readFloats } from "../src/weights/convert.ts";
import { testAdapters } from "./adapters.ts";

const GOLDEN = path.join(import.meta.dirname, "../src/checkpoint/golden");
/** Four guided steps through a UNet in another order of sums, fp32, range 1; e2e/golden.spec.ts asks 50 of several steps. */
const PICTURE_DB = 50;

describe.each((await testAdapters()).slice(0, 1))("on $title", ({ name: adapter, isMissing }) => {
  if (isMissing) return void test.skip("every case", () => {});

  test.each(["sd1", "sd2", "sdxl"])("%s in one file gives diffusers' picture", async (name) => {
    const folder = path.join(GOLDEN, name);
    const golden = parseSafetensors(readFileSync(path.join(folder, "picture.safetensors")));
    const floats = (key: string): Float32Array => readFloats(golden.get(key)!, key);
    const files = await modelFiles(path.join(folder, "model.safetensors"), { configFrom: folder });
    const gpu = await requestNodeGpu(adapter);
    const pipeline = await loadPipeline({ files, gpu, precision: "fp32" });
    let image: Float32Array | undefined;
    const request = { prompt: "a red circle", numInferenceSteps: 4, guidanceScale: 3, width: 32, height: 32, seed: 0 };
    await pipeline
      .generate(request, { latents: floats("latents"), onIntermediates: (seen) => (image = seen.image) })
      .finally(() => pipeline.dispose());
    const expected = floats("image");
    const pixels = Float32Array.from(image!, (value) => Math.min(Math.max(value / 2 + 0.5, 0), 1));
    expect(pixels.length).toBe(expected.length);
    const error = pixels.reduce((sum, pixel, i) => sum + (pixel - expected[i]) ** 2, 0) / pixels.length;
    expect(-10 * Math.log10(error)).toBeGreaterThan(PICTURE_DB);
    // A picture of one colour would prove nothing.
    expect(Math.max(...expected) - Math.min(...expected)).toBeGreaterThan(0.2);
  });
});
