/** A component's tensors as its graph wants them, whatever runs the graph. */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import type { Graph } from "../graph/ops.ts";
import { configuredRounding, quantizedLayers, quantizeLayer, type RoundingOf } from "../kernels/quantized.ts";
import { parametersShape } from "../kernels/words.ts";
import { nameMap } from "../graph/names.ts";
import type { QuantizedMatrix, RowRange } from "../quant/matrix.ts";
import { adapterAttached, isAdapterTensor } from "../weights/adapters.ts";
import { toFloat16, toFloat32 } from "../weights/convert.ts";
import { folderOf, type ComponentWeights } from "../weights/folder.ts";
import type { PackedComponent } from "../weights/pack.ts";
import { PACK_FORMATS } from "../weights/packManifest.ts";
import type { KeyedGraph, LoadOptions } from "./network.ts";

/** The floats of a weight that the graph wants, from a checkpoint or a pack. */
export interface LoadedFloats {
  /** The weight's name in the graph. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether 16-bit floats hold its values exactly. */
  readonly isHalf: boolean;
  /** Which rows these are, of a weight that comes in parts. */
  readonly rows?: RowRange;
  /** In the checkpoint's order. */
  values(dtype: "f32" | "f16"): Float32Array | Uint16Array;
}

/** A weight that the graph wants in integers, from the floats of a checkpoint. */
export interface LoadedMatrix {
  readonly name: string;
  /** As the checkpoint's floats. */
  readonly isHalf: boolean;
  /** Rounds it. Throws as `quantizeMatrix`. */
  matrix(): QuantizedMatrix;
}

/** A part of an integer weight as a pack holds it, ready for the GPU: words `first` .. of `total`. */
export interface LoadedWords {
  /** The weight's name in the graph. */
  readonly name: string;
  readonly kind: "codes" | "parameters";
  readonly words: Uint32Array;
  readonly first: number;
  readonly total: number;
}

export type Loaded = LoadedFloats | LoadedMatrix | LoadedWords;

/**
 * The layers of each component. A checkpoint that holds one of them which the graph does not read belongs to another
 * config.json, and would make a wrong picture without a word. Everything else (a VAE's encoder, position_ids) may be there.
 */
const LAYERS: Readonly<Record<string, RegExp>> = {
  unet: /^(down_blocks|mid_block|up_blocks|time_embedding|add_embedding|class_embedding|encoder_hid_proj)\./,
  vae: /^(decoder|post_quant_conv)\./,
  vae_encoder: /^(encoder|quant_conv)\./,
  text_encoder: /^(text_model\.)?encoder\.layers\./,
  text_encoder_2: /^(text_model\.)?encoder\.layers\./,
};

function refuseUnread(component: string, name: string): false {
  if (isAdapterTensor(name)) throw adapterAttached(component, name);
  if (!LAYERS[component]?.test(name)) return false;
  throw new MixdqError(
    "invalid-model",
    `${component}: the weights have ${name}, ${folderOf(component)}/config.json describes no such layer. Weights and config do not ` +
      `belong together: take both from one model.`,
  );
}

/** What of graphs says which weights they read, and how those are stored. */
export type Wanted = Pick<Graph, "weights" | "ops">;

/** Several graphs over one component, whose weights are to be loaded together, each once. */
export function union(graphs: readonly KeyedGraph[]): Wanted {
  const built = graphs.map((graph) => graph.build());
  const weights = new Map(built.flatMap(({ weights }) => weights.map((weight) => [weight.name, weight] as const)));
  return { weights: [...weights.values()], ops: built.flatMap(({ ops }) => ops) };
}

/** Everything that `graph` wants, in the order in which it is stored, one at a time. */
export function streamWeights(options: LoadOptions, graph: Wanted): AsyncGenerator<Loaded, void, undefined> {
  const { weights } = options;
  return "parts" in weights
    ? streamPack({ ...options, weights }, graph)
    : streamCheckpoint({ ...options, weights }, graph);
}

type From<Weights> = Pick<LoadOptions, "component" | "bos" | "signal" | "onBytes"> & { readonly weights: Weights };

/**
 * Every weight that a graph wants of a checkpoint, in the files' order, one at a time; a second tensor for one weight, under
 * an older name, is passed over. Throws `invalid-model` for a tensor of another shape, and for layers that the graph lacks.
 */
