/** `mixdq unet`: the UNet alone, from tensors in a file to a tensor in a file. */
import { createRuntime } from "../runtime/backend.ts";
import { quantizedStorage, STORAGE, type KeyedGraph } from "../runtime/network.ts";
import { Config } from "../base/config.ts";
import { MixdqError, invalidInput } from "../base/errors.ts";
import { setDebug } from "../base/debug.ts";
import { buildUNet, readUNetConfig, type UNetConfig, type UNetShape } from "../diffusion/unet.ts";
import { bosOfPack, checkFirstTokens, chooseQuantization } from "../model/quantization.ts";
import { quantizeGraph } from "../graph/quantize.ts";
import type { Graph } from "../graph/ops.ts";
import { joined, split, toChannelsFirst, toChannelsLast } from "../model/layout.ts";
import { addedEmbeddings, projectTime } from "../model/unet.ts";
import { readFloats } from "../weights/convert.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findComponent, readJson } from "../weights/folder.ts";
import { openPack } from "../weights/pack.ts";
import { writeSafetensors, type StoredTensor } from "../weights/safetensors.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import { command } from "./command.ts";
import { required, text, type Values } from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { PART_FLAGS, readConfig, readFiles, readTensors, RUN_FLAGS, runFlags } from "./options.ts";
import { assertWritable, writeWhole, tell } from "../node/outputFiles.ts";

const FLAGS = {
  model: modelFlag("a diffusers folder (or one with only unet/), a single .safetensors file, or a pack"),
  ...PART_FLAGS,
  inputs: required(
    text(
      "FILE",
      "safetensors: sample [B, C, h, w], timestep [B] or [1], encoder_hidden_states [B, T, C] (row 0 is the BOS token, " +
        "where layers run in integers); SDXL: text_embeds [B, C], time_ids [B, 6]; LCM: timestep_cond [B, C]",
    ),
    "a safetensors file with the UNet's inputs",
  ),
  out: required(text("FILE", "the safetensors file to write"), "the safetensors file to write"),
  ...RUN_FLAGS,
};

export const unet = command({
  name: "unet",
  summary: "the UNet alone: out_sample [B, C, h, w], F32, of given inputs",
  flags: FLAGS,
  run: runUNet,
});

async function runUNet({ model, inputs: source, out, ...flags }: Values<typeof FLAGS>): Promise<void> {
  const run = runFlags(flags);
  setDebug(run.debug);
  await assertWritable(out);
  const tensors = await readTensors(source);
  const folder = await readFiles(model, flags);
  const pack = await openPack(folder);
  const { files } = pack ?? { files: folder };
  const config = await readUNet(files);
  const { shape, inputs } = unetInputs(config, tensors, source);

  const asked = { precision: flags.precision, config: await readConfig(flags) };
  const { precision, config: quantization } = await chooseQuantization(files, pack, asked);
  if (quantization && run.backend !== "webgpu")
    throw invalidInput(`--backend ${run.backend} has no integer kernels: use webgpu, or leave out --config.`);

  const runtime = await createRuntime({
    ...run,
    gpu: run.backend === "webgpu" ? await requestNodeGpu(run.adapter) : undefined,
  });
  const { weights: storage, activations } = quantization ? quantizedStorage(precision) : STORAGE[precision];
  const weights = pack?.component("unet") ?? (await findComponent(files, "unet", { precision }));
  const cached = pack && bosOfPack(pack, quantization, config.crossAttentionDim);
  if (cached) checkFirstTokens(inputs["encoder_hidden_states"], shape.batch, cached);
  const bos = cached ?? firstTokens(inputs["encoder_hidden_states"], shape);
  const build = (): Graph => {
    const graph = buildUNet(config, shape, "unet", activations);
    return quantization ? quantizeGraph(graph, quantization, { bosImages: bos.length }) : graph;
  };
  const graph: KeyedGraph = { key: "unet", build };
  const network = await runtime.load({ component: "unet", weights, storage, bos, graphs: [graph] });
  const { out_sample: output } = await network.run(graph, inputs);
  const { batch, height, width } = shape;
  const image = { channels: config.outChannels, height, width };
  const data = joined(split(output!, batch).map((values) => toChannelsFirst(values, image)));
  if (!data.every(Number.isFinite))
    throw new MixdqError(
      "invalid-output",
      `The UNet's output is not finite in ${precision}. ` +
        (precision === "fp16" ? "Try --precision fp32." : "The weights are damaged: download them again."),
    );
  await writeWhole(
    out,
    writeSafetensors({ out_sample: { dtype: "F32", shape: [batch, config.outChannels, height, width], data } }),
  );
  tell(
    `${out}: out_sample [${[batch, config.outChannels, height, width].join(", ")}], ${precision} on ${runtime.adapter}`,
  );
}

