/**
 * Makes a pack of a model: its weights one tensor at a time, those of quantized layers as the GPU wants them, all others
 * as the engine would store them; and whatever else of the model is read to run it.
 */
import { MixdqError } from "../../base/errors.ts";
import {
  layerCodes,
  layerParameters,
  parametersShape,
  quantizedLayers,
  quantizeSource,
  type QuantizedLayer,
} from "../../kernels/quantized.ts";
import { writeMixdqConfig, type MixdqConfig } from "../../quant/config.ts";
import type { WeightBits } from "../../quant/formats.ts";
import type { QuantizedMatrix } from "../../quant/weights.ts";
import type { ModelFiles } from "../../weights/files.ts";
import { findComponent } from "../../weights/folder.ts";
import { PACK_FORMATS, type PackManifest } from "../../weights/packManifest.ts";
import { PackWriter, type PackSink } from "../../weights/packWriter.ts";
import type { ComponentGraphs } from "../../model/graphs.ts";
import { ROWS_TOGETHER, streamCheckpoint, union, type LoadedTensor } from "../../runtime/weightStream.ts";

export interface PackOptions {
  /** The model's name, for people. */
  readonly name: string;
  readonly files: ModelFiles;
  /** What to read of them besides weights, by path: configs and tokenizers. */
  readonly texts: ReadonlyMap<string, string>;
  /** In the order in which they are loaded; the UNet's graph is the quantized one. */
  readonly components: readonly ComponentGraphs[];
  readonly config: MixdqConfig;
  /** The text state of the BOS token, where the configuration wants a cache. */
  readonly bos: readonly Float32Array[];
  readonly sink: PackSink;
  /** Smaller shards than usual, for tests. */
  readonly shardBytes?: number;
  readonly signal?: AbortSignal | undefined;
  /** Bytes of the model's weights read so far, of all. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Where people put a model's licence, likeliest first. */
const LICENCES = ["LICENSE.md", "LICENSE", "LICENSE.txt"];
const CONFIG = "mixdq.json";

/** Weights that are quantized at a time: their floats take 16 MB. */
const CHUNK_WEIGHTS = 2 ** 22;

/** Throws `invalid-model` and what reading the model throws; what the sink has written by then is no pack. */
export async function writePack(options: PackOptions): Promise<PackManifest> {
  const { name, files, texts, components, config, bos, sink, shardBytes, signal, onProgress } = options;
  const found = await Promise.all(
    components.map(({ component }) => findComponent(files, component, { precision: "fp16", signal })),
  );
  const total = found.reduce((sum, { bytes }) => sum + bytes, 0);
  const writer = new PackWriter(sink, shardBytes);
  // They were read side by side, in whatever order the disk gave them: the same model makes the same pack.
  for (const path of [...texts.keys()].sort()) await writer.file(path, texts.get(path)!);
  await writer.file(CONFIG, writeMixdqConfig(config));
  const licence = await copyLicence(files, writer, signal);
  let before = 0;
  for (const [i, component] of components.entries()) {
    await writer.component(component.component);
    const weights = found[i]!;
    const onBytes = (loaded: number): void => onProgress?.(before + loaded, total);
    await packComponent(component, { ...component, weights, bos, signal, onBytes }, writer);
    before += weights.bytes;
  }
  return writer.finish({ model: name, config: CONFIG, licence, bos });
}

async function copyLicence(files: ModelFiles, writer: PackWriter, signal?: AbortSignal): Promise<string | null> {
  for (const path of LICENCES) {
    const text = await files.text(path, signal);
    if (text === undefined) continue;
    await writer.file(path, withoutMark(text));
    return path;
  }
  return null;
}

/** Fetching text drops a byte order mark, which would change its SHA-256. */
const withoutMark = (text: string): string => text.replace(/^\uFEFF/, "");

/** Files that remember the texts that were read from them: what a pack needs beside weights. */
export function rememberingFiles(files: ModelFiles): ModelFiles & { readonly texts: ReadonlyMap<string, string> } {
  const texts = new Map<string, string>();
  return {
    ...files,
    texts,
    async text(path, signal) {
      const text = await files.text(path, signal);
      if (text !== undefined) texts.set(path, withoutMark(text));
      return text;
    },
  };
}

async function packComponent(
  { component, storage, graphs }: ComponentGraphs,
  source: Parameters<typeof streamCheckpoint>[0],
  writer: PackWriter,
): Promise<void> {
  const graph = union(graphs);
  const layers = quantizedLayers(graph);
  // Under the name that the graph gives it, whatever the checkpoint does.
  const names = new Map(
    graph.weights.flatMap(({ name, aliases = [] }) => [name, ...aliases].map((alias) => [alias, name] as const)),
  );
  const weights = new Map(graph.weights.map((weight) => [weight.name, weight]));
  const missing = new Set(weights.keys());
  for await (const tensor of streamCheckpoint(source, graph)) {
    const name = names.get(tensor.name)!;
    const { shape, derivedFrom } = weights.get(name)!;
    checkShape(`${component}: ${tensor.name}`, tensor.shape, shape);
    if (!missing.delete(name)) continue;
    const layer = layers.get(name);
    if (layer) {
      await packLayer(layer, tensor, writer);
      continue;
    }
    // Matrices as they will be stored; vectors and the BOS cache as exact as they came.
    const isHalf = derivedFrom === undefined && (tensor.isHalf || (storage === "f16" && shape.length > 1));
    const values = tensor.values(isHalf ? "f16" : "f32");
    const unit = (values.byteLength / shape[0]!) * ROWS_TOGETHER;
    await writer.tensor({ name, format: isHalf ? "F16" : "F32", shape }, values, unit);
  }
  if (missing.size === 0) return;
  const some = [...missing].slice(0, 3).join(", ");
  const advice = "Weights and config do not belong together: take both from one model.";
  throw new MixdqError(
    "invalid-model",
    `${component}: ${missing.size} tensor(s) that config.json asks for are not in the weights: ${some}. ${advice}`,
  );
}

async function packLayer(layer: QuantizedLayer, tensor: LoadedTensor, writer: PackWriter): Promise<void> {
  const { path, weight, quantization, gated } = layer;
  const { name, shape } = weight;
  const matrices = quantizeInChunks(layer, tensor);
  const format = CODE_FORMATS[quantization.weight.bits];
  await writer.tensor({ name, format, shape }, layerCodes(matrices, weight, quantization, gated));
  const parameters = {
    name: `${path}.parameters`,
    format: "U32",
    shape: parametersShape(weight, quantization),
  } as const;
  await writer.tensor(parameters, layerParameters(matrices, weight, quantization, gated));
}

/** By bits, the format of codes. */
const CODE_FORMATS = { 8: "I8", 4: "U4", 3: "U3", 2: "U2" } as const satisfies Record<
  WeightBits,
  keyof typeof PACK_FORMATS
>;

/** `quantizeSource` of some rows at a time: rows know nothing of each other, and a large layer's floats are 118 MB. */
function quantizeInChunks({ weight, quantization }: QuantizedLayer, tensor: LoadedTensor): QuantizedMatrix[] {
  const [rows, ...rest] = weight.shape as [number, ...number[]];
  const perRow = rest.reduce((product, size) => product * size, 1);
  const chunk = Math.max(1, Math.floor(CHUNK_WEIGHTS / perRow));
  let whole: QuantizedMatrix[] = [];
  for (let first = 0; first < rows; first += chunk) {
    const count = Math.min(chunk, rows - first);
    const values = tensor.values("f32", { first, count }) as Float32Array;
    const some = quantizeSource(values, { ...weight, shape: [count, ...rest] }, quantization);
    if (count === rows) return some;
    if (first === 0) whole = some.map((matrix) => withRows(matrix, rows));
    some.forEach(({ codes, scale, zeroPoint, columns, groups }, half) => {
      whole[half]!.codes.set(codes, first * columns);
      whole[half]!.scale.set(scale, first * groups);
      whole[half]!.zeroPoint.set(zeroPoint, first * groups);
    });
  }
  return whole;
}

function withRows(matrix: QuantizedMatrix, rows: number): QuantizedMatrix {
  const { columns, groups } = matrix;
  return {
    ...matrix,
    rows,
    codes: new Int8Array(rows * columns),
    scale: new Float32Array(rows * groups),
    zeroPoint: new Float32Array(rows * groups),
  };
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
