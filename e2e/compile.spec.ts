/** What is compiled when, and what a caller hears of it: on a model of a few thousand weights. */
import path from "node:path";
import { expect, test } from "vitest";
import type { LoadProgress } from "../src/base/types.ts";
import { SIMPLE } from "../src/kernels/choices.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline } from "../src/pipeline.ts";

const MODEL = path.join(import.meta.dirname, "golden/sd21-turbo");

test("compiling is counted while the model loads, and is in no stage's time", async () => {
  const heard: LoadProgress[] = [];
  const pipeline = await loadPipeline({
    files: await diskFiles(MODEL),
    gpu: await requestNodeGpu("auto"),
    kernels: SIMPLE,
    onProgress: (progress) => heard.push(progress),
  });
  const compiling = (): LoadProgress[] => heard.filter(({ status }) => status === "compile");
  expect(compiling().length).toBeGreaterThan(0);
  for (const { compiled, pipelines, progress } of compiling()) {
    expect(pipelines).toBeGreaterThan(0);
    expect(compiled).toBeLessThanOrEqual(pipelines!);
    expect(progress).toBeLessThanOrEqual(99);
  }
  expect(compiling().some(({ compiled, pipelines }) => compiled === pipelines)).toBe(true);
  expect(heard.at(-1)).toMatchObject({ status: "ready", progress: 100 });

  const { defaultWidth: width, defaultHeight: height } = pipeline.info;
  const draw = async (size: object) => {
    heard.length = 0;
    const { stats } = await pipeline.generate({ prompt: "a house", seed: 1, ...size });
    const { compileMs, encodeMs, unetMs, decodeMs, totalMs } = stats;
    expect(compileMs + encodeMs + unetMs + decodeMs).toBeLessThanOrEqual(totalMs + 0.01);
    return { stats, statuses: [...new Set(heard.map(({ status }) => status))] };
  };
  expect((await draw({ width, height })).statuses).toEqual([]);
  // Overrides are in a uniform here: another one needs the same pipelines.
  expect((await draw({ width: width / 2, height: height / 2 })).statuses).toEqual([]);
  await pipeline.dispose();
});
