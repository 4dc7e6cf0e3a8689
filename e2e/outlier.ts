/**
 * A synthetic BOS outlier, for the effect that MixDQ's BOS-aware quantization is there for (arXiv 2405.17873, section 4.1):
 * in SDXL-Turbo the text's first token reaches 823 where others stay within 15. A small model has nothing of the kind
 * by nature, so it is put into one here, by editing weights, without changing what the model computes. Results on such
 * a model show that the mechanism works; they are no evidence about real SDXL-Turbo.
 *
 * How: in the first text encoder's last layer that the UNet reads, one neuron of the MLP becomes a detector of the first
 * token and writes `amplitude` into one channel of its state. The UNet's keys and values do not read that channel, in the
 * model with the outlier as in the one without (`amplitude` 0): the two are the same function.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { vi } from "vitest";
import { readCalibration, type Calibration } from "../src/mixdq/calibration/file.ts";
import { quantizableLayers } from "../src/mixdq/calibration/layers.ts";
import { presetConfig, type PresetOptions } from "../src/mixdq/calibration/preset.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { calibrate } from "../src/cli/calibrate.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { readUNet } from "../src/cli/unet.ts";
import { buildUNet } from "../src/diffusion/unet.ts";
import { readModel, type ModelDescription } from "../src/model/description.ts";
import type { Graph, LinearOp, Weight } from "../src/graph/ops.ts";
import { runReference } from "../src/kernels/index.ts";
import { loadPipeline } from "../src/pipeline.ts";
import { closenessOf, comparedFigures, type ComparedFigures } from "../src/mixdq/quality/figures.ts";
import type { Picture } from "../src/mixdq/quality/picture.ts";
import type { MixdqConfig } from "../src/quant/config.ts";
import { fromHalf, toHalf } from "../src/quant/half.ts";
import { buildTextEncoder } from "../src/text/encoder.ts";
import type { RawImage } from "../src/base/types.ts";
import { readFloats } from "../src/weights/convert.ts";
import { parseSafetensors, writeSafetensors, type TensorToWrite } from "../src/weights/safetensors.ts";
import { emptyFolder, TEXT, UNET } from "./broken.ts";

/** What the detector gives before its activation: this for the first token, its negative or less for every other. */
const DETECTED = 16;

/** Where the outlier goes. All weights as they are stored, in 16 bits. */
export interface OutlierSite {
  /** The channel of the text state that carries it: the one whose keys and values are least missed. */
  readonly channel: number;
  /** The neuron that is given up for it: the one whose part in the state is smallest. */
  readonly neuron: number;
  /** Its new row of fc1, and bias. */
  readonly row: Float32Array;
  readonly bias: number;
  /** What it then gives for the first token, and the most for any other of the prompts, before the activation. */
  readonly first: number;
  readonly others: number;
}

/** Finds the site in the diffusers folder `source` (SDXL's layout) by the text states of `prompts`, by the CPU twins. */
export async function findOutlierSite(source: string, prompts: readonly string[]): Promise<OutlierSite> {
  const encoder = await firstEncoder(source);
  const states = prompts.map((prompt) => encoder.run(prompt));
  const { weight } = encoder;
  const channels = encoder.fc1.x.shape[3];
  const column = (values: Float32Array, width: number, at: number): Float32Array =>
    Float32Array.from({ length: values.length / width }, (_, i) => values[i * width + at]);

  const inner = encoder.fc1.y.shape[3];
  const fc2 = weight(encoder.names.fc2Weight);
  const neuron = leastBy(
    inner,
    (i) => energy(column(fc2, inner, i)) * sum(states.map((state) => energy(column(state.inner, inner, i)))),
  );
  // Of the UNet's context the first encoder's channels come first.
  const keysAndValues = [...parseSafetensors(readFileSync(path.join(source, UNET)))].filter(([name]) => isText(name));
  const read = keysAndValues.map(([name, tensor]) => ({ width: tensor.shape[1], values: readFloats(tensor, name) }));
  const channel = leastBy(
    channels,
    (c) =>
      sum(read.map(({ values, width }) => energy(column(values, width, c)))) *
      sum(states.map(({ hidden }) => energy(column(hidden, channels, c).subarray(1)))),
  );

  // A layer norm puts every token on one sphere, |n|^2 = C, where the first token is one point n0, the same in every
  // prompt: n . n0 is C there and less everywhere else. The detector is the plane half-way to the next token.
  const [gamma, beta] = [weight(encoder.names.gamma), weight(encoder.names.beta)];
  const pole = states[0].normed.slice(0, channels).map((x, c) => (x - beta[c]) / gamma[c]);
  const plane = pole.map((n, c) => n / gamma[c]);
  const along = (normed: Float32Array, token: number): number =>
    plane.reduce((product, w, c) => product + w * normed[token * channels + c], 0);
  const positions = states.flatMap(({ normed }) =>
    Array.from({ length: normed.length / channels }, (_, token) => ({ normed, token })),
  );
  const nearest = Math.max(...positions.filter(({ token }) => token > 0).map((at) => along(at.normed, at.token)));
  const top = along(states[0].normed, 0);
  const gain = (2 * DETECTED) / (top - nearest);
  const row = stored(plane.map((w) => gain * w));
  const bias = stored(Float32Array.of((-gain * (top + nearest)) / 2))[0];
  const gives = ({ normed, token }: (typeof positions)[number]): number =>
    row.reduce((product, w, c) => product + w * normed[token * channels + c], bias);
  return {
    channel,
    neuron,
    row,
    bias,
    first: gives(positions[0]),
    others: Math.max(...positions.filter(({ token }) => token > 0).map(gives)),
  };
}

