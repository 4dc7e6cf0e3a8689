/** `mixdq calibrate`: the range of every layer's input over prompts, by the float engine; takes up where it was killed. */
import { writeCalibration } from "../mixdq/calibration/file.ts";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { Recording } from "../mixdq/calibration/statistics.ts";
import { printable } from "../base/printable.ts";
import { setDebug } from "../base/debug.ts";
import { readModel, type ModelDescription } from "../model/description.ts";
import { denoise, type UNetObserver } from "../model/denoise.ts";
import { ModelGraphs } from "../model/graphs.ts";
import { checkRequest, type Settings } from "../model/request.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import { modelFolder } from "./defaults.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { floatRunFlags, loadFloatModel } from "./floatModel.ts";
import { hashedFiles } from "../node/hashedFiles.ts";
import { nameOf, readText, sha256 } from "../node/inputFiles.ts";
import { integer, readFlags, required, RUN_FLAGS, seedFlag } from "./options.ts";
import { assertWritable, writeWhole } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";
import { seedAfter, seedToJson, type Seed } from "../base/seed.ts";
import { describeDuration, progressBar } from "../node/progressBar.ts";
import { SavedRun } from "./savedRun.ts";

export const CALIBRATE_USAGE = `mixdq calibrate --prompts FILE --out calibration.json
  --model DIR           a diffusers folder; default: the model in models/postcard
  --prompts FILE        text, one prompt a line
  --limit N             only the first N of them
  --seed N              start noise of the first prompt, one more for each that follows; default 0
  --steps N             default: the model's own
  --no-bos              record the text's first token too (to see what MixDQ's BOS-aware ranges are good for)
  --precision fp32|fp16 default fp32
  --adapter NAME --kernels direct|tiled --no-f16 --no-share --debug 1..2
  A run that was killed goes on from calibration.json.partial with the same flags.`;

const FLAGS = {
  ...RUN_FLAGS,
  prompts: { type: "string" },
  out: { type: "string" },
  seed: { type: "string" },
  steps: { type: "string" },
  limit: { type: "string" },
  "no-bos": { type: "boolean" },
} as const;

export async function calibrate(args: readonly string[]): Promise<void> {
  const { flags } = readFlags(args, FLAGS);
  // Ranges are those of the float model; exact unless somebody asks for what fp16 makes of them.
  const run = floatRunFlags(flags, "calibration runs");
  setDebug(run.debug);
  const out = required(flags, "out", "the calibration.json to write");
  const promptFile = required(flags, "prompts", "a text file with one prompt a line");
  await assertWritable(out);
  const prompts = await readPrompts(promptFile, integer(flags, "limit"));
  const folder = modelFolder(flags);
  const files = hashedFiles(await diskFiles(folder));
  const description = await readModel(files);
  const settings = checkSettings(prompts, seedFlag(flags) ?? 0, integer(flags, "steps"), description);
  const bos = flags["no-bos"] !== true;

  const { scale } = description.vae;
  const graphs = new ModelGraphs(description, run.precision, undefined);
  const [height, width] = [settings.height / scale, settings.width / scale];
  const graph = graphs.unet({ batch: 1, height, width, tokens: graphs.tokens }).build();
  const recording = new Recording(quantizableLayers(graph), { bos });
  const identity = {
    seed: seedToJson(settings.seed),
    steps: settings.steps,
    width: settings.width,
    height: settings.height,
    precision: run.precision,
    promptsSha256: sha256(prompts.join("\n")),
  };
  const saved = new SavedRun(`${out}.partial`, { model: nameOf(folder), prompts: prompts.length, bos, ...identity });
  const before = await saved.restore(recording);

  const started = performance.now();
  const model = await loadFloatModel(description, files, run);
  const provenance = { ...identity, modelSha256: files.digest() };
  saved.alsoWith({ modelSha256: provenance.modelSha256 });

  const bar = progressBar("calibrate", "prompts");
  let done = before;
  bar.show(done, prompts.length);
  const reads = recording.tensors * settings.steps;
  const warnings: string[] = [];
  for (; done < prompts.length; done++) {
    let seen = 0;
    const observer = recordingObserver(graph, recording, () => bar.show(done + ++seen / reads, prompts.length));
    const request = { ...settings, prompt: prompts[done]!, seed: seedAfter(settings.seed, done) };
    const text = await model.encode(request);
    warnings.push(...text.warnings);
    await denoise(model, text, request, { observer });
    recording.endPrompt();
    await saved.save(recording, done + 1);
  }
  bar.end();

  const layers = recording.layers();
  const calibration = { model: nameOf(folder), prompts: prompts.length, bos, provenance, layers };
  await writeWhole(out, new TextEncoder().encode(writeCalibration(calibration)));
  await saved.remove();
  for (const warning of warnings.slice(0, 3)) console.error(`warning: ${printable(warning, 1000)}`);
  if (warnings.length > 3)
    console.error(`warning: ${warnings.length - 3} more prompts are longer than the model reads.`);
  const earlier = before > 0 ? ` (${before} of them before)` : "";
  console.log(
    `${out}: ${layers.size} layers over ${prompts.length} prompt(s)${earlier}, ${run.precision} on ${model.runtime.adapter}; ` +
      describeDuration(performance.now() - started),
  );
  await model.dispose();
}

/** Lines that say something. Throws `invalid-input` where there is none, or no such file. */
export async function readPrompts(file: string, limit: number | undefined): Promise<readonly string[]> {
  const content = await readText(file, { flag: "--prompts" });
  const prompts = content
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== "");
  if (prompts.length === 0)
    throw invalidInput(`--prompts ${file}: got no prompts, expected text with one prompt a line.`);
  if (limit === 0) throw invalidInput("--limit 0: expected at least one prompt.");
  return prompts.slice(0, limit);
}

/** The first prompt's settings, without guidance. */
export function checkSettings(
  prompts: readonly string[],
  seed: Seed,
  steps: number | undefined,
  model: ModelDescription,
): Settings {
  const request = {
    prompt: prompts[0]!,
    seed,
    ...(steps !== undefined && { numInferenceSteps: steps }),
    // A model that was distilled with its guidance is told its own scale.
    ...(model.unet.timeCondProjDim === undefined && { guidanceScale: 0 }),
  };
  return checkRequest(request, model);
}

/** Records the UNet's inputs and tensors; `onTensor` hears of each. */
function recordingObserver(graph: Graph, recording: Recording, onTensor: () => void): UNetObserver {
  const observe = (tensor: Tensor, values: Float32Array): void => {
    recording.observe(tensor, values);
    onTensor();
  };
  return {
    before(inputs) {
      for (const [name, tensor] of Object.entries(graph.inputs))
        if (recording.wants(tensor)) observe(tensor, inputs[name] as Float32Array);
    },
    wantsTensor: (tensor) => recording.wants(tensor),
    onTensor: (_, tensor, values) => observe(tensor, values),
  };
}