export async function* streamCheckpoint(
  { component, weights, bos = [], signal, onBytes }: From<ComponentWeights>,
  graph: Wanted,
  roundingOf: RoundingOf = configuredRounding,
): AsyncGenerator<LoadedFloats | LoadedMatrix, void, undefined> {
  const derived = new Map(
    graph.weights.flatMap((weight) => (weight.derivedFrom ? [[weight.derivedFrom, weight] as const] : [])),
  );
  const names = nameMap(graph.weights.filter(({ derivedFrom }) => derivedFrom === undefined));
  const layers = quantizedLayers(graph);
  const missing = new Set(names.values());
  let loaded = 0;
  for await (const { name: stored, dtype, shape, bytes } of weights.tensors({
    signal,
    wanted: (name) => names.has(name) || refuseUnread(component, name),
    onBytes: (bytes, file) => onBytes?.((loaded += bytes), file),
  })) {
    throwIfAborted(signal);
    const weight = names.get(stored)!;
    if (!missing.delete(weight)) continue;
    const { name } = weight;
    checkShape(`${component} ${stored}`, shape, weight.shape);
    const isHalf = dtype === "F16";
    const rowBytes = bytes.length / shape[0];
    const layer = layers.get(name);
    if (layer)
      yield {
        name,
        isHalf,
        matrix: () => {
          const rows = ({ first, count }: RowRange): Float32Array =>
            toFloat32(bytes.subarray(first * rowBytes, (first + count) * rowBytes), dtype);
          return quantizeLayer(layer, rows, roundingOf(layer));
        },
      };
    else
      yield {
        name,
        shape,
        isHalf,
        values: (type) =>
          type === "f16" ? toFloat16(bytes, dtype, `${component}/${stored}`) : toFloat32(bytes, dtype),
      };
    const cache = derived.get(name);
    if (!cache) continue;
    checkShape(`${component} ${cache.name}`, [bos.length, shape[0]], cache.shape);
    yield {
      name: cache.name,
      shape: cache.shape,
      isHalf,
      values: () => firstTokenProducts(toFloat32(bytes, dtype), bos),
    };
  }
}

/** Equal, but for ones at the end: a 1x1 convolution's weight is as good as a linear layer's. */
function checkShape(where: string, got: readonly number[], expected: readonly number[]): void {
  const trimmed = (shape: readonly number[]): string => shape.join(",").replace(/(,1)+$/, "");
  if (trimmed(got) === trimmed(expected)) return;
  const advice = "Weights and config do not belong together: take both from one model.";
  throw new MixdqError(
    "invalid-model",
    `${where}: the file has shape [${got.join(", ")}], config.json asks for [${expected.join(", ")}]. ${advice}`,
  );
}

/** Every tensor of a pack, which must be what the graph wants. */
async function* streamPack(
  { component, weights, signal, onBytes }: From<PackedComponent>,
  graph: Wanted,
): AsyncGenerator<LoadedFloats | LoadedWords, void, undefined> {
  const names = new Map(graph.weights.map((weight) => [weight.name, weight]));
  const layers = quantizedLayers(graph);
  let loaded = 0;
  const report = (bytes: number, file: string): void => onBytes?.((loaded += bytes), file);
  for await (const { tensor, from, bytes } of weights.parts({ signal, onBytes: report })) {
    throwIfAborted(signal);
    const { name, format, shape } = tensor;
    const isParameters = format === "U32";
    const weight = names.get(isParameters ? name.replace(/\.parameters$/, ".weight") : name);
    const expectThat = (condition: boolean, got: string, expected: string): void => {
      if (condition) return;
      const advice = "The pack's tensors, configuration and configs do not belong together: write it again.";
      throw new MixdqError("invalid-model", `${component}: ${name}: got ${got}, expected ${expected}. ${advice}`);
    };
    if (weight === undefined)
      return expectThat(false, "this tensor", `only those of ${folderOf(component)}/config.json`);
    const layer = layers.get(weight.name);
    const wanted = isParameters && layer ? parametersShape(weight, layer.quantization) : weight.shape;
    const isSame = shape.length === wanted.length && shape.every((size, axis) => size === wanted[axis]);
    expectThat(isSame, `shape [${shape.join(", ")}]`, `[${wanted.join(", ")}]`);

    const described = PACK_FORMATS[format];
    if (isParameters || "bits" in described) {
      const bits = layer?.quantization.weight.bits;
      const isWanted = bits !== undefined && (isParameters || ("bits" in described && described.bits === bits));
      expectThat(isWanted, format, bits === undefined ? "F16 or F32: the layer is not quantized" : `${bits} bits`);
      const isWords = tensor.bytes % 4 === 0 && bytes.length % 4 === 0;
      expectThat(isWords, `${bytes.length} of ${tensor.bytes} bytes`, "whole words");
      const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
      const kind = isParameters ? "parameters" : "codes";
      yield { name: weight.name, kind, words, first: from / 4, total: tensor.bytes / 4 };
    } else {
      expectThat(layer === undefined, format, `${layer?.quantization.weight.bits} bits`);
      const dtype = format as "F16" | "F32";
      const rowBytes = tensor.bytes / shape[0];
      const rows = { first: from / rowBytes, count: bytes.length / rowBytes };
      const isCutWell = rows.first % ROWS_TOGETHER === 0 && Number.isInteger(rows.count);
      expectThat(isCutWell, `a part from row ${rows.first} on`, `parts of ${ROWS_TOGETHER} rows`);
      yield {
        name,
        shape,
        isHalf: dtype === "F16",
        ...(bytes.length < tensor.bytes && { rows }),
        values: (type) => (type === "f16" ? toFloat16(bytes, dtype, `${component}/${name}`) : toFloat32(bytes, dtype)),
      };
    }
  }
}

/** Layouts may interleave rows by fours: a tensor is cut between such. */
export const ROWS_TOGETHER = 4;

/** W e of every state e: weight [N, K], states [K] -> [states, N]. In f64, once, for all pictures. */
export function firstTokenProducts(weight: Float32Array, states: readonly Float32Array[]): Float32Array {
  const k = states[0].length;
  const n = weight.length / k;
  return Float32Array.from({ length: states.length * n }, (_, i) => {
    const state = states[Math.floor(i / n)];
    let sum = 0;
    for (let c = 0, at = (i % n) * k; c < k; c++, at++) sum += weight[at] * state[c];
    return sum;
  });
}
