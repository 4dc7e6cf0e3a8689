/**
 * Chooses the kernels' forms for a device by measuring them: what is fast on a GPU (workgroup memory) is slow on a
 * software adapter, and the other way round. Each form is checked against its CPU twin before it is timed; one that
 * computes wrongly on this driver is never chosen.
 */
import { GraphBuilder, whole } from "../graph/builder.ts";
import { elementCount, type Graph } from "../graph/ops.ts";
import { runReference } from "../kernels/index.ts";
import type { KernelChoice } from "../kernels/kernel.ts";
import { makePlan } from "../plan/plan.ts";
import { GpuContext } from "./context.ts";
import { isSoftware, type GpuDevice } from "./device.ts";
import { Executor } from "./executor.ts";
import { WeightStore } from "./store.ts";
import { MixdqError } from "../base/errors.ts";

const FORMS = ["tiled", "direct"] as const;
type Form = (typeof FORMS)[number];

/**
 * What software adapters run, and what `--kernels direct` asks for: they emulate workgroup memory and barriers on a CPU,
 * and take seconds to compile the tiled forms.
 */
export const SIMPLE: KernelChoice = { gemm: "direct", attention: "direct", reduction: 8, sizes: "uniform" };

/** What `--kernels tiled` asks for: everything as a GPU has it. */
export const TILED: KernelChoice = { gemm: "tiled", attention: "tiled", reduction: 64, sizes: "constants" };

/** Relative to the largest value: f32 sums in another order. A wrong kernel is off by far more. */
const TOLERANCE = 1e-4;

export async function chooseKernels(gpu: GpuDevice): Promise<KernelChoice> {
  return isSoftware(gpu.adapter) ? SIMPLE : measureKernels(gpu);
}

/** Measures every form over `timed` = [pixels along a side, ops in a row]; `unsupported` where all compute wrongly. */
export async function measureKernels(gpu: GpuDevice, timed: readonly [number, number] = TIMED): Promise<KernelChoice> {
  return {
    ...TILED,
    gemm: await fastest(gpu, "gemm", products, timed),
    attention: await fastest(gpu, "attention", attentions, timed),
  };
}

/** Builds `depth` ops of one family in a row over `size` x `size` pixels. */
type Family = (size: number, depth: number) => Graph;

/** One op, small enough for the CPU twin; and a row of them that keeps a GPU busy for longer than a readback takes. */
const CHECKED = [9, 1] as const;
const TIMED = [32, 16] as const;

async function fastest(
  gpu: GpuDevice,
  name: "gemm" | "attention",
  family: Family,
  size: readonly [number, number],
): Promise<Form> {
  const checked = prepare(family(...CHECKED));
  const expected = runReference(checked.graph, checked.inputs, ({ name }) => checked.weights.get(name)!)["y"]!;
  const timed = prepare(family(...size));
  let best: { form: Form; ms: number } | undefined;
  for (const form of FORMS) {
    const context = new GpuContext(gpu, { ...TILED, gemm: form, attention: form });
    try {
      if (!agrees(await withExecutor(context, checked, (run) => run()), expected)) continue;
      const ms = await withExecutor(context, timed, async (run) => {
        await run(); // compiles, and wakes the clocks
        let least = Infinity;
        for (let round = 0; round < 5; round++) {
          const started = performance.now();
          await run();
          least = Math.min(least, performance.now() - started);
        }
        return least;
      });
      if (!best || ms < best.ms) best = { form, ms };
    } finally {
      context.release();
    }
  }
  if (!best)
    throw new MixdqError(
      "unsupported",
      `The adapter "${gpu.adapter}" computes the ${name} kernels wrongly in every form. Update the GPU driver, or use ` +
        'the backend "ort-webgpu" or "ort-wasm".',
    );
  return best.form;
}

interface Prepared {
  readonly graph: Graph;
  readonly inputs: Record<string, Float32Array>;
  readonly weights: ReadonlyMap<string, Float32Array>;
}

function prepare(graph: Graph): Prepared {
  return {
    graph,
    inputs: Object.fromEntries(
      Object.entries(graph.inputs).map(([name, { shape }]) => [name, wave(elementCount(shape))]),
    ),
    weights: new Map(graph.weights.map(({ name, shape }) => [name, wave(elementCount(shape), 0.06)])),
  };
}

async function withExecutor<T>(
  context: GpuContext,
  { graph, inputs, weights }: Prepared,
  work: (run: () => Promise<Float32Array>) => Promise<T>,
): Promise<T> {
  const plan = makePlan(graph, { caps: context.caps, limits: context.limits, weightType: "f32" });
  const store = await WeightStore.create(context.device, "tuner", plan.weights);
  try {
    for (const { name, shape } of graph.weights) await store.accept(name, shape, () => weights.get(name)!);
    const executor = new Executor(context, plan, store);
    return await work(async () => (await executor.run(inputs))["y"]!);
  } finally {
    store.destroy();
  }
}

function products(size: number, depth: number): Graph {
  const g = new GraphBuilder("tuner", "f32");
  let x = g.input("x", [1, size, size, 512]);
  for (let i = 0; i < depth; i++) x = g.linear(`product.${i}`, x, 512);
  g.output("y", x);
  return g.finish();
}

function attentions(size: number, depth: number): Graph {
  const g = new GraphBuilder("tuner", "f32");
  let x = g.input("x", [1, size, size, 256]);
  for (let i = 0; i < depth; i++)
    x = g.attention(`attention.${i}`, { q: whole(x), k: whole(x), v: whole(x), heads: 4 });
  g.output("y", x);
  return g.finish();
}

/** Any numbers will do that differ from one another; these need no generator. */
function wave(length: number, amplitude = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => amplitude * Math.sin(i * 1.7));
}

function agrees(got: Float32Array, expected: Float32Array): boolean {
  const greatest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return got.every((value, i) => Math.abs(value - expected[i]!) <= TOLERANCE * greatest);
}
