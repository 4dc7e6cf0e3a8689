/**
 * Makes a pack of a model: its weights one tensor at a time, those of quantized layers as the GPU wants them, all others
 * as the engine would store them; and whatever else of the model is read to run it.
 */
import { MixdqError } from "../../base/errors.ts";
import { quantizedLayers, type QuantizedLayer } from "../../kernels/quantized.ts";
import { layerCodes, layerParameters, parametersShape } from "../../kernels/words.ts";
import { writeMixdqConfig, type MixdqConfig } from "../../quant/config.ts";
import type { WeightBits } from "../../quant/formats.ts";
import type { QuantizedMatrix } from "../../quant/matrix.ts";
import type { ModelFiles } from "../../weights/files.ts";
import { findComponent } from "../../weights/folder.ts";
import { PACK_FORMATS, type PackManifest } from "../../weights/packManifest.ts";
import { PackWriter, type PackSink } from "../../weights/packWriter.ts";
import type { Lora } from "../../lora/read.ts";
import { mergeLoras } from "../../model/adapters.ts";
import type { ComponentGraphs } from "../../model/graphs.ts";
import { ROWS_TOGETHER, streamCheckpoint, union } from "../../runtime/weightStream.ts";

export interface PackOptions {
  /** The model's name, for people. */
  readonly name: string;
  readonly files: ModelFiles;
  /** What to read of them besides weights, by path: configs and tokenizers. */
  readonly texts: ReadonlyMap<string, string>;
  /** In the order in which they are loaded; the UNet's graph is the quantized one. */
  readonly components: readonly ComponentGraphs[];
  readonly config: MixdqConfig;
  /** Merged into the weights before these are quantized. */
  readonly loras?: readonly Lora[];
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

/** Throws `invalid-model` and what reading the model throws; what the sink has written by then is no pack. */
export async function writePack(options: PackOptions): Promise<PackManifest> {
  const { name, files, texts, components, config, loras = [], bos, sink, shardBytes, signal, onProgress } = options;
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
    const weights = mergeLoras(found[i], component, loras);
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
  const weights = new Map(graph.weights.map((weight) => [weight.name, weight]));
  const missing = new Set(weights.keys());
  for await (const loaded of streamCheckpoint(source, graph)) {
    const { name } = loaded;
    missing.delete(name);
    if ("matrix" in loaded) {
      await packLayer(layers.get(name)!, loaded.matrix(), writer);
      continue;
    }
    // Matrices as they will be stored; vectors and the BOS cache as exact as they came.
    const { shape, derivedFrom } = weights.get(name)!;
    const isHalf = derivedFrom === undefined && (loaded.isHalf || (storage === "f16" && shape.length > 1));
    const values = loaded.values(isHalf ? "f16" : "f32");
    const unit = (values.byteLength / shape[0]) * ROWS_TOGETHER;
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

/** A layer in integers: its codes, then its scales and zero points. */
async function packLayer(layer: QuantizedLayer, matrix: QuantizedMatrix, writer: PackWriter): Promise<void> {
  const { path, weight, quantization } = layer;
  const { name, shape } = weight;
  await writer.tensor({ name, format: CODE_FORMATS[matrix.bits], shape }, layerCodes(matrix, layer));
  const parameters = {
    name: `${path}.parameters`,
    format: "U32",
    shape: parametersShape(weight, quantization),
  } as const;
  await writer.tensor(parameters, layerParameters(matrix, layer));
}

/** By bits, the format of codes. */
const CODE_FORMATS = { 8: "I8", 4: "U4", 3: "U3", 2: "U2" } as const satisfies Record<
  WeightBits,
  keyof typeof PACK_FORMATS
>;
