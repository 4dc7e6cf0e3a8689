/** `mixdq inspect`: what a model, a file of tensors, or a file about quantizing holds. */
import { open, stat } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { readCalibration } from "../../mixdq/calibration/file.ts";
import { quantizableLayers } from "../../mixdq/calibration/layers.ts";
import { elementCount, type Graph } from "../../graph/ops.ts";
import { buildUNet } from "../../diffusion/unet.ts";
import { buildVaeDecoder } from "../../diffusion/vae.ts";
import { readModel } from "../../model/description.ts";
import { parseMixdqConfig } from "../../quant/config.ts";
import { buildTextEncoder } from "../../text/encoder.ts";
import { openPack } from "../../weights/pack.ts";
import { readSafetensorsHeader } from "../../weights/safetensors.ts";
import { checkpointFiles } from "../../checkpoint/files.ts";
import { namesWeights } from "../../checkpoint/open.ts";
import { diskFile, diskFiles } from "../../node/diskFiles.ts";
import { readText } from "../../node/inputFiles.ts";
import { describeCalibration, describeConfig, type Row } from "./inspectQuantization.ts";
import { describeCheckpoint, missingParts } from "./inspectCheckpoint.ts";
import { describePack } from "./inspectPack.ts";
import { command } from "../command.ts";
import { text, toggle, type Values } from "../flags.ts";
import { PART_FLAGS, readFiles } from "../options.ts";
import type { ModelFiles } from "../../weights/files.ts";
import { invalidInput } from "../../base/errors.ts";
import { readJson } from "../../base/json.ts";
import { printable } from "../../base/printable.ts";
import { readUNet } from "../unet.ts";

export const inspect = command({
  name: "inspect",
  summary: "what a model, a file of tensors, or a file about quantizing holds",
  positionals: {
    placeholder: "PATH",
    help: "a diffusers folder, a pack (whose every byte is checked), a .safetensors file, a mixdq.json or a calibration.json",
    most: 1,
  },
  flags: {
    model: text("DIR", "with a mixdq.json: the model it is for, to count weights by"),
    tensors: toggle("of a .safetensors file that is a model: its tensors, instead of what it is"),
    ...PART_FLAGS,
  },
  run: (flags, [target]) => inspectPath(target, flags),
});

/** A tensor's name has at most 1024 characters; metadata may hold whole files. */
const MAX_CELL = 1024;

type InspectFlags = Values<typeof PART_FLAGS> & { readonly model: string | undefined; readonly tensors: boolean };

async function inspectPath(target: string | undefined, { model, tensors, ...parts }: InspectFlags): Promise<void> {
  if (target === undefined)
    throw invalidInput(
      "inspect needs a path: a diffusers folder, a .safetensors file, a mixdq.json or a calibration.json.",
    );
  const info = await stat(target).catch(() => undefined);
  if (!info) throw invalidInput(`${target}: no such file or folder.`);
  if (info.isDirectory()) {
    const pack = await openPack(await diskFiles(target));
    return pack ? print(await describePack(pack)) : inspectModel(target, await readFiles(target, parts));
  }
  if (!target.endsWith(".json") && namesWeights(target)) {
    if (tensors) return inspectTensors(target, info.size);
    return (await isCheckpoint(target)) ? inspectCheckpoint(target, parts) : inspectTensors(target, info.size);
  }
  if (target.endsWith(".json")) return inspectJson(target, model);
  throw invalidInput(
    `${target}: expected a diffusers folder or a .safetensors file, or a mixdq.json or a calibration.json.`,
  );
}

async function inspectJson(file: string, model: string | undefined): Promise<void> {
  const content = await readText(file);
  const source = { where: file, code: "invalid-input", advice: "Choose one of these." } as const;
  const what = "a mixdq.json or a calibration.json";
  const format = readJson(content, source, { most: content.length, what }).get("format");
  switch (format.oneOf(["mixdq-config", "mixdq-calibration"])) {
    case "mixdq-config":
      return print(
        describeConfig(parseMixdqConfig(content, file), model === undefined ? undefined : await weightsOf(model)),
      );
    case "mixdq-calibration":
      return print(describeCalibration(readCalibration(content, file)));
  }
}

/** Every quantizable layer of a model's UNet and how many weights it has. */
async function weightsOf(folder: string): Promise<ReadonlyMap<string, number>> {
  const unet = await readUNet(await diskFiles(folder));
  const [height, width] = unet.sampleSize;
  const graph = buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32");
  return new Map(quantizableLayers(graph).map(({ path, weights }) => [path, weights]));
}

/** A file of tensors that belongs to no model (latents, inputs, activations) is listed; a pickle is refused. */
async function isCheckpoint(file: string): Promise<boolean> {
  if (!/\.(safetensors|sft)$/i.test(file)) return true;
  const { files, path: name } = diskFile(file);
  const { tensors } = await readSafetensorsHeader((await files.open(name))!, file);
  return tensors.some(({ name }) => /^(model\.diffusion_model\.|input_blocks\.0\.0\.)/.test(name));
}

async function inspectCheckpoint(file: string, parts: Values<typeof PART_FLAGS>): Promise<void> {
  const checkpoint = await checkpointFiles(diskFile(file));
  print(describeCheckpoint(checkpoint));
  const given = parts.vae !== undefined || parts["text-encoder"] !== undefined;
  if (missingParts(checkpoint.contents).length === 0 || given) await inspectModel(file, await readFiles(file, parts));
}

async function inspectModel(folder: string, files: ModelFiles): Promise<void> {
  const model = await readModel(files);
  const { unet, vae } = model;
  const [height, width] = unet.sampleSize;
  const shape = { batch: 1, height, width, tokens: model.textEncoders[0].tokenizer.length };
  print([
    ["model", path.resolve(folder)],
    ["pipeline", model.pipeline],
    [
      "scheduler",
      `${model.schedulerName}, ${model.defaultSteps} step(s) and guidance ${model.defaultGuidanceScale} by default`,
    ],
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
      ...Array.from(metadata, ([key, value]): Row => [key, value]),
      ...tensors.map(({ name, dtype, shape }): Row => [name, dtype, `[${shape.join(", ")}]`]),
      [`${tensors.length} tensors`, `${bytes.toLocaleString("en")} bytes`],
    ]);
  } finally {
    await handle.close();
  }
}

/** Names and values come from an untrusted file, and a terminal obeys escape sequences. */
function print(rows: readonly Row[]): void {
  const cells = rows.map((row) => row.map((cell) => printable(cell ?? "", MAX_CELL)));
  const width = (column: 0 | 1): number =>
    cells.reduce((most, row) => (row.length > column + 1 ? Math.max(most, row[column].length) : most), 0);
  const [names, values] = [width(0), width(1)];
  for (const [name, value, note] of cells)
    console.log(`${name!.padEnd(names)}  ${note ? `${value!.padEnd(values)}  ${note}` : value}`);
}
