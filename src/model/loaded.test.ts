/** The model room against a backend that computes nothing: what is asked of the networks, in which order, how often. */
import { expect, test } from "vitest";
import { Config } from "../base/config.ts";
import { MixdqError } from "../base/errors.ts";
import type { LoadProgress } from "../base/types.ts";
import { createScheduler } from "../diffusion/scheduler.ts";
import { readUNetConfig } from "../diffusion/unet.ts";
import { readVaeConfig } from "../diffusion/vae.ts";
import { elementCount } from "../graph/ops.ts";
import unetConfig from "../../models/postcard/unet/config.json" with { type: "json" };
import vaeConfig from "../../models/postcard/vae/config.json" with { type: "json" };
import textConfig from "../../models/postcard/text_encoder/config.json" with { type: "json" };
import text2Config from "../../models/postcard/text_encoder_2/config.json" with { type: "json" };
import schedulerConfig from "../../models/postcard/scheduler/scheduler_config.json" with { type: "json" };
import type { KeyedGraph, LoadOptions, Network, Runtime } from "../runtime/network.ts";
import type { ModelFiles } from "../weights/files.ts";
import { denoise } from "./denoise.ts";
import type { ModelDescription } from "./description.ts";
import { loadModel } from "./load.ts";
import type { LoadedModel } from "./loaded.ts";
import { checkRequest } from "./request.ts";

const LENGTH = textConfig.max_position_embeddings;

/** The default model's description, with a tokenizer that counts letters. */
function describe(): ModelDescription {
  const encoder = (component: string, config: object, projects: boolean) => ({
    component,
    config: new Config(`${component}/config.json`, config),
    projects,
    tokenizer: {
      length: LENGTH,
      largestId: 1,
      encode: (text: string) => ({
        ids: Array.from({ length: LENGTH }, (_, i) => (i < text.length ? 1 : 0)),
        truncated: text.length > LENGTH ? text.slice(LENGTH) : undefined,
      }),
    },
  });
  const unet = readUNetConfig(new Config("unet/config.json", unetConfig));
  const vae = readVaeConfig(new Config("vae/config.json", vaeConfig));
  return {
    location: "fake",
    notes: [],
    pipeline: "StableDiffusionXLPipeline",
    textEncoders: [encoder("text_encoder", textConfig, false), encoder("text_encoder_2", text2Config, true)],
    textState: "penultimate",
    unet,
    vae,
    schedulerName: "EulerAncestralDiscreteScheduler",
    schedulerOf: () => ({
      name: "EulerAncestralDiscreteScheduler",
      create: createScheduler(schedulerConfig, "scheduler_config.json"),
      defaultSteps: 1,
      defaultGuidanceScale: 0,
    }),
    zerosForNoNegative: true,
    defaultSteps: 1,
    defaultWidth: unet.sampleSize[1] * vae.scale,
    defaultHeight: unet.sampleSize[0] * vae.scale,
  } as unknown as ModelDescription;
}

/** Networks that answer with a constant, and write down what was asked of them. */
class FakeRuntime implements Runtime {
  readonly backend = "webgpu";
  readonly adapter = "fake";
  readonly features = [];
  readonly activationBytes = 0;
  readonly calls: string[] = [];
  readonly inputs: Record<string, Float32Array | Uint32Array>[] = [];
  /** Loading this component fails. */
  broken: string | undefined;

  async load({ component, graphs, onBytes }: LoadOptions): Promise<Network> {
    this.calls.push(`load ${component} ${graphs.map(({ key }) => key).join()}`);
    if (component === this.broken) throw new MixdqError("network", `${component} is broken`);
    onBytes?.(100, `${component}/model.safetensors`);
    return {
      weightBytes: 100,
      cachedBytes: 1,
      prepare: async ({ key }) => void this.calls.push(`prepare ${component} ${key}`),
      run: async (graph: KeyedGraph, inputs) => {
        this.calls.push(`run ${component} ${graph.key}`);
        this.inputs.push({ ...inputs });
        const { outputs } = graph.build();
        return Object.fromEntries(
          Object.entries(outputs).map(([name, { shape }]) => [name, new Float32Array(elementCount(shape)).fill(0.5)]),
        );
      },
      dispose: async () => void this.calls.push(`dispose ${component}`),
    };
  }

