import { afterEach, expect, test, vi } from "vitest";
import type { StepEvent } from "./base/types.ts";

/** The story, told in no time: the face is tested here, not the engine. */
const fake = vi.hoisted(() => ({ disposed: 0, failWith: undefined as Error | undefined, loading: Promise.resolve() }));
vi.mock("./pipeline.ts", () => ({
  loadPipeline: async ({ files, ...rest }: { files: { location: string } }) => ({
    info: await fake.loading.then(() => ({ model: files.location, ...rest })),
    generate: async (
      options: { prompt: string; seed?: number },
      { signal, onStep }: { signal?: AbortSignal; onStep?: (event: StepEvent) => void },
    ) => {
      const events: StepEvent[] = [{ type: "encode" }, { type: "step", step: 1, steps: 1 }, { type: "decode" }];
      for (const event of events) {
        onStep?.(event);
        await new Promise((resolve) => setTimeout(resolve, 5));
        if (signal?.aborted)
          throw new (await import("./base/errors.ts")).MixdqError("aborted", "The run was cancelled.");
        if (fake.failWith) throw fake.failWith;
      }
      return {
        width: 1,
        height: 1,
        data: new Uint8ClampedArray(4),
        seed: options.seed ?? 0,
        parameters: {},
        warnings: [],
      };
    },
    dispose: async () => void fake.disposed++,
  }),
}));

afterEach(() => {
  fake.disposed = 0;
  fake.failWith = undefined;
  fake.loading = Promise.resolve();
});

const open = async () => {
  const { createEngine } = await import("./index.ts");
  return createEngine({ model: "https://host/model", worker: false });
};

test("importing the package touches nothing, so a server-side render may", async () => {
  const before = Object.getOwnPropertyNames(globalThis).sort();
  for (const name of ["navigator", "document", "window", "Worker", "self"]) {
    vi.stubGlobal(name, new Proxy({}, { get: (_, key) => expect.unreachable(`${name}.${String(key)} was read`) }));
  }
  const face = await import("./index.ts");
  vi.unstubAllGlobals();
  expect(Object.keys(face).sort()).toEqual(["GeneratedImage", "MixdqError", "checkSupport", "createEngine"]);
  expect(Object.getOwnPropertyNames(globalThis).sort()).toEqual(before);
});

test("stream yields the stages in order and the image last", async () => {
  const engine = await open();
  const types: string[] = [];
  for await (const event of engine.stream({ prompt: "a house", seed: 7 })) {
    types.push(event.type);
    if (event.type === "image") expect(event.image.seed).toBe(7);
  }
  expect(types).toEqual(["encode", "step", "decode", "image"]);
});

test("leaving the stream early cancels the run, and the engine is free again", async () => {
  const engine = await open();
  for await (const event of engine.stream({ prompt: "a house" })) {
    if (event.type === "step") break;
  }
  await expect(engine.generate({ prompt: "another" })).resolves.toMatchObject({ width: 1 });
});

test("a failure comes out of the stream", async () => {
  const engine = await open();
  fake.failWith = new Error("the GPU is on fire");
  const types: string[] = [];
  const read = async () => {
    for await (const event of engine.stream({ prompt: "a house" })) types.push(event.type);
  };
  await expect(read()).rejects.toThrow("the GPU is on fire");
  expect(types).toEqual(["encode"]);
});

test("a second picture at the same time is refused, and after an abort the next is not", async () => {
  const engine = await open();
  const controller = new AbortController();
  const first = engine.generate({ prompt: "a house", signal: controller.signal });
  await expect(engine.generate({ prompt: "another" })).rejects.toMatchObject({ code: "busy" });
  controller.abort();
  await expect(first).rejects.toMatchObject({ code: "aborted" });
  await expect(engine.generate({ prompt: "another" })).resolves.toMatchObject({ height: 1 });
});

test("abort and the next request in the same tick, 21 times: never busy, and the newest gives its picture", async () => {
  const engine = await open();
  let controller = new AbortController();
  const codes: Promise<string>[] = [];
  for (let key = 0; key < 21; key++) {
    controller.abort();
    controller = new AbortController();
    const picture = engine.generate({ prompt: "a house".slice(0, key), seed: key, signal: controller.signal });
    codes.push(
      picture.then(
        ({ seed }) => `picture ${seed}`,
        ({ code }) => code as string,
      ),
    );
    if (key % 2 === 0) await new Promise((resolve) => setTimeout(resolve, 4)); // some of them have begun
  }
  expect(await Promise.all(codes)).toEqual([...Array(20).fill("aborted"), "picture 20"]);
});

test("an engine that arrives after its abort is disposed of, and the next load waits for that", async () => {
  const { createEngine } = await import("./index.ts");
  const controller = new AbortController();
  let arrive = (): void => {};
  fake.loading = new Promise((resolve) => (arrive = resolve));
  const options = { model: "https://host/model", worker: false };
  const late = createEngine({ ...options, signal: controller.signal });
  await Promise.resolve();
  controller.abort();
  await expect(late).rejects.toMatchObject({ code: "aborted" });
  expect(fake.disposed).toBe(0);
  const disposed: number[] = [];
  const next = createEngine(options).then((engine) => (disposed.push(fake.disposed), engine));
  arrive();
  await next;
  expect(disposed).toEqual([1]);
});

