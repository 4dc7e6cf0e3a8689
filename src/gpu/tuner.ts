/**
 * Chooses the variant of each family of kernels for a device by running them there: what is fast on a GPU (workgroup
 * memory) is slow on a software adapter, and the other way round. Each variant is checked against its CPU twin before it
 * is timed; one that computes wrongly on this driver is never chosen. The answer is kept for the next engine.
 */
import { MixdqError } from "../base/errors.ts";
import { debug } from "../base/debug.ts";
import { elementCount, type Graph } from "../graph/ops.ts";
import { SIMPLE, TILED, variantNames } from "../kernels/choices.ts";
import { runReference } from "../kernels/index.ts";
import { FAMILIES, type Family, type KernelChoice } from "../kernels/kernel.ts";
import { quantizeLayers } from "../kernels/quantized.ts";
import { makePlan } from "../plan/plan.ts";
import { choiceKey, keptChoice, keepChoice, type ChoiceStore } from "./choiceStore.ts";
import { GpuContext } from "./context.ts";
import { isSoftware } from "../base/adapter.ts";
import type { GpuDevice } from "./device.ts";
import { Executor } from "./executor.ts";
import { fillStore, type HeldWeights } from "./fillStore.ts";
import { checksOf, timedGraph } from "./samples.ts";
import { WeightStore } from "./store.ts";

/** Relative to the largest value: f32 sums in another order. A wrong kernel is off by far more. */
const TOLERANCE = 1e-4;

/** Runs of a timed graph; the fastest counts. */
const ROUNDS = 5;

/** `store` keeps answers; without one they are kept as long as the page or process lives. */
export async function chooseKernels(gpu: GpuDevice, store?: ChoiceStore): Promise<KernelChoice> {
  if (isSoftware(gpu.adapter)) return SIMPLE;
  const key = choiceKey(gpu);
  const kept = await keptChoice(key, factsOf(gpu), store);
  if (kept) return kept;
  const measured = measureKernels(gpu);
  await keepChoice(key, measured, store);
  return measured;
}

const factsOf = ({ device, shaderF16, packedDot }: GpuDevice) => ({
  shaderF16,
  packedDot,
  maxWorkgroupsPerDimension: device.limits.maxComputeWorkgroupsPerDimension,
});

/**
 * Measures every variant of every family. `timed`: pixels along a side, and ops in a row. Throws `unsupported` where all of
 * a family compute wrongly.
 */
export async function measureKernels(
  gpu: GpuDevice,
  timed: readonly [size: number, depth: number] = [32, 16],
): Promise<KernelChoice> {
  let choice = TILED;
  for (const family of FAMILIES) choice = { ...choice, [family]: await fastest(gpu, family, choice, timed) };
  debug(1, () => `kernels: ${FAMILIES.map((family) => `${family} ${choice[family]}`).join(", ")}`);
  return choice;
}

async function fastest(
  gpu: GpuDevice,
  family: Family,
  others: KernelChoice,
  [size, depth]: readonly [number, number],
): Promise<string> {
  const checks = checksOf(family).map(prepare);
  const timed = prepare(timedGraph(family, size, depth));
  let best: { name: string; ms: number } | undefined;
  for (const name of variantNames(family, factsOf(gpu))) {
    const context = new GpuContext(gpu, { ...others, [family]: name });
    try {
      const wrong = await firstWrong(context, checks);
      if (wrong !== undefined) debug(1, () => `${family}: the variant "${name}" computes ${wrong} wrongly here`);
      else {
        const ms = await withExecutor(context, timed, leastTime);
        if (!best || ms < best.ms) best = { name, ms };
      }
    } finally {
      context.release();
    }
  }
  if (best) return best.name;
  throw new MixdqError(
    "unsupported",
    `The adapter "${gpu.adapter}" computes the ${family} kernels wrongly in every variant. Update the GPU driver, or use ` +
      'the backend "ort-webgpu" or "ort-wasm".',
  );
}

/** The name of the first graph whose result is not the twin's. */
async function firstWrong(context: GpuContext, checks: readonly Sample[]): Promise<string | undefined> {
  for (const sample of checks) {
    const { graph, inputs, held } = sample;
    const expected = runReference(graph, inputs, ({ name }) => held.weights.get(name)!, held.matrices)["y"];
    if (!agrees(await withExecutor(context, sample, (run) => run()), expected)) return graph.name;
  }
  return undefined;
}

async function leastTime(run: () => Promise<unknown>): Promise<number> {
  await run(); // compiles, and wakes the clocks
  let least = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const started = performance.now();
    await run();
    least = Math.min(least, performance.now() - started);
  }
  return least;
}

/** A graph from x to y, with values for what it reads. */
interface Sample {
  readonly graph: Graph;
  readonly inputs: Record<string, Float32Array>;
  readonly held: HeldWeights;
}

function prepare(graph: Graph): Sample {
  const weights = new Map(graph.weights.map(({ name, shape }) => [name, wave(elementCount(shape), 0.06)]));
  return {
    graph,
    inputs: Object.fromEntries(
      Object.entries(graph.inputs).map(([name, { shape }]) => [name, wave(elementCount(shape))]),
    ),
    held: { weights, matrices: quantizeLayers(graph, ({ name }) => weights.get(name)!) },
  };
}

async function withExecutor<T>(
  context: GpuContext,
  { graph, inputs, held }: Sample,
  work: (run: () => Promise<Float32Array>) => Promise<T>,
): Promise<T> {
  const plan = makePlan(graph, { caps: context.caps, limits: context.limits, weightType: "f32" });
  const store = await WeightStore.create(context.device, "tuner", plan.weights);
  const executor = new Executor(context, plan, store);
  try {
    await fillStore(store, graph, held);
    return await work(async () => (await executor.run(inputs))["y"]);
  } finally {
    executor.destroy();
    store.destroy();
  }
}

/** Any numbers will do that differ from one another; these need no generator. */
function wave(length: number, amplitude = 1): Float32Array {
  return Float32Array.from({ length }, (_, i) => amplitude * Math.sin(i * 1.7));
}

function agrees(got: Float32Array, expected: Float32Array): boolean {
  const greatest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return got.every((value, i) => Math.abs(value - expected[i]) <= TOLERANCE * greatest);
}
