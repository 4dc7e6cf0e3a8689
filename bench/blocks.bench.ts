/**
 * One resnet and one transformer block of SDXL-Turbo's own size (640 channels at 32x32, text of 77 x 2048), W4A8 in
 * integers against the float kernels with the same rounded weights: what is left is the rounding of the activations.
 *   npm run bench -- blocks [MIXDQ_BENCH_ADAPTER=lavapipe|gpu]
 */
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { makeData, runOnDevice } from "../e2e/twin.ts";
import { resnet, transformer } from "../src/diffusion/blocks.ts";
import { GpuContext } from "../src/gpu/context.ts";
import { requestDevice } from "../src/gpu/device.ts";
import { Executor } from "../src/gpu/executor.ts";
import { WeightStore } from "../src/gpu/store.ts";
import { chooseKernels } from "../src/gpu/tuner.ts";
import { quantizableLayers } from "../src/mixdq/calibration/layers.ts";
import { GraphBuilder } from "../src/graph/builder.ts";
import { quantizeGraph } from "../src/graph/quantize.ts";
import { elementCount, type Tensor } from "../src/graph/ops.ts";
import { makePlan } from "../src/plan/plan.ts";
import { activationQuant } from "../src/quant/activations.ts";
import type { LayerConfig } from "../src/quant/config.ts";
import { dequantizeMatrix, heldRows, quantizeMatrix } from "../src/quant/matrix.ts";
import { ROUNDINGS } from "../src/quant/nearest.ts";

const ADAPTER = process.env["MIXDQ_BENCH_ADAPTER"] ?? "auto";
const SHAPE = [1, 32, 32, 640] as const;
const RULE = { symmetric: false, range: "minmax", group: null } as const;

const BLOCKS: readonly { name: string; body: (g: GraphBuilder, x: Tensor) => Tensor }[] = [
  {
    name: "resnet with a shortcut over 640 + 320 channels",
    body: (g, x) => {
      const skip = g.input("skip", [1, 32, 32, 320]);
      const timeEmbedding = g.input("time", [1, 1, 1, 1280]);
      return resnet(g, "resnets.0", x, { channels: 640, groups: 32, eps: 1e-5, skip, timeEmbedding });
    },
  },
  {
    name: "transformer of one block",
    body: (g, x) => {
      const encoderHiddenStates = g.input("encoder_hidden_states", [1, 1, 77, 2048]);
      const options = { depth: 1, heads: 10, groups: 32, encoderHiddenStates, onlyCrossAttention: false };
      return transformer(g, "attentions.0", x, options);
    },
  },
];

test.each(BLOCKS)("$name", { timeout: 900_000 }, async ({ name, body }) => {
  const device = await requestDevice(await requestNodeGpu(ADAPTER));
  const context = new GpuContext(device, await chooseKernels(device));
  const g = new GraphBuilder(name, "f32");
  g.output("y", body(g, g.input("x", SHAPE)));
  const graph = g.finish();
  const data = makeData(graph, 11, "f32");

  // The float path over rounded weights, and the range of every layer's input on the way.
  const layers = quantizableLayers(graph);
  const rounded = new Map(data.weights);
  for (const { path, weight } of layers) {
    const rows = weight.shape[0];
    const format = {
      path,
      rows,
      columns: elementCount(weight.shape.slice(1)),
      bits: 4,
      symmetric: RULE.symmetric,
    } as const;
    const values = heldRows(data.weights.get(weight.name)!, rows);
    rounded.set(
      weight.name,
      dequantizeMatrix(quantizeMatrix(values, { ...format, segments: [0] }, ROUNDINGS[RULE.range])),
    );
  }
  const plan = makePlan(graph, { caps: context.caps, limits: context.limits, weightType: "f32" });
  const store = await WeightStore.create(device.device, name, plan.weights);
  for (const { name: weight } of graph.weights) await store.accept(weight, () => rounded.get(weight)!);
  const ranges = new Map<number, [number, number]>();
  const note = (id: number, values: ArrayLike<number>): void => {
    let [min, max] = ranges.get(id) ?? [0, 0];
    for (let i = 0; i < values.length; i++) [min, max] = [Math.min(min, values[i]), Math.max(max, values[i])];
    ranges.set(id, [min, max]);
  };
  for (const [input, tensor] of Object.entries(graph.inputs)) note(tensor.id, data.inputs[input]);
  const float = await new Executor(context, plan, store).run(data.inputs, {
    onTensor: (_, tensor, values) => note(tensor.id, values),
  });
  store.destroy();

  const codes = (tensor: Tensor) => activationQuant(...ranges.get(tensor.id)!);
  const entries = layers.map(({ path, input, skip }): [string, LayerConfig] => [
    path,
    // One range for both halves, as the weights were rounded in one piece.
    { weightBits: 4, actBits: 8, act: skip ? activationQuant(...joined(ranges, input, skip)) : codes(input) },
  ]);
  const config = {
    model: name,
    weights: RULE,
    layers: new Map(entries),
    bos: false,
    averageWeightBits: 4,
    provenance: {},
  };
  const integers = await runOnDevice(context, quantizeGraph(graph, config), data, "f32");

  let [error, energy] = [0, 0];
  float["y"].forEach((value, i) => {
    error += (integers["y"][i] - value) ** 2;
    energy += value ** 2;
  });
  const relative = Math.sqrt(error / energy);
  console.log(
    `${name}: ${layers.length} layers, W4A8 against floats with the same weights, ${relative.toExponential(1)} relative L2 on ${device.adapter}`,
  );
  expect(relative).toBeLessThan(0.02);
  context.destroy();
});

function joined(ranges: ReadonlyMap<number, [number, number]>, a: Tensor, b: Tensor): [number, number] {
  const [first, second] = [ranges.get(a.id)!, ranges.get(b.id)!];
  return [Math.min(first[0], second[0]), Math.max(first[1], second[1])];
}
