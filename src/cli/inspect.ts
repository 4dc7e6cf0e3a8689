/** `mixdq inspect`: what a model, one of its files, or a file of tensors holds. */
import { open, stat } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { elementCount, type Graph } from "../graph/ops.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { buildVaeDecoder } from "../diffusion/vae.ts";
import { readModel } from "../engine/model.ts";
import { buildTextEncoder } from "../text/encoder.ts";
import { readSafetensorsHeader } from "../weights/safetensors.ts";
import { diskFiles } from "./diskFiles.ts";
import { invalid, readFlags } from "./options.ts";

export const INSPECT_USAGE = `mixdq inspect PATH
  PATH                  a diffusers folder, or a .safetensors file`;

export async function inspect(args: readonly string[]): Promise<void> {
  const { positionals } = readFlags(args, {}, 1);
  const [target] = positionals;
  if (target === undefined) throw invalid("inspect needs a path: a diffusers folder or a .safetensors file.");
  const info = await stat(target).catch(() => undefined);
  if (!info) throw invalid(`${target}: no such file or folder.`);
  if (info.isDirectory()) return inspectModel(target);
  if (target.endsWith(".safetensors")) return inspectTensors(target, info.size);
  throw invalid(`${target}: expected a diffusers folder or a .safetensors file.`);
}

async function inspectModel(folder: string): Promise<void> {
  const model = await readModel(await diskFiles(folder));
  const { unet, vae } = model;
  const [height, width] = unet.sampleSize;
  const shape = { batch: 1, height, width, tokens: model.textEncoders[0]!.tokenizer.length };
  print([
    ["model", path.resolve(folder)],
    ["pipeline", model.pipeline],
    ["scheduler", `${model.schedulerName}, ${model.defaultSteps} step(s) by default`],
    ["picture", `${model.defaultWidth} x ${model.defaultHeight} by default`],
    ...model.textEncoders.map(({ component, config, projects, tokenizer }): Row => [
      component,
      summary(buildTextEncoder(config, { batch: 1, state: model.textState, projects }, "f32")),
      `${tokenizer.length} tokens, pad ${tokenizer.padId}`,
    ]),
    ["unet", summary(buildUNet(unet, shape, "unet", "f16")), `channels ${unet.blockOutChannels.join(", ")}`],
    ["vae", summary(buildVaeDecoder(vae, { batch: 1, height, width }, "f16")), `${vae.kind}, decoder only`],
  ]);
}

type Row = readonly [name: string, value: string, note?: string];

function summary(graph: Graph): string {
  const parameters = graph.weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const layers = graph.ops.reduce(
    (sum, op) => sum + (op.kind === "linear" ? op.parts.length : op.kind === "conv2d" ? 1 : 0),
    0,
  );
  return `${parameters.toLocaleString("en")} parameters, ${layers} linear and convolution layers`;
}

async function inspectTensors(file: string, bytes: number): Promise<void> {
  const handle = await open(file);
  try {
    const body = Readable.toWeb(handle.createReadStream({ autoClose: false })) as ReadableStream<Uint8Array>;
    const { tensors, metadata } = await readSafetensorsHeader({ bytes, body }, file);
    print([
      ...Object.entries(metadata).map(([key, value]): Row => [key, value]),
      ...tensors.map(({ name, dtype, shape }): Row => [name, dtype, `[${shape.join(", ")}]`]),
      [`${tensors.length} tensors`, `${bytes.toLocaleString("en")} bytes`],
    ]);
  } finally {
    await handle.close();
  }
}

function print(rows: readonly Row[]): void {
  const width = (column: 0 | 1): number =>
    Math.max(...rows.filter((r) => r.length > column + 1).map((r) => r[column]!.length));
  const [names, values] = [width(0), width(1)];
  for (const [name, value, note] of rows)
    console.log(`${name.padEnd(names)}  ${note ? `${value.padEnd(values)}  ${note}` : value}`);
}