  async dispose(): Promise<void> {
    this.calls.push("dispose");
  }

  /** What was asked since the last time. */
  taken(): string[] {
    return this.calls.splice(0);
  }
}

/** A pack of nothing: where weights come from is another room's matter. */
const NO_PACK = { component: () => ({ bytes: 100, parts: () => undefined }), manifest: { bos: [] } };

async function load(
  runtime = new FakeRuntime(),
  onProgress?: (progress: LoadProgress) => void,
): Promise<{ model: LoadedModel; runtime: FakeRuntime }> {
  const files = { location: "fake" } as ModelFiles;
  const pack = NO_PACK as never;
  const model = await loadModel(describe(), runtime, { files, pack, precision: "fp16", onProgress });
  return { model, runtime };
}

test("components load in the order in which they run, and progress counts them all", async () => {
  const progress: LoadProgress[] = [];
  const { model, runtime } = await load(undefined, (event) => progress.push(event));
  expect(runtime.taken().map((call) => call.split(" ").slice(0, 2).join(" "))).toEqual([
    "load text_encoder",
    "load text_encoder_2",
    "load unet",
    "load vae",
  ]);
  expect(progress.at(-1)).toEqual({ status: "ready", loadedBytes: 400, totalBytes: 400, progress: 100 });
  expect(progress.slice(0, -1).map(({ loadedBytes }) => loadedBytes)).toEqual([100, 200, 300, 400]);
  expect(model.weightBytes).toBe(400);
  expect(model.activationBytes).toBe(4);
});

test("a component that fails to load takes the others with it, and leaves the runtime to its owner", async () => {
  const runtime = new FakeRuntime();
  runtime.broken = "unet";
  await expect(load(runtime)).rejects.toMatchObject({ code: "network" });
  expect(runtime.taken().slice(-2)).toEqual(["dispose text_encoder", "dispose text_encoder_2"]);
});

test("the same text is encoded once, another one again; without guidance the negative prompt is not read", async () => {
  const { model, runtime } = await load();
  const settings = checkRequest({ prompt: "a", seed: 1, guidanceScale: 0 }, model.description);
  runtime.taken();
  const first = await model.encode(settings);
  expect(runtime.taken()).toEqual(["run text_encoder 1", "run text_encoder_2 1"]);
  expect(await model.encode({ ...settings, seed: 2, negativePrompt: undefined })).toBe(first);
  expect(runtime.taken()).toEqual([]);
  expect((await model.encode({ ...settings, prompt: "b" })).conditioning).toHaveLength(1);
  expect(runtime.taken()).toHaveLength(2);
});

test("guidance without a negative prompt compares with zeros in SDXL, and with the prompt's text where there is one", async () => {
  const { model, runtime } = await load();
  const settings = checkRequest({ prompt: "a", seed: 1, guidanceScale: 5 }, model.description);
  const { conditioning, hidden } = await model.encode(settings);
  expect(conditioning).toHaveLength(2);
  expect(conditioning[0].hidden.every((value) => value === 0)).toBe(true);
  expect(hidden).toHaveLength(2 * LENGTH * model.unet.config.crossAttentionDim);
  runtime.taken();
  await model.encode({ ...settings, negativePrompt: "" });
  expect(runtime.taken()).toHaveLength(4);
});

test("what does not fit into the tokenizer is said once, not once an encoder", async () => {
  const { model } = await load();
  const prompt = "x".repeat(LENGTH + 3);
  const { warnings } = await model.encode(checkRequest({ prompt, seed: 1 }, model.description));
  expect(warnings).toEqual([expect.stringContaining('Cut off: "xxx"')]);
});

