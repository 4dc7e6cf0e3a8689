/**
 * Integer matrix products, convolutions and the kernels that write codes, against their CPU twins, on every software
 * adapter: every weight format, with and without the packed dot product. Sums of integers must be equal bit for bit.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { GpuContext } from "../src/gpu/context.ts";
import { requestDevice } from "../src/gpu/device.ts";
import { SIMPLE, TILED } from "../src/kernels/choices.ts";
import { testAdapters } from "./adapters.ts";
import { FEW_PRODUCTS, OTHERS, PRODUCTS, WRITERS, type IntegerCase } from "./integerCases.ts";
import { makeData, matricesOf, runOnDevice, runTwin, shortGrids, worstError } from "./twin.ts";

/** Floats at the end of an integer product: one scale, one bias, one activation function in f32. */
const TOLERANCE = 2e-6;

/** All pairs of kernel and format once; software adapters take seconds to compile a pipeline. */
const SETUPS = [
  { on: "lavapipe", kernels: SIMPLE, packedDot: true, cases: [...PRODUCTS, ...OTHERS] },
  { on: "lavapipe", kernels: SIMPLE, packedDot: false, cases: FEW_PRODUCTS },
  // As a GPU gets it.
  { on: "lavapipe", kernels: TILED, packedDot: true, cases: [...FEW_PRODUCTS, ...OTHERS] },
  { on: "swiftshader", kernels: SIMPLE, packedDot: true, cases: [...FEW_PRODUCTS, ...OTHERS] },
  { on: "swiftshader", kernels: { ...SIMPLE, overrides: "constants" }, packedDot: false, cases: FEW_PRODUCTS },
] as const;

describe.each(await testAdapters())("on $title", ({ name: adapter, isMissing }) => {
  // A machine without this adapter (the title says why); CI requires lavapipe, so that none is lost there unseen.
  if (isMissing) return void test.skip("every integer kernel", () => {});
  let gpu: GPU;
  beforeAll(async () => {
    gpu = await requestNodeGpu(adapter);
  });

  describe.each(SETUPS.filter(({ on }) => on === adapter))(
    "$kernels.float kernels, overrides by $kernels.overrides, packed dot product $packedDot",
    ({ kernels, packedDot, cases }) => {
      let context: GpuContext;
      beforeAll(async () => {
        context = new GpuContext(await requestDevice(gpu, { packedDot }), kernels);
        expect(context.caps.packedDot, "a lost dot product must not pass unnoticed").toBe(packedDot);
      });
      afterAll(() => context.destroy());

      const run = async ({ graph, fill }: IntegerCase) => {
        const plain = makeData(graph, 7, "f32");
        const filled = fill?.(plain);
        const data = filled ? { ...filled, matrices: matricesOf(graph, filled.weights) } : plain;
        const { y } = await runOnDevice(context, graph, data, "f32");
        const short = shortGrids(context, graph, "f32");
        if (short) expect((await runOnDevice(context, graph, data, "f32", short))["y"]).toEqual(y);
        return { got: y!, expected: runTwin(graph, data)["y"] };
      };

      test.each(cases)("$name equals its twin, and itself with its grids folded", async (item) => {
        const { got, expected } = await run(item);
        if (item.isExact) {
          const wrong = got.findIndex((value, i) => value !== Math.fround(expected[i]));
          expect(wrong, `at ${wrong}: got ${got[wrong]}, expected ${expected[wrong]}`).toBe(-1);
          return;
        }
        const { error, text } = worstError(got, expected);
        expect(error, text).toBeLessThanOrEqual(TOLERANCE);
      });

      test.each(WRITERS)("$name as its twin", async (item) => {
        const { got, expected } = await run(item);
        const wrong = got.findIndex((code, i) => Math.abs(code - expected[i]) > 1);
        expect(wrong, `at ${wrong}: got ${got[wrong]}, expected ${expected[wrong]}`).toBe(-1);
        // Only a value on the very edge between two codes may round the other way.
        const off = got.filter((code, i) => code !== expected[i]).length;
        expect(off).toBeLessThanOrEqual(got.length / 500);
      });
    },
  );
});