/**
 * A copy of `source` in the new folder `target`, with an outlier of this size at the site: 0 for none, in a model that
 * is otherwise the same. The weights written must be within 16 bits: amplitudes up to 10^6.
 */
export async function writeOutlierModel(
  source: string,
  target: string,
  { channel, neuron, row, bias, first }: OutlierSite,
  amplitude: number,
): Promise<void> {
  const parts = new Set(["recipe", "judge"]);
  cpSync(source, target, { recursive: true, filter: (from) => !parts.has(path.relative(source, from)) });
  const { names, fc1 } = await firstEncoder(source);
  const inner = fc1.y.shape[3];
  const changes: Record<string, Change> = {
    [names.fc1Weight]: (values) => values.set(row, neuron * row.length),
    [names.fc1Bias]: (values) => values.set([bias], neuron),
    // Both of CLIP's activations are the identity at +16, and 0 at -16, to more than 16 bits.
    [names.fc2Weight](values) {
      for (let c = 0; c < values.length / inner; c++)
        values[c * inner + neuron] = c === channel ? amplitude / first : 0;
    },
  };
  edit(path.join(target, TEXT), (name) => changes[name]);
  const skipChannel: Change = (values, [, width]) => {
    for (let at = channel; at < values.length; at += width!) values[at] = 0;
  };
  edit(path.join(target, UNET), (name) => (isText(name) ? skipChannel : undefined));
}

/** What the first text encoder gives the UNet for a prompt, [tokens, channels], by the CPU twins. */
export async function textState(folder: string, prompt: string): Promise<Float32Array> {
  return (await firstEncoder(folder)).run(prompt).hidden;
}

/** Ranges over the prompts as `mixdq calibrate` records them; without `bos` also those of the first token. */
export async function calibrated(folder: string, prompts: readonly string[], { bos }: { bos: boolean }) {
  const [from, out] = ["prompts.txt", "calibration.json"].map((name) => path.join(emptyFolder(), name)) as [
    string,
    string,
  ];
  writeFileSync(from, prompts.join("\n"));
  const log = vi.spyOn(console, "log").mockImplementation(() => {});
  try {
    await calibrate(["--model", folder, "--prompts", from, "--out", out, ...(bos ? [] : ["--no-bos"])]);
  } finally {
    log.mockRestore();
  }
  return readCalibration(readFileSync(out, "utf8"), out);
}

