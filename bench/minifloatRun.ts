/**
 * Pictures of a UNet in floats of a few bits, for comparison with our integers: every linear layer and convolution reads
 * rounded weights and a rounded input, everything else is float. The engine has no such formats: its float network in
 * fp32 is run layer by layer, and what a layer reads is rounded on the CPU. As one would do it without MixDQ: one scale
 * for both halves of a concatenation, none of its own for the text's first token, and no layer left out.
 */
import { rangesOf, checkCalibration } from "../src/mixdq/calibration/preset.ts";
import type { Calibration } from "../src/mixdq/calibration/file.ts";
import { quantizableLayers, type QuantizableLayer } from "../src/mixdq/calibration/layers.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { createRuntime } from "../src/runtime/backend.ts";
import { denoise } from "../src/model/denoise.ts";
import { loadModel } from "../src/model/load.ts";
import type { LoadedModel } from "../src/model/loaded.ts";
import { readModel } from "../src/model/description.ts";
import { toRgba } from "../src/model/output.ts";
import { checkRequest } from "../src/model/request.ts";
import type { LoadOptions, Network, Runtime, RunOptions } from "../src/runtime/network.ts";
import { openNetwork } from "../src/runtime/webgpuNetwork.ts";
import { MixdqError } from "../src/base/errors.ts";
import type { Executor, Inputs } from "../src/gpu/executor.ts";
import { aliveAt } from "../src/gpu/snapshot.ts";
import { nameMap } from "../src/graph/names.ts";
import type { Graph, Tensor } from "../src/graph/ops.ts";
import type { Picture } from "../src/mixdq/quality/picture.ts";
import { roundMatrix, roundToRange, type Minifloat } from "./minifloat/minifloat.ts";
import { sitesOf } from "../src/mixdq/sensitivity/sites.ts";
import { toFloat32 } from "../src/weights/convert.ts";
import type { ComponentWeights } from "../src/weights/folder.ts";

export interface Simulation {
  /** Of the weights, with a scale per output channel. Default: as they are. */
  readonly weights?: Minifloat | undefined;
  /** A scale for each so many input channels of an output channel, with all their taps. Default: all of them. */
  readonly group?: number | undefined;
  /** Of the layers' inputs, with a static scale per tensor. Default: as they are. */
  readonly inputs?: Minifloat | undefined;
  /** Recorded with the text's first token (`bos` false). */
  readonly calibration: Calibration;
}

/**
 * A picture a prompt of the diffusers folder `folder`, in its own size and number of steps, without guidance; the seeds
 * count from `firstSeed`, and start noise and pictures are comparable with the pipeline's of the same seeds.
 * Throws `invalid-input` where the calibration is of other layers, or was recorded without the text's first token.
 */
export async function drawSimulated(
  folder: string,
  prompts: readonly string[],
  firstSeed: number,
  simulation: Simulation,
): Promise<readonly Picture[]> {
  const model = await loadSimulated(folder, simulation);
  try {
    const pictures: Picture[] = [];
    for (const [i, prompt] of prompts.entries()) pictures.push(await drawOne(model, prompt, firstSeed + i));
    return pictures;
  } finally {
    await model.dispose();
  }
}

async function drawOne(model: LoadedModel, prompt: string, seed: number): Promise<Picture> {
  const settings = checkRequest({ prompt, seed, guidanceScale: 0 }, model.description);
  const { width, height } = settings;
  const { finalLatents } = await denoise(model, await model.encode(settings), settings);
  const image = await model.vae.decode(finalLatents, model.latentShape(settings), undefined);
  return { width, height, data: toRgba(image, width, height, PRECISION) };
}

const PRECISION = "fp32";

/** A model whose UNet runs the simulation. Throws as `drawSimulated`. */
export async function loadSimulated(folder: string, simulation: Simulation): Promise<LoadedModel> {
  const { calibration } = simulation;
  if (calibration.bos)
    throw new MixdqError(
      "invalid-input",
      `calibration of ${calibration.model}: it was recorded without the text's first token (bos true), a simulation ` +
        "rounds that too. Calibrate with --no-bos.",
    );
  const files = await diskFiles(folder);
  const description = await readModel(files);
  const runtime = await createRuntime({ backend: "webgpu", gpu: await requestNodeGpu("auto") });
  const simulating: Runtime = {
    backend: runtime.backend,
    adapter: runtime.adapter,
    features: runtime.features,
    activationBytes: 0,
    load: (options) =>
      options.component === "unet" ? loadRounded(runtime, options, simulation) : runtime.load(options),
    dispose: () => runtime.dispose(),
  };
  try {
    return await loadModel(description, simulating, { files, precision: PRECISION });
  } catch (error) {
    await runtime.dispose();
    throw error;
  }
}

