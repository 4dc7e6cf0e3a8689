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
import { PRECISIONS } from "../base/choices.ts";
import { command } from "./command.ts";
import { floatRunFlags, loadFloatModel } from "./floatModel.ts";
import { hashedFiles } from "../node/hashedFiles.ts";
import { nameOf, readText, sha256 } from "../node/inputFiles.ts";
import { choice, integer, required, seed, text, toggle, withDefault, type Values } from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { PART_FLAGS, readFiles, RUN_FLAGS } from "./options.ts";
import { withLock } from "../node/lock.ts";
import { assertWritable, isSpecial, writeWhole, tell } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";
import { seedAfter, seedToJson, type Seed } from "../base/seed.ts";
import { describeDuration, progressBar } from "../node/progressBar.ts";
import { SavedRun } from "./savedRun.ts";

const FLAGS = {
  model: modelFlag("a diffusers folder"),
  prompts: required(text("FILE", "text, one prompt a line"), "a text file with one prompt a line"),
  limit: integer("only the first N prompts"),
  out: required(text("calibration.json", "the file to write"), "the calibration.json to write"),
  seed: withDefault(seed("start noise of the first prompt, one more for each that follows"), 0),
  steps: integer("denoising steps; default: the model's own"),
  "no-bos": toggle("record the text's first token too (to see what MixDQ's BOS-aware ranges are good for)"),
  ...PART_FLAGS,
  ...RUN_FLAGS,
  precision: choice(PRECISIONS, "fp32 or fp16, of the model that is recorded; default fp32"),
};

export const calibrate = command({
  name: "calibrate",
  summary: "the range of every layer's input over prompts, by the float model",
  flags: FLAGS,
  notes: ["A run that was killed goes on from calibration.json.partial with the same flags."],
  run: async (flags) => {
    const task = await readTask(flags);
    await withLock(flags.out, () => record(task));
  },
});

/** What is to be recorded, and everything about it that can be known before the model is loaded. */
type Task = Awaited<ReturnType<typeof readTask>>;

async function readTask(flags: Values<typeof FLAGS>) {
  // Ranges are those of the float model; exact unless somebody asks for what fp16 makes of them.
  const run = floatRunFlags(flags, "calibration runs");
  setDebug(run.debug);
  const { out } = flags;
  await assertWritable(out);
  const prompts = await readPrompts(flags.prompts, flags.limit);
  const folder = flags.model;
  const files = hashedFiles(await readFiles(folder, flags));
  const description = await readModel(files);
  const settings = checkSettings(prompts, flags.seed, flags.steps, description);
  return { run, out, prompts, folder, files, description, settings, bos: !flags["no-bos"] };
}

async function record({ run, out, prompts, folder, files, description, settings, bos }: Task): Promise<void> {
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
  const partial = (await isSpecial(out)) ? undefined : `${out}.partial`;
  const saved = new SavedRun(partial, { model: nameOf(folder), prompts: prompts.length, bos, ...identity });
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
    const request = { ...settings, prompt: prompts[done], seed: seedAfter(settings.seed, done) };
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
  tell(
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
    prompt: prompts[0],
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