/** The preset of a calibration, as `mixdq preset` writes it. */
export async function presetOf(folder: string, calibration: Calibration, options: PresetOptions): Promise<MixdqConfig> {
  const unet = await readUNet(await diskFiles(folder));
  const [height, width] = unet.sampleSize;
  const layers = quantizableLayers(buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  return presetConfig(layers, calibration, { ...options, bos: calibration.bos });
}

/** A picture a prompt, in fp16 or as the configuration has it; the seeds count from `firstSeed`. */
export async function draw(
  folder: string,
  prompts: readonly string[],
  { config, firstSeed = 0 }: { config?: MixdqConfig; firstSeed?: number } = {},
): Promise<readonly RawImage[]> {
  const gpu = await requestNodeGpu("auto");
  const pipeline = await loadPipeline({ files: await diskFiles(folder), precision: "fp16", config, gpu });
  try {
    const pictures: RawImage[] = [];
    for (const [i, prompt] of prompts.entries())
      pictures.push(await pipeline.generate({ prompt, seed: firstSeed + i }));
    return pictures;
  } finally {
    await pipeline.dispose();
  }
}

/** How close pictures are to those of another run of the same prompts, on average. */
export function closeness(reference: readonly Picture[], pictures: readonly Picture[]): ComparedFigures {
  return comparedFigures(pictures.map((picture, i) => closenessOf(reference[i], picture)));
}

const isText = (name: string): boolean => /\.attn2\.to_[kv]\.weight$/.test(name);

/** The first encoder as a function, with the parts of the last layer that the UNet reads. */
async function firstEncoder(folder: string) {
  const model = await readModel(await diskFiles(folder));
  const { config, tokenizer } = model.textEncoders[0];
  const whole = buildTextEncoder(config, { batch: 1, state: penultimate(model), projects: false }, "f32");
  const layer = `text_model.encoder.layers.${config.integer("num_hidden_layers") - 2}`;
  const fc1 = whole.ops.find((op): op is LinearOp => op.kind === "linear" && op.path === `${layer}.mlp.fc1`)!;
  const graph: Graph = { ...whole, outputs: { ...whole.outputs, normed: fc1.x, inner: fc1.y } };
  const tensors = parseSafetensors(readFileSync(path.join(folder, TEXT)), TEXT);
  const weights = new Map<string, { name: string; values: Float32Array }>(
    graph.weights.map(({ name, aliases = [] }: Weight) => {
      const found = [name, ...aliases].find((key) => tensors.has(key))!;
      return [name, { name: found, values: readFloats(tensors.get(found)!, found) }];
    }),
  );
  const nameOf = (name: string): string => weights.get(`${layer}.${name}`)!.name;
  const byFile = new Map([...weights.values()].map(({ name, values }) => [name, values]));
  return {
    fc1,
    names: {
      gamma: nameOf("layer_norm2.weight"),
      beta: nameOf("layer_norm2.bias"),
      fc1Weight: nameOf("mlp.fc1.weight"),
      fc1Bias: nameOf("mlp.fc1.bias"),
      fc2Weight: nameOf("mlp.fc2.weight"),
    },
    /** By the file's name. */
    weight: (name: string): Float32Array => byFile.get(name)!,
    run: (prompt: string) => {
      const ids = Uint32Array.from(tokenizer.encode(prompt).ids);
      const states = runReference(graph, { ids }, ({ name }) => weights.get(name)!.values);
      return states as Record<"hidden" | "normed" | "inner", Float32Array>;
    },
  };
}

/** Only there is a layer left that reads the outlier and that nothing else reads. */
function penultimate({ textState, location }: ModelDescription): "penultimate" {
  if (textState !== "penultimate") throw new Error(`${location}: the UNet reads the encoder's last layer`);
  return textState;
}

type Change = (values: Float32Array, shape: readonly number[]) => void;

/** Rewrites a file of weights, those for which there is a change in 16 bits. */
function edit(file: string, changeOf: (name: string) => Change | undefined): void {
  const tensors: Record<string, TensorToWrite> = {};
  for (const [name, tensor] of parseSafetensors(readFileSync(file), file)) {
    const { dtype, shape, bytes } = tensor;
    tensors[name] = { dtype, shape, data: bytes };
    const change = changeOf(name);
    if (!change) continue;
    const values = readFloats(tensor, name).slice();
    change(values, shape);
    tensors[name] = { dtype: "F16", shape, data: toHalf(values) };
  }
  writeFileSync(file, writeSafetensors(tensors));
}

/** Rounded to 16 bits. */
function stored(values: Float32Array): Float32Array {
  return fromHalf(toHalf(values));
}

function energy(values: Float32Array): number {
  return values.reduce((total, value) => total + value * value, 0);
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

function leastBy(count: number, cost: (i: number) => number): number {
  const costs = Array.from({ length: count }, (_, i) => cost(i));
  return costs.indexOf(Math.min(...costs));
}
