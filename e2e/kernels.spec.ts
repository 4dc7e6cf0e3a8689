/** Every kernel in every variant, against its CPU twin, on every software adapter this machine has. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { GpuContext } from "../src/gpu/context.ts";
import { requestDevice } from "../src/gpu/device.ts";
import { SIMPLE, TILED } from "../src/kernels/choices.ts";
import { testAdapters } from "./adapters.ts";
import { CASES } from "./cases.ts";
import { makeData, runOnDevice, runTwin, shortGrids, worstError } from "./twin.ts";

/**
 * f32: dot products of up to 640 terms in another order, and erf to 1.5e-7.
 * f16: inputs and weights are exactly those of the twin, so what remains is one rounding of the result, 2^-11.
 */
const TOLERANCE = { f32: 1e-5, f16: 2 ** -11 + 1e-5 };

/**
 * Every pair of kernel variant and storage format on one adapter or the other; SwiftShader has no shader-f16. Overrides are
 * compiled in once per kernel variant, as on a GPU; from a uniform otherwise, which spares software adapters the compiling.
 */
const SETUPS = [
  { on: "lavapipe", kernels: SIMPLE, dtype: "f32", stream: "f32", shaderF16: false },
  { on: "lavapipe", kernels: { ...SIMPLE, overrides: "constants" }, dtype: "f16", stream: "f16", shaderF16: true },
  { on: "lavapipe", kernels: SIMPLE, dtype: "f16", stream: "f32", shaderF16: true },
  { on: "lavapipe", kernels: TILED, dtype: "f32", stream: "f32", shaderF16: false },
  { on: "lavapipe", kernels: { ...TILED, overrides: "uniform" }, dtype: "f16", stream: "f32", shaderF16: true },
  { on: "swiftshader", kernels: SIMPLE, dtype: "f32", stream: "f32", shaderF16: false },
  { on: "swiftshader", kernels: SIMPLE, dtype: "f16", stream: "f16", shaderF16: false },
  { on: "swiftshader", kernels: SIMPLE, dtype: "f16", stream: "f32", shaderF16: false },
  { on: "swiftshader", kernels: { ...TILED, overrides: "uniform" }, dtype: "f16", stream: "f32", shaderF16: false },
] as const;

describe.each(await testAdapters())("on $title", ({ name: adapter, isMissing }) => {
  // A machine without this adapter (the title says why); CI requires lavapipe, so that none is lost there unseen.
  if (isMissing) return void test.skip("every kernel", () => {});
  let gpu: GPU;
  beforeAll(async () => {
    gpu = await requestNodeGpu(adapter);
  });

  const setups = SETUPS.filter(({ on }) => on === adapter);
  describe.each(setups)(
    "$kernels.float kernels, overrides by $kernels.overrides, $dtype with $stream between blocks, shader-f16 $shaderF16",
    ({ kernels, dtype, stream, shaderF16 }) => {
      let context: GpuContext;
      beforeAll(async () => {
        context = new GpuContext(await requestDevice(gpu, { shaderF16 }), kernels);
        expect(context.caps.shaderF16, "a lost shader-f16 must not pass unnoticed").toBe(shaderF16);
      });
      afterAll(() => context.destroy());

      const cases = CASES.filter(({ isHeavy }) => !isHeavy || dtype === "f32");
      test.each(cases)("$name equals its twin, and itself with its grids folded", async ({ build, magnitude }) => {
        const graph = build(dtype, stream);
        const data = makeData(graph, 7, dtype, magnitude);
        const { y } = await runOnDevice(context, graph, data, dtype);
        const { error, text } = worstError(y!, runTwin(graph, data)["y"]);
        expect(error, text).toBeLessThanOrEqual(TOLERANCE[dtype]);

        const short = shortGrids(context, graph, dtype);
        if (short) expect((await runOnDevice(context, graph, data, dtype, short))["y"]).toEqual(y);
      });
    },
  );
});
