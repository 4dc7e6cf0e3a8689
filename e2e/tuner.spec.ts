/** The tuner runs only where there is a GPU; here it is made to, so that it is not first run on somebody's machine. */
import { readFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { choiceFile } from "../src/node/choiceFile.ts";
import { requestDevice, type GpuDevice } from "../src/gpu/device.ts";
import { checksOf } from "../src/gpu/samples.ts";
import { chooseKernels, measureKernels } from "../src/gpu/tuner.ts";
import { SIMPLE, variantNames } from "../src/kernels/choices.ts";
import { FAMILIES } from "../src/kernels/kernel.ts";

const FACTS = { shaderF16: true, packedDot: true, maxWorkgroupsPerDimension: 65_535 };

async function withDevice(work: (gpu: GpuDevice) => Promise<void>): Promise<void> {
  const gpu = await requestDevice(await requestNodeGpu("auto"));
  try {
    await work(gpu);
  } finally {
    gpu.device.destroy();
  }
}

test("every variant of every family passes its checks and is timed; a software adapter gets the simple ones unmeasured", () =>
  withDevice(async (gpu) => {
    const measured = await measureKernels(gpu, [9, 2]);
    for (const family of FAMILIES) expect(variantNames(family, FACTS)).toContain(measured[family]);
    expect(await chooseKernels({ ...gpu, adapter: "google swiftshader" })).toEqual(SIMPLE);
  }));

test("integers are checked in every width, in slices and as convolutions", () => {
  const names = checksOf("int8").map(({ name }) => name);
  for (const bits of [8, 4, 3, 2]) expect(names.some((name) => name.includes(`W${bits}A8`))).toBe(true);
  for (const kind of ["slices", "conv 3x3"]) expect(names.some((name) => name.includes(kind))).toBe(true);
});

test("an answer is kept in memory and in a file, and a file that is damaged or of another build costs a measurement", () =>
  withDevice(async (gpu) => {
    const folder = await mkdtemp(path.join(tmpdir(), "mixdq-choices-"));
    const store = choiceFile(folder);
    const kept = { ...SIMPLE, float: "tiled", overrides: "constants" };
    const named: GpuDevice = { ...gpu, adapter: `a GPU ${folder}` };
    const { choiceKey, keptChoice, keepChoice } = await import("../src/gpu/choiceStore.ts");
    const key = choiceKey(named);
    await keepChoice(key, Promise.resolve({ ...SIMPLE, float: "tiled", overrides: "constants" as const }), store);
    expect(await chooseKernels(named, store)).toEqual(kept);
    // As another process finds it.
    expect(JSON.parse(readFileSync(path.join(folder, "mixdq-web/kernels.json"), "utf8"))).toHaveProperty([key]);
    expect(await keptChoice(`${key} elsewhere`, FACTS, { ...store, get: () => store.get(key) })).toEqual(kept);
    for (const damaged of ["", "{", "[]", "{}", JSON.stringify({ ...kept, float: "of another build" })])
      expect(await keptChoice(`${key}2`, FACTS, { ...store, get: async () => damaged })).toBeUndefined();
    const failing = { get: () => Promise.reject(new Error()), set: () => Promise.reject(new Error()) };
    expect(await keptChoice(`${key}3`, FACTS, failing)).toBeUndefined();
  }));
