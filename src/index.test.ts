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
