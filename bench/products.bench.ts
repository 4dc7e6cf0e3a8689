/**
 * Matrix products and convolutions in every number format, on one adapter, in one run: checked against their CPU twins,
 * then timed alternating. The table goes into BENCHMARKS.md.
 *   npm run bench -- products [MIXDQ_BENCH_ADAPTER=lavapipe|swiftshader|gpu] [MIXDQ_BENCH_RUNS=7] [MIXDQ_BENCH_KERNELS=direct|tiled]
 */
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { makeData, runTwin, worstError, type GraphData } from "../e2e/twin.ts";
import { GpuContext } from "../src/gpu/context.ts";
import { requestDevice } from "../src/gpu/device.ts";
import { Executor } from "../src/gpu/executor.ts";
import { fillStore } from "../src/gpu/fillStore.ts";
import { WeightStore } from "../src/gpu/store.ts";
import { SIMPLE, TILED } from "../src/kernels/choices.ts";
import { chooseKernels } from "../src/gpu/tuner.ts";
import { GraphBuilder } from "../src/graph/builder.ts";
import { quantizeGraph } from "../src/graph/quantize.ts";
import type { Graph, Tensor } from "../src/graph/ops.ts";
import { makePlan } from "../src/plan/plan.ts";
import type { LayerConfig } from "../src/quant/config.ts";

const ADAPTER = process.env["MIXDQ_BENCH_ADAPTER"] ?? "auto";
const RUNS = Number(process.env["MIXDQ_BENCH_RUNS"] ?? 7);
const KERNELS = process.env["MIXDQ_BENCH_KERNELS"];

/** Shapes that carry most of SDXL-Turbo's work at 512x512, and one that is small enough for every machine. */
const SHAPES: readonly { name: string; body: (g: GraphBuilder) => Tensor }[] = [
  { name: "linear 256 x 1280 x 1280", body: (g) => g.linear("fc", g.input("x", [1, 16, 16, 1280]), 1280) },
  { name: "conv 3x3 16x16 320 -> 320", body: (g) => g.conv2d("fc", g.input("x", [1, 16, 16, 320]), 320) },
];

const FORMATS: readonly { name: string; weightType: "f32" | "f16"; layer?: LayerConfig }[] = [
  { name: "f32", weightType: "f32" },
  { name: "f16 weights", weightType: "f16" },
  ...([8, 4, 2] as const).flatMap((weightBits) => [
    {
      name: `W${weightBits}A8`,
      weightType: "f32" as const,
      layer: { weightBits, actBits: 8 as const, act: { scale: 1 / 127, zeroPoint: 128 } },
    },
    { name: `W${weightBits}A16`, weightType: "f32" as const, layer: { weightBits, actBits: 16 as const } },
  ]),
];

/** f16: the twin has the rounded weights too. */
const TOLERANCE = 1e-5;

test(`products in every format on ${ADAPTER}`, { timeout: 1_800_000 }, async () => {
  const device = await requestDevice(await requestNodeGpu(ADAPTER));
  const kernels = KERNELS === "tiled" ? TILED : KERNELS === "direct" ? SIMPLE : await chooseKernels(device);
  const context = new GpuContext(device, kernels);
  const lines = [
    `${device.adapter}, ${kernels.float} and ${kernels.int8} kernels, median of ${RUNS}, ${device.timestamps ? "timestamps" : "wall clock"}`,
  ];
  for (const { name, body } of SHAPES) {
    const rows = [];
    for (const { name: format, weightType, layer } of FORMATS) {
      const g = new GraphBuilder(name, "f32");
      g.output("y", body(g));
      const graph = layer ? quantizeGraph(g.finish(), configOf(layer)) : g.finish();
      const data = makeData(graph, 3, weightType);
      const executor = await prepare(context, graph, data, weightType);
      const { error, text } = worstError((await executor.run(data.inputs))["y"], runTwin(graph, data)["y"]);
      expect(error, `${name} ${format}: ${text}`).toBeLessThan(TOLERANCE);
      rows.push({ format, executor, data, times: [] as number[], work: 0 });
    }
    for (let run = 0; run < RUNS; run++)
      for (const row of rows)
        await row.executor.run(row.data.inputs, {
          onProfile: (profile) => {
            const products = profile.filter(({ kind }) => kind !== "quantize");
            row.times.push(products.reduce((sum, { ms }) => sum + ms, 0));
            row.work = Math.max(...products.map(({ work }) => work));
          },
        });
    const [first] = rows;
    for (const { format, times, work } of rows)
      lines.push(
        `${name.padEnd(28)} ${format.padEnd(12)} ${median(times).toFixed(2).padStart(9)} ms ` +
          `${(work / median(times) / 1e6).toFixed(1).padStart(8)} GMAC/s ${(median(first!.times) / median(times)).toFixed(2).padStart(6)} x f32`,
      );
  }
  console.log(lines.join("\n"));
  context.destroy();
});

function configOf(layer: LayerConfig) {
  const weights = { symmetric: false, range: "minmax", group: null } as const;
  return {
    model: "bench",
    weights,
    layers: new Map([["fc", layer]]),
    bos: false,
    averageWeightBits: undefined,
    provenance: {},
  };
}

async function prepare(
  context: GpuContext,
  graph: Graph,
  { weights, matrices }: GraphData,
  weightType: "f32" | "f16",
): Promise<Executor> {
  const plan = makePlan(graph, { caps: context.caps, limits: context.limits, weightType });
  const store = await WeightStore.create(context.device, graph.name, plan.weights);
  await fillStore(store, graph, { weights, matrices });
  return new Executor(context, plan, store);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
