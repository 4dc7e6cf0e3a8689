/** A graph for one device: which kernels run in which order, over what memory. Pure data, printable. */
import type { DType, Graph, Shape, Tensor } from "../graph/ops.ts";
import { dispatchesOf } from "../kernels/index.ts";
import { quads, type DeviceCaps, type Dispatch, type PackedWeight } from "../kernels/kernel.ts";
import { assertWithinLimits, type MemoryLimits } from "./limits.ts";
import { CACHED, placeTensors, type Memory } from "./memory.ts";

export interface Plan {
  readonly name: string;
  readonly dispatches: readonly Dispatch[];
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Every parameter as the kernels want it, each once. */
  readonly weights: readonly PackedWeight[];
  readonly memory: Memory;
  readonly overrides: DeviceCaps["overrides"];
  /**
   * Dispatches that depend on the text alone (keys and values of cross-attention): while the text stays the same, their
   * results are still there from the run before.
   */
  readonly textDispatches: ReadonlySet<Dispatch>;
}

/** The input on which those dispatches depend. */
export const TEXT_INPUT = "encoder_hidden_states";

export interface PlanOptions {
  readonly caps: DeviceCaps;
  readonly limits: MemoryLimits;
  readonly weightType: "f32" | "f16";
  /** Default true; false gives every tensor memory of its own. */
  readonly share?: boolean;
}

const ELEMENT_BYTES: Record<DType, number> = { f32: 4, f16: 2, u32: 4, i8: 1 };

/** Bytes of a tensor in GPU memory: float channels are padded to whole quads, with zeros. */
export function tensorBytes({ shape: [batch, height, width, channels], dtype }: Tensor): number {
  const padded = dtype === "u32" ? channels : quads(channels) * 4;
  return Math.ceil((batch * height * width * padded * ELEMENT_BYTES[dtype]) / 16) * 16;
}

/** Throws `unsupported` where the device's limits do not allow it. */
export function makePlan(graph: Graph, { caps, limits, weightType, share = true }: PlanOptions): Plan {
  // Scratch tensors are numbered after the graph's own.
  let nextId = 1 + Math.max(...Object.values(graph.inputs).map(({ id }) => id), ...graph.ops.map(({ y }) => y.id));
  const scratch = (name: string, shape: Shape, dtype: DType): Tensor => ({ id: nextId++, name, shape, dtype });
  const dispatches = graph.ops.flatMap((op) => dispatchesOf(op, { caps, weightType, scratch }));
  const weights = new Map<string, PackedWeight>();
  for (const { bindings } of dispatches)
    for (const bound of Object.values(bindings)) if ("key" in bound) weights.set(bound.key, bound);
  const { textDispatches, cached } = findTextDispatches(dispatches, graph);
  const [inputs, outputs] = [Object.values(graph.inputs), Object.values(graph.outputs)];
  const memory = placeTensors(dispatches, inputs, outputs, tensorBytes, limits.maxBufferBytes, { share, cached });
  const bound = dispatches.flatMap(({ bindings }) => Object.values(bindings).filter((one) => "id" in one));
  const planned = { name: graph.name, dispatches, weights: [...weights.values()], memory };
  assertWithinLimits({ ...planned, tensors: new Set([...bound, ...inputs, ...outputs]) }, caps, limits);
  return { ...planned, textDispatches, inputs: graph.inputs, outputs: graph.outputs, overrides: caps.overrides };
}

/** What depends on the text alone, and the results of it that the rest reads. */
function findTextDispatches(
  dispatches: readonly Dispatch[],
  { inputs, outputs }: Graph,
): { textDispatches: Set<Dispatch>; cached: Set<number> } {
  const textDispatches = new Set<Dispatch>();
  const cached = new Set<number>();
  const text = inputs[TEXT_INPUT];
  if (!text) return { textDispatches, cached };
  const known = new Set([text.id]);
  for (const dispatch of dispatches) {
    const { bindings, writes } = dispatch;
    const read = Object.entries(bindings).flatMap(([name, bound]) =>
      "id" in bound && !writes.includes(name) ? [bound.id] : [],
    );
    if (read.every((id) => known.has(id))) {
      textDispatches.add(dispatch);
      for (const name of writes) known.add((bindings[name] as Tensor).id);
    } else for (const id of read) if (id !== text.id && known.has(id)) cached.add(id);
  }
  for (const { id } of Object.values(outputs)) if (known.has(id)) cached.add(id);
  return { textDispatches, cached };
}

/** The pipeline a dispatch needs: equal keys, equal pipelines. It is the pipeline's label too. */
export function variantKey({ shader, defines, constants }: Dispatch, overrides: DeviceCaps["overrides"]): string {
  const list = (of: Readonly<Record<string, number | true>>): string =>
    Object.entries(of)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => (value === true ? name : `${name}=${value}`))
      .join(" ");
  return `${shader} [${list(defines)}]${overrides === "constants" ? ` (${list(constants)})` : ""}`;
}

/** One line a dispatch: position, shader, work, workgroups, where the result lies, path. */
export function describePlan(plan: Plan): string {
  const { placements, arenaBytes, cachedBytes } = plan.memory;
  const lines = plan.dispatches.map((dispatch, i) => {
    const written = dispatch.bindings[dispatch.writes[0]] as Tensor;
    const { arena, offset } = placements.get(written.id)!;
    const place = arena === CACHED ? `cache+${offset}` : `@${arena}+${offset}`;
    return [
      String(i).padStart(4),
      dispatch.shader.padEnd(18),
      `${(dispatch.work / 1e6).toFixed(2)}M`.padStart(10),
      dispatch.workgroups.join("x").padStart(12),
      `[${written.shape.join(",")}]`.padEnd(18),
      place.padEnd(12),
      dispatch.path,
    ].join(" ");
  });
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  const weightBytes = plan.weights.reduce((sum, { bytes }) => sum + bytes, 0);
  return [
    `${plan.name}: ${plan.dispatches.length} dispatches, ${new Set(plan.dispatches.map((dispatch) => variantKey(dispatch, plan.overrides))).size} pipelines, ` +
      `weights ${megabytes(weightBytes)}, arenas ${arenaBytes.map(megabytes).join(" + ")}` +
      (cachedBytes > 0 ? `, cached ${megabytes(cachedBytes)}` : ""),
    ...lines,
  ].join("\n");
}
