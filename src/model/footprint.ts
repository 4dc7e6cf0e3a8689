/**
 * What one picture takes, counted from its plans without a weight or a GPU: dispatches, pipelines, multiply-accumulates,
 * and bytes of weights, activations and download. The same plans are what a run executes, so the bytes are those of the
 * buffers that it makes.
 */
import type { Precision } from "../base/types.ts";
import { elementCount, type Graph } from "../graph/ops.ts";
import { macsOf, type Macs } from "../graph/work.ts";
import type { DeviceCaps } from "../kernels/kernel.ts";
import { quantizedLayers } from "../kernels/quantized.ts";
import { sourceWords } from "../kernels/words.ts";
import type { MemoryLimits } from "../plan/limits.ts";
import { ALIGNMENT } from "../plan/memory.ts";
import { makePlan, tensorBytes, variantKey, type Plan } from "../plan/plan.ts";
import type { MixdqConfig } from "../quant/config.ts";
import { ModelGraphs, type ComponentGraphs, type GraphSource } from "./graphs.ts";

export interface FootprintOptions {
  readonly precision: Precision;
  /** Which layers of the UNet run in integers. */
  readonly config?: MixdqConfig | undefined;
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  /** With guidance the UNet sees two images. */
  readonly isGuided: boolean;
  readonly caps: DeviceCaps;
  readonly limits: MemoryLimits;
}

export interface ComponentFootprint {
  /** In GPU memory, bytes. */
  readonly weightBytes: number;
  /** Arenas that this component alone would need, and what it keeps between runs, bytes. */
  readonly activationBytes: number;
  /** Of its part of a pack (integers), or of a checkpoint of 16 bits (fp16) or 32 (fp32), bytes. */
  readonly downloadBytes: number;
  readonly dispatches: number;
  /** Distinct ones of this component. */
  readonly pipelines: number;
  readonly macs: Macs;
}

export interface Footprint {
  readonly width: number;
  readonly height: number;
  /** The most GPU memory that is held at once while a picture is made, all weights resident, bytes. */
  readonly peakBytes: number;
  /** The most that is held during each stage, in this order, bytes. */
  readonly stages: { readonly encode: number; readonly denoise: number; readonly decode: number };
  readonly downloadBytes: number;
  /** The largest activation or weight that a kernel binds, bytes: the device's maxStorageBufferBindingSize must hold it. */
  readonly largestBindingBytes: number;
  /** Distinct ones of the whole picture. */
  readonly pipelines: number;
  /** Of one UNet step. */
  readonly dispatches: number;
  /** Of a UNet step whose text is that of the step before: its keys and values are still there. */
  readonly warmDispatches: number;
  readonly components: Readonly<Record<string, ComponentFootprint>>;
}

interface PlannedPart {
  readonly part: ComponentGraphs;
  readonly graph: Graph;
  readonly plan: Plan;
}

/** Throws `unsupported` where a tensor does not fit into `limits`. */
export function footprintOf(model: GraphSource, options: FootprintOptions): Footprint {
  const { precision, config, width, height, isGuided, caps, limits } = options;
  const { scale } = model.vae;
  const shape = { height: height / scale, width: width / scale };
  const graphs = new ModelGraphs(model, precision, config);
  const parts = graphs.components({ batch: isGuided ? 2 : 1, ...shape, tokens: graphs.tokens });
  const planned = parts.map((part): PlannedPart => {
    const graph = part.graphs[0].build();
    return { part, graph, plan: makePlan(graph, { caps, limits, weightType: weightTypeOf(part, precision) }) };
  });
  const components = Object.fromEntries(
    planned.map((each) => [each.part.component, componentFootprint(each, precision)]),
  );
  const stages = stageBytes(planned);
  const { dispatches, textDispatches } = planned.find(({ part }) => part.component === "unet")!.plan;
  return {
    width,
    height,
    peakBytes: Math.max(...Object.values(stages)),
    stages,
    downloadBytes: sum(Object.values(components), ({ downloadBytes }) => downloadBytes),
    largestBindingBytes: Math.max(...planned.map(({ plan }) => largestBinding(plan))),
    pipelines: new Set(planned.flatMap(({ plan }) => variantsOf(plan))).size,
    dispatches: dispatches.length,
    warmDispatches: dispatches.length - textDispatches.size,
    components,
  };
}

