import { describe, expect, it } from "vitest";
import { MixdqError } from "../base/errors.ts";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph } from "../graph/ops.ts";
import { fromHalf, toHalf } from "../quant/half.ts";
import { composite, expectAgreement, random, randomWeights } from "./agreement.testing.ts";
import { runReference } from "../kernels/index.ts";
import { attentionIsCorrect } from "./probe.ts";
import { createOrtRunner } from "./session.ts";

const builder = () => new GraphBuilder("test", "f32");

describe("a graph on onnxruntime-web's WebAssembly provider", () => {
  it.each(["f32", "f16"] as const)("a ResNet block, a transformer block and an upsampler, %s", async (float) => {
    await expectAgreement(composite(), {}, { float });
  });

  it("weights given as 16-bit floats run as 32-bit ones", async () => {
    const g = builder();
    const x = g.input("x", [1, 1, 3, 4]);
    g.output("y", g.linear("fc", x, 4, { bias: false }));
    const graph = g.finish();
    const bits = toHalf(random(16, 3));
    const runner = await createOrtRunner(graph, () => ({ shape: [4, 4], data: bits }), { provider: "wasm" });
    const inputs = { x: random(12, 4) };
    const { y } = await runner.run(inputs);
    await runner.release();
    const expected = runReference(graph, inputs, () => fromHalf(bits)).y;
    y.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 5));
  });

  it("the attention probe passes where attention is right, and fails where one key in 77 is left out", async () => {
    const run = async (graph: Graph, inputs: Record<string, Float32Array>) => {
      const runner = await createOrtRunner(graph, randomWeights(graph), { provider: "wasm" });
      return runner.run(inputs).finally(() => runner.release());
    };
    expect(await attentionIsCorrect(run)).toBe(true);
    const forgetful = (graph: Graph, { q, k }: Record<string, Float32Array>) =>
      run(graph, { q, k: k.map((value, i) => (i >= 76 * 128 ? k[i - 128] : value)) });
    expect(await attentionIsCorrect(forgetful)).toBe(false);
  });

  it("two runners are created and run at the same time", async () => {
    await Promise.all([expectAgreement(composite()), expectAgreement(composite())]);
  });
});

describe("errors of the onnxruntime-web runner", () => {
  const g = builder();
  g.output("y", g.linear("fc", g.input("x", [1, 1, 3, 4]), 4));
  const graph = g.finish();

  it("name the input and say what was expected", async () => {
    const runner = await createOrtRunner(graph, randomWeights(graph), { provider: "wasm" });
    await expect(runner.run({ x: new Float32Array(5) })).rejects.toThrow(
      'test on onnxruntime-web (wasm, f32): got Float32Array of 5 for input "x", expected Float32Array of 12 ([1, 1, 3, 4]).',
    );
    await expect(runner.run({})).rejects.toThrow('got nothing for input "x"');
    await runner.release();
  });

  it("name the weight that does not fit", async () => {
    const weights = () => ({ shape: [2, 4], data: new Float32Array(8) });
    await expect(createOrtRunner(graph, weights, { provider: "wasm" })).rejects.toThrow(
      "fc.weight: got shape [2, 4] with 8 elements, expected [4, 4].",
    );
  });

  it("say that there is no WebGPU", async () => {
    const failure = createOrtRunner(graph, randomWeights(graph), { provider: "webgpu" });
    await expect(failure).rejects.toThrow(MixdqError);
    await expect(failure).rejects.toMatchObject({ code: "unsupported" });
  });

  it("refuse more weights than WebAssembly can address", async () => {
    // 64 layers that share one array of 64 MiB.
    const huge = new GraphBuilder("huge", "f32");
    const layers = Array.from({ length: 64 }, (_, i) => ({ path: `fc${i}`, n: 4096 }));
    huge.output("y", huge.linears("fc", huge.input("x", [1, 1, 1, 4096]), layers, { bias: false }));
    const data = new Float32Array(2 ** 24);
    const failure = createOrtRunner(huge.finish(), () => ({ shape: [4096, 4096], data }), { provider: "wasm" });
    await expect(failure).rejects.toThrow(
      "huge on onnxruntime-web (wasm, f32): got 4.0 GiB of weights, expected at most 3.0 GiB",
    );
  });
});
