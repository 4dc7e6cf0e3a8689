/**
 * What goes wrong on a GPU, at every call at which it can: no memory, a process that dies, an abort. Moments are counted in
 * calls, not in time. What is asked: one typed error, nothing left over, and the same picture afterwards.
 */
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { refusal } from "./broken.ts";
import { FaultyGpu } from "./faultyGpu.ts";
import type { MixdqError } from "../src/base/errors.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type GenerateHooks, type Pipeline, type PipelineOptions } from "../src/pipeline.ts";

const MODEL = path.join(import.meta.dirname, "golden/sd21-turbo");
const SMALL = { prompt: "a red house", seed: 7, width: 64, height: 64, numInferenceSteps: 2 };
const LARGE = { ...SMALL, width: 96, height: 80 };

/** How many of all moments are tried, evenly spread; 0: every one. */
const MOMENTS = Number(process.env["MIXDQ_FAULT_MOMENTS"] ?? 8);

let faulty: FaultyGpu;
beforeAll(async () => {
  faulty = new FaultyGpu(await requestNodeGpu("auto"));
});
beforeEach(() => faulty.reset());

const load = async (options: Partial<PipelineOptions> = {}): Promise<Pipeline> =>
  loadPipeline({ files: await diskFiles(MODEL), gpu: faulty.gpu, ...options });

/** Numbers from `first` to `last`, both among them. */
function spread(first: number, last: number): number[] {
  const count = MOMENTS === 0 ? last - first + 1 : Math.min(MOMENTS, last - first + 1);
  return Array.from({ length: count }, (_, i) => first + Math.round((i * (last - first)) / Math.max(1, count - 1)));
}

/** What `work` calls, alone. */
async function count(what: "calls" | "allocations", work: () => Promise<unknown>): Promise<number> {
  faulty.reset();
  await work();
  const number = faulty[what];
  faulty.reset();
  return number;
}

/**
 * How work fails that is struck at its `at`-th call, or at an earlier one where it makes fewer this time: how many
 * uploads and submits there are follows the speed of disk and device.
 */
async function failureAt(
  at: number,
  fault: "abort" | "crash",
  work: (signal: AbortSignal) => Promise<object>,
): Promise<MixdqError> {
  const controller = new AbortController();
  let isStruck = false;
  faulty.reset();
  faulty.onCall = (_, n) => {
    if (n !== at) return;
    isStruck = true;
    if (fault === "abort") controller.abort();
    else faulty.crash();
  };
  const running = work(controller.signal);
  await Promise.allSettled([running]);
  if (isStruck || at === 1) return refusal(running);
  await ((await running) as Partial<Pipeline>).dispose?.();
  return failureAt(at - 1, fault, work);
}

describe("while loading", () => {
  afterEach(() => expect(faulty.liveDevices).toBe(0));
  const loadAndDispose = async (): Promise<void> => (await load()).dispose();

  test("no memory for any buffer or upload: out-of-memory, and nothing is left", async () => {
    const all = await count("allocations", loadAndDispose);
    let failures = 0;
    for (const at of spread(0, all - 1)) {
      faulty.reset();
      faulty.failingAllocation = at;
      const outcome = await load().catch((error: unknown) => error);
      // The pieces in which a disk is read, and so the uploads, vary: the last ones may not come.
      if (faulty.failed !== undefined) {
        failures++;
        expect(outcome, `allocation ${at} of ${all}: ${faulty.failed}`).toMatchObject({
          code: "out-of-memory",
          message: expect.stringMatching(/no memory for .*use a smaller size or precision\.$/),
        });
      } else await (outcome as Pipeline).dispose();
      expect(faulty.liveDevices).toBe(0);
    }
    expect(failures).toBeGreaterThan(5);
    faulty.reset();
    await loadAndDispose();
  });

  test("a process that dies at any call: device-lost", async () => {
    const all = await count("calls", loadAndDispose);
    for (const at of spread(1, all)) {
      expect(await failureAt(at, "crash", () => load()), `call ${at} of ${all}`).toMatchObject({ code: "device-lost" });
    }
    faulty.reset();
    await loadAndDispose();
  });

  test("an abort at any call: aborted, and nothing is left", async () => {
    const all = await count("calls", loadAndDispose);
    for (const at of spread(1, all)) {
      const failure = await failureAt(at, "abort", (signal) => load({ signal }));
      expect(failure, `call ${at} of ${all}`).toMatchObject({ code: "aborted" });
      expect(faulty.liveDevices).toBe(0);
    }
  });

  test("an abort while the last kernels compile, and just after the last byte", async () => {
    for (const compileMs of [1500, 0]) {
      faulty.reset();
      faulty.compileMs = compileMs;
      const controller = new AbortController();
      const started = performance.now();
      const loading = load({
        signal: controller.signal,
        onProgress: ({ file, loadedBytes, totalBytes }) => {
          if (file?.startsWith("vae") && loadedBytes === totalBytes) controller.abort();
        },
      });
      expect(await refusal(loading)).toMatchObject({ code: "aborted" });
      if (compileMs > 0) expect(performance.now() - started).toBeLessThan(4 * compileMs); // three networks are waited for
      expect(faulty.liveDevices).toBe(0);
    }
  });
});

