/**
 * Every pipeline of the default model, in the variant that a GPU gets (tiled, overrides compiled in), through the compilers of
 * real GPUs. Nothing runs: e2e/kernels.spec.ts and e2e/integers.spec.ts say whether the numbers are right.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { quantize } from "../../src/cli/quantize.ts";
import { cacheFolder } from "../../src/node/chromium.ts";
import { buildChild, compileFor, type CompileOptions, type ModelChoice } from "./compile.ts";
import { GPUS, staticDrivers, type StaticDrivers, type StaticGpu } from "./gpus.ts";

const MODEL = "models/postcard";
const SMALL = "e2e/golden/sd15-ancestral";

/** The work is bounded, the machine's speed is not known: compiling takes about two minutes of two idle cores in all. */
const PATIENCE_MS = 1_800_000;

const found = await staticDrivers();
const why = "missing" in found ? found.missing : undefined;
if (why !== undefined && process.env["MIXDQ_REQUIRE_STATIC"])
  throw new Error(`The compilers of real GPUs are required here: ${why}`);

describe(why === undefined ? "compiled for real GPUs" : `compiled for real GPUs (skipped: ${why})`, () => {
  // A machine without the compilers (the title says why); CI requires them wherever it can have them.
  if (why !== undefined) return void test.skip("every pipeline", () => {});
  let folder: string;
  let options: Omit<CompileOptions, "out">;
  const compile = async (gpu: StaticGpu, more: Partial<CompileOptions> = {}) => {
    const out = await mkdtemp(path.join(folder, gpu.key));
    return compileFor(gpu, found as StaticDrivers, { ...options, ...more, out });
  };
  beforeAll(async () => {
    // Within the project, where the child finds node_modules.
    await mkdir(cacheFolder(), { recursive: true });
    folder = await mkdtemp(path.join(cacheFolder(), "static-"));
    const pack = path.join(folder, "pack");
    await quantize(["--model", MODEL, "--config", `${MODEL}/quantization/w3.66a16.json`, "--out", pack]);
    const models: ModelChoice[] = [
      [MODEL, "fp16"],
      [MODEL, "w8a8"],
      [MODEL, "w4a8"],
      [pack, "w4a8"],
    ];
    options = { child: await buildChild(folder), models };
  }, PATIENCE_MS);
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test.each(GPUS)("$name takes every pipeline", { timeout: PATIENCE_MS }, async (gpu) => {
    const { adapter, shaderF16, packedDot, count, refused, pipelines } = await compile(gpu);
    console.log(`${gpu.name}: ${adapter}, ${count} pipelines`);
    expect(adapter).toContain(gpu.adapter);
    expect([shaderF16, packedDot]).toEqual([true, true]);
    expect(refused).toEqual([]);
    // The driver's own compiler saw each of them, and reports more than its subgroup size.
    expect(new Set(pipelines.map(({ label }) => label)).size).toBe(count);
    expect(count).toBeGreaterThan(300);
    expect(Math.min(...pipelines.map(({ statistics }) => Object.keys(statistics).length))).toBeGreaterThan(5);
  });

  test("a kernel's machine code can be read", { timeout: PATIENCE_MS }, async () => {
    const { pipelines } = await compile(GPUS[0], { models: [[SMALL, "fp32"]], code: true });
    const product = pipelines.find(({ label }) => label.startsWith("gemm_tiled"));
    expect(await readFile(product!.code!, "utf8")).toMatch(/v_fma/);
  });
});
