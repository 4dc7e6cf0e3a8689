/** `mixdq quantize`: a model and a bit-width configuration -> a pack, which a page loads by copying. */
import { rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { DEFAULT_WEIGHTS, presetConfig, PRESETS, rangesOf } from "../mixdq/calibration/preset.ts";
import { setDebug } from "../base/debug.ts";
import { buildUNet, type UNetConfig, type UNetShape } from "../diffusion/unet.ts";
import { createRuntime } from "../runtime/backend.ts";
import { ModelGraphs, type ComponentGraphs } from "../model/graphs.ts";
import { loadFirstToken } from "../model/load.ts";
import { readModel, type ModelDescription } from "../model/description.ts";
import { rememberingFiles, writePack } from "../mixdq/pack/packing.ts";
import { configOfModel } from "../model/quantization.ts";
import { quantizeGraph } from "../graph/quantize.ts";
import type { Graph } from "../graph/ops.ts";
import { attachRanges, type MixdqConfig } from "../quant/config.ts";
import { importMixdqYaml } from "../quant/mixdqYaml.ts";
import { readFloats } from "../weights/convert.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findComponent } from "../weights/folder.ts";
import { openPack } from "../weights/pack.ts";
import type { PackSink } from "../weights/packWriter.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import { PRECISIONS } from "../base/choices.ts";
import { command } from "./command.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { nameOf, readText } from "../node/inputFiles.ts";
import { choice, required, tensor, text, type TensorName, type Values } from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { DEVICE_FLAGS, readConfig, readTensor, runFlags, type RunFlags } from "./options.ts";
import { withLock } from "../node/lock.ts";
import { makeFolder, targetOf, tell } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";
import { readCalibrationFile } from "./preset.ts";
import { describeDuration, progressBar } from "../node/progressBar.ts";
import { readUNet } from "./unet.ts";

const FLAGS = {
  model: modelFlag("a diffusers folder (or one with only unet/)"),
  out: required(
    text("PACK", "the folder to make: manifest.json, shards of 32 MiB, the model's configs"),
    "the folder to make the pack in",
  ),
  config: text("FILE", "which layers run in which bits: a mixdq.json, or weights.yaml as published with MixDQ"),
  "act-config": text("acts.yaml", "with weights.yaml: the bits of inputs, as published with MixDQ"),
  calibration: text("FILE", "ranges for weights.yaml and for --precision, as mixdq calibrate wrote them"),
  precision: choice(
    PRECISIONS,
    "w8a8 or w4a8 in place of --config: as mixdq preset does; without --calibration the model's mixdq.<precision>.json",
  ),
  "bos-state": tensor("for a folder with only unet/: the text state of the BOS token"),
  ...DEVICE_FLAGS,
};

export const quantize = command({
  name: "quantize",
  summary: "a model and a bit-width configuration become a pack, which a page loads by copying",
  flags: FLAGS,
  run: (flags) => withLock(flags.out, () => makePack(flags)),
});

async function makePack(flags: Values<typeof FLAGS>): Promise<void> {
  const run = runFlags({ ...flags, precision: undefined });
  setDebug(run.debug);
  const { out, model: folder } = flags;
  if (await stat(out).catch(() => undefined))
    throw invalidInput(
      `--out ${out}: is there already, expected a place for a new folder. Choose another, or delete it.`,
    );
  const source = await diskFiles(folder);
  if (await openPack(source))
    throw invalidInput(`--model ${folder}: is a pack already, expected the model to make one of.`);
  const files = rememberingFiles(source);
  const isWhole = (await source.text("model_index.json")) !== undefined;
  const model = isWhole ? await readModel(files) : undefined;
  const unet = model?.unet ?? (await readUNet(files));
  const [height, width] = unet.sampleSize;
  const shape = { batch: 1, height, width, tokens: model?.textEncoders[0]?.tokenizer.length ?? 77 };
  const config = await readQuantization(flags, source, buildUNet(unet, shape, "unet", "f32"));
  const components = model ? await allComponents(model, config, files) : [unetComponent(unet, shape, config)];
  // What contradicts itself shows before hours of work.
  for (const { graphs } of components) for (const graph of graphs) graph.build();

  const started = performance.now();
  const bos = config.bos ? [await bosState(flags["bos-state"], run, source, model, unet)] : [];
  const bar = progressBar("quantize", "MB");
  const manifest = await written(out, (sink) =>
    writePack({
      name: nameOf(folder),
      files: source,
      ...{ texts: files.texts, components, config, bos, sink },
      onProgress: (done, total) => bar.show(done / 1e6, Math.ceil(total / 1e6)),
    }),
  );
  bar.end();
  const bytes = manifest.shards.reduce((sum, shard) => sum + shard.bytes, 0);
  const integers = [...config.layers.values()].filter(({ weightBits }) => weightBits < 16).length;
  tell(
    `${out}: ${manifest.shards.length} shard(s), ${(bytes / 1e6).toFixed(1)} MB, ${integers} layers in integers; ` +
      describeDuration(performance.now() - started),
  );
}

/** Of a whole model, with the VAE's encoder where the weights have one: some are saved without. */
async function allComponents(
  model: ModelDescription,
  config: MixdqConfig,
  files: ModelFiles,
): Promise<readonly ComponentGraphs[]> {
  const graphs = new ModelGraphs(model, "w8a8", config);
  const encoder = graphs.encoderComponent();
  const weights = await findComponent(files, encoder.component, { precision: "fp16" });
  const isEncoders = (name: string): boolean => name.startsWith("encoder.");
  for await (const _ of weights.tensors({ wanted: isEncoders })) return [...graphs.components(), encoder];
  return graphs.components();
}

function unetComponent(unet: UNetConfig, shape: UNetShape, config: MixdqConfig): ComponentGraphs {
  const build = (): Graph => quantizeGraph(buildUNet(unet, shape, "unet", "f16"), config);
  return { component: "unet", storage: "f16", graphs: [{ key: "unet", build }] };
}

/** The configuration that the flags ask for. Throws `invalid-input` where they do not say enough. */
async function readQuantization(flags: Values<typeof FLAGS>, files: ModelFiles, graph: Graph): Promise<MixdqConfig> {
  const { config: file, "act-config": acts, calibration: calibrationFile, precision } = flags;
  const calibration = async () => {
    if (calibrationFile === undefined)
      throw invalidInput(
        "--calibration is missing: the published bit-widths have no scales; the calibration.json of this model gives them.",
      );
    return readCalibrationFile(calibrationFile);
  };
  if (acts !== undefined && !isYaml(file)) throw invalidInput("--act-config: goes with --config weights.yaml.");
  if (file !== undefined && precision !== undefined)
    throw invalidInput(`--precision ${precision}: --config says the bits already. Leave one of them out.`);
  if (isYaml(file)) {
    const bits = importMixdqYaml(
      await readText(file, { flag: "--config" }),
      acts && (await readText(acts, { flag: "--act-config" })),
    );
    const ranges = await calibration();
    return {
      model: ranges.model,
      weights: DEFAULT_WEIGHTS,
      bos: ranges.bos,
      layers: attachRanges(bits, rangesOf(ranges, "minmax")),
      averageWeightBits: undefined,
      provenance: { made: "import", weightBits: nameOf(file), ...(acts && { actBits: nameOf(acts) }) },
    };
  }
  if (file !== undefined) {
    if (calibrationFile !== undefined)
      throw invalidInput(`--calibration ${calibrationFile}: ${file} has its scales already. Leave it out.`);
    return (await readConfig(flags))!;
  }
  if (precision !== "w8a8" && precision !== "w4a8")
    throw invalidInput(
      `${precision === undefined ? "--config is missing" : `--precision ${precision}`}: expected --config mixdq.json, or ` +
        "--precision w8a8 or w4a8 with --calibration calibration.json.",
    );
  if (calibrationFile === undefined) return (await configOfModel(files, precision))!;
  return presetConfig(quantizableLayers(graph), await calibration(), PRESETS[precision]);
}

const isYaml = (file: string | undefined): file is string => file !== undefined && /\.ya?ml$/i.test(file);

/** The text state of the BOS token: what the model's text encoders make of "", or a row of a file. [channels] */
async function bosState(
  source: TensorName | undefined,
  run: RunFlags,
  files: ModelFiles,
  model: ModelDescription | undefined,
  unet: UNetConfig,
): Promise<Float32Array> {
  if (source !== undefined) return readBosState(source, unet.crossAttentionDim);
  if (!model)
    throw invalidInput(
      `${files.location} has no text encoders, whose first state the configuration's BOS cache ("bos": true) is made of. ` +
        "Give it with --bos-state FILE#KEY, a tensor of a safetensors file such as encoder_hidden_states.",
    );
  const runtime = await createRuntime({ ...run, gpu: await requestNodeGpu(run.adapter) });
  try {
    return await loadFirstToken(model, runtime, { files, precision: "w8a8" });
  } finally {
    await runtime.dispose();
  }
}

/** The first `channels` numbers of a tensor [..., channels]: row 0 of a text is the BOS token. */
async function readBosState(source: TensorName, channels: number): Promise<Float32Array> {
  const { where } = source;
  const tensor = await readTensor(source);
  if (tensor.shape.at(-1) !== channels)
    throw invalidInput(`${where}: got shape [${tensor.shape.join(", ")}], expected [..., ${channels}].`);
  const state = readFloats(tensor, where).slice(0, channels);
  if (state.length < channels || !state.every(Number.isFinite))
    throw invalidInput(`${where}: expected finite numbers.`);
  return state;
}

/** The folder whole or not at all: written beside it, then renamed. */
async function written<T>(out: string, write: (sink: PackSink) => Promise<T>): Promise<T> {
  const target = await targetOf(out);
  const aside = `${target}.partial`;
  const made = new Set<string>();
  try {
    await rm(aside, { recursive: true, force: true }); // of a run that was killed
    await makeFolder(aside);
    const result = await write({
      async write(name, bytes) {
        const file = path.join(aside, name);
        const folder = path.dirname(file);
        if (!made.has(folder)) await makeFolder(folder);
        made.add(folder);
        await writeFile(file, bytes).catch((error: Error) => {
          throw invalidInput(`--out ${out} cannot be written: ${error.message}. Choose another place.`);
        });
      },
    });
    await rename(aside, target);
    return result;
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    throw invalidInput(`--out ${out} cannot be written: ${(error as Error).message}. Choose another place.`);
  }
}
