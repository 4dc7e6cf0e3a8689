/** What diffusers' pipelines overrule in a folder's own words. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import type { ModelFiles } from "../weights/files.ts";
import { readModel } from "./description.ts";
import { checkRequest, warnOfRequest } from "./request.ts";

const GOLDEN = path.join(import.meta.dirname, "../../e2e/golden");

/** A model of e2e/golden with keys of its JSON files set; null takes a key out. */
function model(name: string, changes: Record<string, Record<string, unknown>>): ModelFiles {
  return {
    location: name,
    open: () => Promise.resolve(undefined),
    text: (file) => {
      const place = path.join(GOLDEN, name, file);
      if (!existsSync(place)) return Promise.resolve(undefined);
      const text = readFileSync(place, "utf8");
      if (!changes[file]) return Promise.resolve(text);
      const values = Object.entries({ ...JSON.parse(text), ...changes[file] }).filter(([, value]) => value !== null);
      return Promise.resolve(JSON.stringify(Object.fromEntries(values)));
    },
  };
}

test.each([
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: "0.6.0" }, 64],
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: "0.8.1.dev0" }, 64],
  ["sd15-ancestral", { sample_size: 96, _diffusers_version: "0.6.0" }, 96],
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: "0.9.0.dev0" }, 32],
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: "0.40.0" }, 32],
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: "0.10.2" }, 32],
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: "1.0.0" }, 32],
  ["sd15-ancestral", { sample_size: 32, _diffusers_version: null }, 32],
  ["sd15-ancestral", { sample_size: [32, 32], _diffusers_version: "0.6.0" }, 32],
  ["lcm-sd15", { sample_size: 32, _diffusers_version: "0.6.0" }, 32],
  ["sdxl-euler-cfg", { sample_size: 32, _diffusers_version: "0.6.0" }, 32],
  ["sdxl-euler-cfg", { sample_size: null }, 128],
])("%s with %j is of %i latents", async (name, config, size) => {
  const { unet } = await readModel(model(name, { "unet/config.json": config }));
  expect(unet.sampleSize).toEqual([size, size]);
});

test.each([
  ["sd15-ancestral", "text_encoder/config.json", { use_attention_mask: true }, "use_attention_mask"],
  [
    "sdxl-euler-cfg",
    "model_index.json",
    { requires_aesthetics_score: true },
    "is 68, expected 60: the pooled prompt and 5 numbers (requires_aesthetics_score is true)",
  ],
  [
    "sdxl-euler-cfg",
    "unet/config.json",
    { projection_class_embeddings_input_dim: 2560 },
    "projection_class_embeddings_input_dim is 2560, expected 68",
  ],
])("%s is refused with %s %j", async (name, file, config, message) => {
  const reading = readModel(model(name, { [file]: config }));
  await expect(reading).rejects.toMatchObject({ code: "invalid-model" });
  await expect(reading).rejects.toThrow(message);
});

const request = async (asked: object) =>
  checkRequest({ prompt: "red", ...asked }, await readModel(model("sd15-ancestral", {})));

test("without a word an ordinary model gets its pipeline's steps and guidance, and any seed", async () => {
  const settings = await request({});
  expect(settings).toMatchObject({ steps: 50, guidanceScale: 7.5, guidanceRescale: 0, eta: 0 });
  expect((await request({ seed: "18446744073709551615" })).seed).toBe(2n ** 64n - 1n);
});

test("timesteps replace the number of steps, and another scheduler the model's own", async () => {
  const settings = await request({ scheduler: "TCDScheduler", timesteps: [800, 400], numInferenceSteps: 9, eta: 0.5 });
  expect(settings).toMatchObject({ steps: 2, schedulerName: "TCDScheduler", eta: 0.5 });
  expect([...settings.createScheduler().timesteps]).toEqual([800, 400]);
  expect(warnOfRequest(settings)).toEqual([]);
  expect(warnOfRequest(await request({ eta: 0.5 }))).toEqual([
    "eta 0.5 has no effect: EulerAncestralDiscreteScheduler does not read it (DDIMScheduler and TCDScheduler do).",
  ]);
});

test.each([
  [{ scheduler: 3 }, "scheduler: got 3, expected the name of a class"],
  [{ scheduler: "Heun" }, "scheduler: got Heun, expected one of DDIMScheduler"],
  [{ timesteps: [999] }, "timesteps: got a list for EulerAncestralDiscreteScheduler"],
  [{ timesteps: "999" }, "timesteps: got string, expected a list"],
  [{ scheduler: "EulerDiscreteScheduler", timesteps: [Number.NaN] }, "timesteps: got [NaN]"],
  [{ eta: 2 }, "eta: got 2, expected a number from 0 to 1"],
  [{ guidanceRescale: -1 }, "guidanceRescale: got -1, expected a number from 0 to 1"],
  [{ numInferenceSteps: 0 }, "numInferenceSteps: got 0"],
])("%j is refused before any work", async (asked, message) => {
  await expect(request(asked)).rejects.toMatchObject({ code: "invalid-input" });
  await expect(request(asked)).rejects.toThrow(message);
});