test("an abort at the very moment at which the engine arrives", async () => {
  const { createEngine } = await import("./index.ts");
  const controller = new AbortController();
  fake.loading = Promise.resolve().then(() => controller.abort());
  const late = createEngine({ model: "https://host/model", worker: false, signal: controller.signal });
  await expect(late).rejects.toMatchObject({ code: "aborted" });
  await expect.poll(() => fake.disposed).toBe(1);
});

test("what nobody foresaw is a MixdqError, and memory that JavaScript has not is out-of-memory", async () => {
  const engine = await open();
  fake.failWith = new TypeError("x is not a function");
  await expect(engine.generate({ prompt: "a house" })).rejects.toMatchObject({ code: "invalid-output" });
  fake.failWith = new RangeError("Array buffer allocation failed");
  await expect(engine.generate({ prompt: "a house" })).rejects.toMatchObject({ code: "out-of-memory" });
});

test("dispose cancels what runs, and the engine refuses work afterwards", async () => {
  const engine = await open();
  const running = engine.generate({ prompt: "a house" });
  const outcome = expect(running).rejects.toMatchObject({ code: "aborted" });
  await engine.dispose();
  await outcome;
  await engine.dispose();
  expect(fake.disposed).toBe(1);
  await expect(engine.generate({ prompt: "a house" })).rejects.toMatchObject({ code: "invalid-input" });
});

test("a wrong choice names the right ones", async () => {
  const { createEngine } = await import("./index.ts");
  const wrong = createEngine({ model: "https://host/model", precision: "int3" as never });
  await expect(wrong).rejects.toThrow('precision is "int3", expected one of fp16, fp32');
});

test.each<[unknown, string]>([
  [undefined, "createEngine: got undefined, expected an object with model, precision, "],
  ["models/postcard", 'createEngine: got "models/postcard", expected an object with model, '],
  [{}, "createEngine: model is undefined, expected the URL of a diffusers folder"],
  [{ model: 5 }, "createEngine: model is 5, expected the URL"],
  [{ model: "m", dtype: "fp16" }, 'createEngine: got an unknown option "dtype", did you mean precision?'],
  [{ model: "m", progress_callback: () => {} }, 'unknown option "progress_callback", did you mean onProgress?'],
  [{ model: "m", device: "webgpu" }, 'unknown option "device", did you mean backend?'],
  [{ model: "m", steps: 4 }, 'unknown option "steps", expected model, precision, config, lora, backend, '],
  [{ model: "m", precision: null }, "createEngine: precision is null, expected one of fp16, fp32"],
  [{ model: "m", worker: "no" }, 'createEngine: worker is "no", expected true or false.'],
  [{ model: "m", onProgress: 1 }, "createEngine: onProgress is 1, expected a function."],
  [{ model: "m", signal: {} }, "createEngine: signal is {}, expected an AbortSignal."],
])("createEngine(%j) is refused by name", async (options, says) => {
  const { createEngine } = await import("./index.ts");
  await expect(createEngine(options as never)).rejects.toMatchObject({
    code: "invalid-input",
    message: expect.stringContaining(says),
  });
});

test.each<[unknown, string]>([
  [undefined, "got undefined, expected an object with prompt, negativePrompt, "],
  ["a house", 'got "a house", expected an object'],
  [{}, "prompt is undefined, expected a text."],
  [{ prompt: 5 }, "prompt is 5, expected a text."],
  [{ prompt: "x", steps: 4 }, 'got an unknown option "steps", did you mean numInferenceSteps?'],
  [{ prompt: "x", num_inference_steps: 4 }, "did you mean numInferenceSteps?"],
  [{ prompt: "x", guidance_scale: 2 }, "did you mean guidanceScale?"],
  [{ prompt: "x", negative_prompt: "y" }, "did you mean negativePrompt?"],
  [{ prompt: "x", height_px: 2 }, "did you mean height?"],
  [{ prompt: "x", cfg: 2 }, "did you mean guidanceScale?"],
  [{ prompt: "x", ["__proto__x"]: 2 }, 'unknown option "__proto__x", expected prompt, '],
  [{ prompt: "x", ["toString"]: 2 }, 'unknown option "toString", expected prompt, '],
  [{ prompt: "x", seed: "abc" }, 'seed is "abc", expected a whole number, as a number, a bigint or its digits.'],
  [{ prompt: "x", width: "512" }, 'width is "512", expected a number.'],
  [{ prompt: "x", negativePrompt: ["fog"] }, 'negativePrompt is ["fog"], expected a text.'],
  [{ prompt: "x", onStep: "log" }, 'onStep is "log", expected a function.'],
  [{ prompt: "x", ["y".repeat(1e6)]: 1 }, "…, expected prompt, "],
])("generate and stream refuse %j by name", async (options, says) => {
  const engine = await open();
  const refused = { code: "invalid-input", message: expect.stringContaining(says) };
  await expect(engine.generate(options as never)).rejects.toMatchObject(refused);
  await expect(engine.stream(options as never).next()).rejects.toMatchObject(refused);
});

test("checkSupport refuses what it does not know, and options that are not given are not missed", async () => {
  const { checkSupport } = await import("./index.ts");
  await expect(checkSupport({ modle: "m" } as never)).rejects.toThrow(
    'checkSupport: got an unknown option "modle", did you mean model?',
  );
  await expect(checkSupport(null as never)).rejects.toThrow("checkSupport: got null, expected an object");
  await expect(checkSupport({ precision: "int3" as never })).rejects.toThrow('precision is "int3", expected one of');
  await expect(checkSupport({ model: undefined, signal: undefined })).resolves.toMatchObject({ modelBytes: 0 });
});