describe("while a picture is made", () => {
  let pipeline: Pipeline;
  let small: Uint8ClampedArray;
  let large: Uint8ClampedArray;
  const make = async (request = SMALL, hooks: GenerateHooks = {}): Promise<Uint8ClampedArray> =>
    (await pipeline.generate(request, hooks)).data;

  beforeEach(async () => {
    pipeline = await load();
    large = await make(LARGE);
    small = await make();
    faulty.reset();
    return () => pipeline.dispose();
  });

  test("no memory for any allocation of a larger picture: a smaller one follows, then the larger one", async () => {
    let failures = 0;
    for (const at of spread(0, await count("allocations", () => make(LARGE)))) {
      await pipeline.dispose();
      pipeline = await load(); // so that everything is allocated anew
      expect(await make()).toEqual(small);
      faulty.reset();
      faulty.failingAllocation = at;
      const outcome = await make(LARGE).catch((error: unknown) => error);
      if (faulty.allocations > at) {
        failures++;
        expect(outcome, `allocation ${at}`).toMatchObject({ code: "out-of-memory" });
        expect(faulty.liveBuffers.filter((label) => label.startsWith("arena"))).toEqual([]);
      }
      faulty.reset();
      expect(await make(), `after allocation ${at}`).toEqual(small);
      expect(await make(LARGE)).toEqual(large);
    }
    expect(failures).toBeGreaterThan(5);
  });

  test("a process that dies at any call: device-lost, and again for the next", async () => {
    const all = await count("calls", () => make(LARGE));
    for (const at of spread(1, all)) {
      const failure = await failureAt(at, "crash", () => make(LARGE));
      expect(failure, `call ${at} of ${all}`).toMatchObject({ code: "device-lost" });
      expect(await refusal(make())).toMatchObject({ code: "device-lost" });
      await pipeline.dispose();
      faulty.reset();
      pipeline = await load();
      faulty.reset();
    }
    expect(await make()).toEqual(small);
  });

  test("an abort at any call: aborted, no buffer more than before, and the same picture", async () => {
    await make(); // the first picture of a prompt takes more calls
    const all = await count("calls", () => make());
    const before = faulty.liveBuffers.toSorted();
    for (const at of spread(1, all)) {
      const failure = await failureAt(at, "abort", (signal) => make(SMALL, { signal }));
      expect(failure, `call ${at} of ${all}`).toMatchObject({ code: "aborted" });
      faulty.reset();
      expect(await make()).toEqual(small);
      expect(faulty.liveBuffers.toSorted()).toEqual(before);
    }
  });

  test("abort and the next request in the same tick: never busy, the newest wins", async () => {
    const codes: string[] = [];
    for (let i = 0; i < 20; i++) {
      const controller = new AbortController();
      const cancelled = make(LARGE, { signal: controller.signal });
      cancelled.catch(({ code }) => codes.push(code));
      if (i % 3 > 0) await new Promise((resolve) => setTimeout(resolve, i));
      controller.abort();
    }
    expect(await make()).toEqual(small);
    expect(codes).toEqual(Array(20).fill("aborted"));
  });
});