test("a step reads the text as the same array every time, so that what is computed of it is kept", async () => {
  const { model, runtime } = await load();
  const settings = checkRequest({ prompt: "a", seed: 1, numInferenceSteps: 3, guidanceScale: 5 }, model.description);
  const text = await model.encode(settings);
  runtime.taken();
  runtime.inputs.length = 0;
  const steps: string[] = [];
  const { finalLatents, unetOut, latents } = await denoise(model, text, settings, {
    onStep: (step, of) => steps.push(`${step}/${of}`),
  });
  expect(steps).toEqual(["1/3", "2/3", "3/3"]);
  expect(new Set(runtime.taken()).size).toBe(1);
  expect(new Set(runtime.inputs.map((inputs) => inputs["encoder_hidden_states"])).size).toBe(1);
  expect(unetOut).toHaveLength(2 * latents.length);
  expect(finalLatents).toHaveLength(latents.length);
});

test("an observer sees what the network reads and gives, in every step, before the next one", async () => {
  const { model, runtime } = await load();
  const settings = checkRequest({ prompt: "a", seed: 1, numInferenceSteps: 2, guidanceScale: 0 }, model.description);
  const text = await model.encode(settings);
  runtime.taken();
  const seen: string[] = [];
  await denoise(model, text, settings, {
    observer: {
      before: (inputs, step) => seen.push(`before ${step}: ${Object.keys(inputs).sort().join()}`),
      after: async (step, { prediction }) => {
        seen.push(`after ${step}: ${prediction[0]}, ${runtime.taken().length} run`);
      },
    },
  });
  const names = "add_embeds,encoder_hidden_states,sample,time_proj";
  expect(seen).toEqual([`before 0: ${names}`, "after 0: 0.5, 1 run", `before 1: ${names}`, "after 1: 0.5, 1 run"]);
});

test("start latents of another size, or with values that are no numbers, are refused with both", async () => {
  const { model } = await load();
  const settings = checkRequest({ prompt: "a", seed: 1, width: 64, height: 64 }, model.description);
  const text = await model.encode(settings);
  await expect(denoise(model, text, settings, { latents: new Float32Array(5) })).rejects.toMatchObject({
    code: "invalid-input",
    message: expect.stringMatching(/have 5 values.*= \d+/) as string,
  });
  const { channels, height, width } = model.latentShape(settings);
  const latents = new Float32Array(channels * height * width).fill(Number.NaN, 7, 8);
  await expect(denoise(model, text, settings, { latents })).rejects.toMatchObject({
    message: expect.stringContaining("hold NaN at 7") as string,
  });
});

test("an abort before a step runs nothing more", async () => {
  const { model, runtime } = await load();
  const settings = checkRequest({ prompt: "a", seed: 1, numInferenceSteps: 3 }, model.description);
  const text = await model.encode(settings);
  runtime.taken();
  const controller = new AbortController();
  const running = denoise(model, text, settings, {
    signal: controller.signal,
    onStep: (step) => step === 2 && controller.abort(),
  });
  await expect(running).rejects.toMatchObject({ code: "aborted" });
  expect(runtime.taken().length).toBeLessThanOrEqual(2);
});

test("a picture is planned before its text is encoded: both networks, for its own size", async () => {
  const { model, runtime } = await load();
  runtime.taken();
  await model.prepare(
    checkRequest({ prompt: "a", seed: 1, width: 64, height: 96, guidanceScale: 5 }, model.description),
  );
  const { scale } = model.vae.config;
  const [h, w] = [96 / scale, 64 / scale];
  expect(runtime.taken()).toEqual([`prepare unet 2x${h}x${w}x${LENGTH}`, `prepare vae ${h}x${w}`]);
});

test("disposing gives back every network, then the device", async () => {
  const { model, runtime } = await load();
  runtime.taken();
  await model.dispose();
  expect(runtime.taken()).toEqual([
    "dispose text_encoder",
    "dispose text_encoder_2",
    "dispose unet",
    "dispose vae",
    "dispose",
  ]);
});