/** The UNet with rounded weights, whose runs round the layers' inputs too. */
async function loadRounded(runtime: Runtime, options: LoadOptions, simulation: Simulation): Promise<Network> {
  const layers = quantizableLayers(options.graphs[0].build());
  checkCalibration(layers, simulation.calibration);
  const rounded = new Set<string>();
  const weights = withRoundedLayers(options.weights as ComponentWeights, layers, simulation, rounded);
  const network = await runtime.load({ ...options, weights });
  if (rounded.size !== layers.length)
    throw new Error(`the weights of ${rounded.size} layers were rounded, the model has ${layers.length}`);
  const readings = new Map<string, readonly Reading[]>();
  return {
    weightBytes: network.weightBytes,
    cachedBytes: 0,
    prepare: (graph) => network.prepare(graph),
    async run(graph, inputs, runOptions) {
      const { executor } = openNetwork(network, graph);
      if (!readings.has(graph.key))
        readings.set(graph.key, readingsOf(graph.build(), executor, simulation.calibration));
      return runRounded(executor, readings.get(graph.key)!, inputs, simulation.inputs, runOptions);
    },
    dispose: () => network.dispose(),
  };
}

/** All tensors as f32, because a rounded weight times its scale needs more bits than a checkpoint may have. */
function withRoundedLayers(
  weights: ComponentWeights,
  layers: readonly QuantizableLayer[],
  { weights: format, group }: Simulation,
  rounded: Set<string>,
): ComponentWeights {
  const names = nameMap(layers.map(({ weight }) => weight));
  const paths = new Map(layers.map(({ path, weight }) => [weight, path]));
  return {
    bytes: weights.bytes,
    async *tensors(options) {
      for await (const { name, dtype, shape, bytes } of weights.tensors(options)) {
        let values = toFloat32(bytes, dtype);
        const weight = names.get(name);
        if (weight) {
          const path = paths.get(weight)!;
          const taps = shape.slice(2).reduce((product, size) => product * size, 1);
          if (format) values = roundMatrix(values, shape[0], format, path, group && group * taps);
          rounded.add(path);
        }
        yield { name, dtype: "F32", shape, bytes: new Uint8Array(values.slice().buffer) };
      }
    },
  };
}

/** A stretch of the plan that computes layers over one input, and what of it is to be rounded. */
interface Reading {
  readonly from: number;
  readonly to: number;
  /** One tensor, or the halves of a concatenation. */
  readonly tensors: readonly Tensor[];
  /** Those that something reads afterwards. */
  readonly kept: ReadonlySet<Tensor>;
  /** The largest magnitude in the calibration. */
  readonly limit: number;
}

/** In the order of the plan; together they have every layer once. */
function readingsOf(graph: Graph, executor: Executor, calibration: Calibration): readonly Reading[] {
  const { plan } = executor;
  const ranges = rangesOf(calibration, "minmax", false);
  const readings: Reading[] = [];
  let end = 0;
  for (const { path, op, from, to, input, skip, isAlone } of sitesOf(graph, plan)) {
    const { min, max } = ranges.get(path)!.act;
    const limit = Math.max(-min, max);
    const last = readings.at(-1);
    // to_q, to_k and to_v over one input are one op.
    if (!isAlone && last?.from === from) {
      if (last.limit !== limit) throw new Error(`${path}: its range is not that of the others over the same input`);
      continue;
    }
    if (from < end) throw new Error(`${path}: its dispatches are among those of the layer before`);
    const tensors = skip ? [input, skip] : [input];
    const added = [op.residual, op.kind === "conv2d" ? op.rowBias : undefined];
    if (tensors.some(({ id }) => added.some((tensor) => tensor?.id === id)))
      throw new Error(`${path}: what it reads is added to its result too, which must not be rounded`);
    const alive = aliveAt(plan, to);
    readings.push({ from, to, tensors, limit, kept: new Set(tensors.filter(({ id }) => alive.has(id))) });
    end = to;
  }
  return readings;
}

/** As the executor's run, but for the rounding. */
async function runRounded(
  executor: Executor,
  readings: readonly Reading[],
  inputs: Inputs,
  format: Minifloat | undefined,
  { signal }: RunOptions = {},
): Promise<Record<string, Float32Array>> {
  const { dispatches, outputs } = executor.plan;
  await executor.runPart(0, 0, undefined, signal); // makes room for the inputs, where nothing has run yet
  executor.writeInputs(inputs);
  let at = 0;
  for (const { from, to, tensors, kept, limit } of readings) {
    await executor.runPart(at, from, undefined, signal);
    const before: { tensor: Tensor; values: Float32Array }[] = [];
    for (const tensor of tensors) {
      const values = await executor.read(tensor);
      executor.write(tensor, format ? roundToRange(values, limit, format) : values);
      // Only what is read again keeps its place: there may be a result in the place of what is not.
      if (kept.has(tensor)) before.push({ tensor, values });
    }
    await executor.runPart(from, to, undefined, signal);
    for (const { tensor, values } of before) executor.write(tensor, values);
    at = to;
  }
  await executor.runPart(at, dispatches.length, undefined, signal);
  const results: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries(outputs)) results[name] = await executor.read(tensor);
  return results;
}