/** Row 0 of the text [batch, tokens, channels] of every image. */
export function firstTokens(text: Float32Array, { batch, tokens }: UNetShape): Float32Array[] {
  const channels = text.length / (batch * tokens);
  return Array.from({ length: batch }, (_, image) =>
    text.subarray(image * tokens * channels, (image * tokens + 1) * channels),
  );
}

export async function readUNet(files: ModelFiles): Promise<UNetConfig> {
  return readUNetConfig(new Config("unet/config.json", await readJson(files, "unet/config.json")));
}

/** Checks every tensor against the config and the others; one timestep may serve a whole batch. */
export function unetInputs(config: UNetConfig, tensors: ReadonlyMap<string, StoredTensor>, where: string) {
  const take = (
    name: string,
    expected: readonly (number | string)[],
  ): { shape: readonly number[]; data: Float32Array } => {
    const tensor = tensors.get(name);
    if (!tensor)
      throw invalidInput(
        `${where}: no tensor "${name}" [${expected.join(", ")}]; the file has ${[...tensors.keys()].join(", ")}.`,
      );
    const fits =
      tensor.shape.length === expected.length &&
      expected.every((size, i) => (typeof size === "string" ? tensor.shape[i] > 0 : size === tensor.shape[i]));
    if (!fits)
      throw invalidInput(
        `${where}: "${name}" has shape [${tensor.shape.join(", ")}], expected [${expected.join(", ")}].`,
      );
    return { shape: tensor.shape, data: finite(tensor, name) };
  };
  const finite = (tensor: StoredTensor, name: string): Float32Array => {
    const data = readFloats(tensor, `${where} ${name}`);
    const broken = data.findIndex((value) => !Number.isFinite(value));
    if (broken >= 0)
      throw invalidInput(`${where}: "${name}" holds ${data[broken]} at ${broken}, expected finite numbers.`);
    return data;
  };
  const sample = take("sample", ["batch", config.inChannels, "height", "width"]);
  const [batch, channels, height, width] = sample.shape as [number, number, number, number];
  const states = take("encoder_hidden_states", [batch, "tokens", config.crossAttentionDim]);
  const images = split(sample.data, batch).map((image) => toChannelsLast(image, { channels, height, width }));
  const stored = tensors.get("timestep");
  const scalar = stored && stored.shape.reduce((product, size) => product * size, 1) === 1;
  const timesteps = scalar ? finite(stored, "timestep") : take("timestep", [batch]).data;
  const inputs: Record<string, Float32Array> = {
    sample: joined(images),
    time_proj: projectTime(
      config,
      Array.from({ length: batch }, (_, b) => timesteps[scalar ? 0 : b]),
    ),
    encoder_hidden_states: states.data,
  };
  if (config.addition) {
    const pooled = config.addition.inputDim - 6 * config.addition.timeEmbedDim;
    const texts = take("text_embeds", [batch, pooled]).data;
    const ids = take("time_ids", [batch, 6]).data;
    inputs["add_embeds"] = joined(
      Array.from({ length: batch }, (_, b) =>
        addedEmbeddings(config, texts.subarray(b * pooled, (b + 1) * pooled), ids.subarray(b * 6, (b + 1) * 6)),
      ),
    );
  }
  // As in diffusers: without a condition nothing is added, whatever cond_proj's weights are.
  if (config.timeCondProjDim !== undefined)
    inputs["timestep_cond"] = tensors.has("timestep_cond")
      ? take("timestep_cond", [batch, config.timeCondProjDim]).data
      : new Float32Array(batch * config.timeCondProjDim);
  return { shape: { batch, height, width, tokens: states.shape[1] }, inputs };
}