/** fp32 reads checkpoints of 32 bits; everything else those of 16, and then `exact` storage is 16 bits too. */
const weightTypeOf = ({ storage }: ComponentGraphs, precision: Precision): "f32" | "f16" =>
  storage === "f16" || precision !== "fp32" ? "f16" : "f32";

function componentFootprint({ graph, plan }: PlannedPart, precision: Precision): ComponentFootprint {
  const { arenaBytes, cachedBytes } = plan.memory;
  return {
    weightBytes: weightBytes(plan),
    activationBytes: sum(arenaBytes, (bytes) => bytes) + cachedBytes,
    downloadBytes: downloadBytes(graph, plan, precision),
    dispatches: plan.dispatches.length,
    pipelines: new Set(variantsOf(plan)).size,
    macs: macsOf(graph),
  };
}

const variantsOf = ({ dispatches, overrides }: Plan): string[] =>
  dispatches.map((dispatch) => variantKey(dispatch, overrides));

/** Weights lie one behind the other, each at a place that can be bound. */
const weightBytes = ({ weights }: Plan): number => sum(weights, ({ bytes }) => aligned(bytes));

/**
 * Integers as a pack holds them: codes and parameters of each layer alone. Floats at the checkpoint's width, but for BOS
 * caches, which a pack holds in f32 and a checkpoint not at all.
 */
function downloadBytes(graph: Graph, { weights }: Plan, precision: Precision): number {
  const layers = quantizedLayers(graph);
  const words = sum(weights, (weight) =>
    weight.dtype === "u32" ? sum(weight.sources, (_, index) => sourceWords(weight, index)) : 0,
  );
  const width = precision === "fp32" ? 4 : 2;
  const floats = sum(graph.weights, ({ name, shape, derivedFrom }) => {
    if (layers.has(name)) return 0;
    return elementCount(shape) * (derivedFrom === undefined ? width : 4);
  });
  return 4 * words + floats;
}

/**
 * What is held when each stage is at its fullest. All weights are there from the start; the arenas are shared by all
 * components and only grow; what the UNet caches of the text stays; each plan that has run has its uniforms; and an
 * output is read back through a buffer of its own.
 */
function stageBytes(planned: readonly PlannedPart[]): Footprint["stages"] {
  const weights = sum(planned, ({ plan }) => weightBytes(plan));
  const arenas: number[] = [];
  let others = 0;
  const run = ({ plan }: PlannedPart): number => {
    plan.memory.arenaBytes.forEach((bytes, i) => (arenas[i] = Math.max(arenas[i] ?? 0, bytes)));
    others += plan.memory.cachedBytes + ALIGNMENT * plan.dispatches.length;
    const readback = Math.max(...Object.values(plan.outputs).map(tensorBytes));
    return weights + sum(arenas, (bytes) => bytes) + others + readback;
  };
  const stage = (components: (component: string) => boolean): number =>
    Math.max(...planned.filter(({ part }) => components(part.component)).map(run));
  return {
    encode: stage((component) => component.startsWith("text_encoder")),
    denoise: stage((component) => component === "unet"),
    decode: stage((component) => component === "vae"),
  };
}

function largestBinding({ weights, memory }: Plan): number {
  const tensors = [...memory.placements.values()].map(({ bytes }) => bytes);
  return Math.max(...tensors, ...weights.map(({ bytes }) => bytes));
}

const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

function sum<T>(items: readonly T[], of: (item: T, index: number) => number): number {
  return items.reduce((total, item, index) => total + of(item, index), 0);
}
