/** `mixdq sensitivity`: how much a picture suffers from each layer in few bits; takes up where it was killed; in shards. */
import { byPath, mergeSensitivities, readSensitivity, writeSensitivity } from "../../mixdq/allocation/sensitivity.ts";
import type { Calibration } from "../../mixdq/calibration/file.ts";
import { setDebug } from "../../base/debug.ts";
import { readModel } from "../../model/description.ts";
import { holdWeights } from "../../mixdq/sensitivity/heldWeights.ts";
import { Measurement, type Work } from "../../mixdq/sensitivity/measurement.ts";
import { shardOf, type Site } from "../../mixdq/sensitivity/sites.ts";
import { checkSettings, readPrompts } from "../calibrate.ts";
import { command } from "../command.ts";
import { modelFiles } from "../../node/modelFiles.ts";
import { loadFloatModel } from "../floatModel.ts";
import { hashedFiles } from "../../node/hashedFiles.ts";
import { nameOf, readBytes, readText, sha256 } from "../../node/inputFiles.ts";
import { required, text, type Values } from "../flags.ts";
import { withLock } from "../../node/lock.ts";
import { assertWritable, isSpecial, writeWhole, tell } from "../../node/outputFiles.ts";
import { invalidInput } from "../../base/errors.ts";
import { seedToJson } from "../../base/seed.ts";
import { readCalibrationFile } from "../preset.ts";
import { describeDuration, progressBar } from "../../node/progressBar.ts";
import { SavedEvaluations } from "./savedEvaluations.ts";
import { MOST_SAMPLES, readRequest, SENSITIVITY_FLAGS, type SensitivityRequest } from "./sensitivityFlags.ts";

/** More shards than this are a mistake. */
const MOST_FILES = 100_000;

export const sensitivity = command({
  name: "sensitivity",
  summary: "how much a picture suffers from each layer in few bits",
  flags: SENSITIVITY_FLAGS,
  notes: [
    "A run that was killed goes on from sensitivity.json.partial with the same flags, at most one evaluation behind.",
  ],
  subcommands: {
    merge: command({
      name: "sensitivity merge",
      summary: "shards of one measurement as a whole; docs/sensitivity.md shows how to spread them over machines",
      positionals: { placeholder: "FILE FILE ...", help: "what mixdq sensitivity --shard wrote", most: MOST_FILES },
      flags: { out: required(text("sensitivity.json", "the file to write"), "the sensitivity.json to write") },
      run: ({ out }, files) => merge(files, out),
    }),
  },
  run: async (flags) => {
    const task = await readTask(flags);
    await withLock(flags.out, () => measure(task));
  },
});

/** What is to be measured, and everything about it that can be known before the model is loaded. */
type Task = Awaited<ReturnType<typeof readTask>>;

async function readTask(flags: Values<typeof SENSITIVITY_FLAGS>) {
  const request = readRequest(flags);
  setDebug(request.run.debug);
  await assertWritable(request.out);
  const prompts = await readSamples(flags.prompts, request.samples);
  const calibrationFile = flags.calibration;
  const calibration = await readCalibrationFile(calibrationFile);
  const folder = flags.model;
  const files = hashedFiles(await modelFiles(folder));
  const description = await readModel(files);
  const settings = checkSettings(prompts, flags.seed, flags.steps, description);
  const pictures = Math.min(request.pictures, prompts.length);
  return { request, folder, files, description, settings, prompts, pictures, calibration, calibrationFile };
}

async function measure({ request, ...subject }: Task): Promise<void> {
  const { run, out } = request;
  const started = performance.now();
  const model = await loadFloatModel(subject.description, subject.files, run);
  const measurement = new Measurement({ ...subject, model, rules: request });
  const sites = chooseSites(measurement.sites, request);
  const evaluations = sites.flatMap((site) => measurement.evaluationsOf(site));
  const provenance = await provenanceOf(subject, request);
  const identity = { model: nameOf(subject.folder), samples: subject.prompts.length, shard: request.shard };
  warnOfOtherModel(subject.calibration, provenance.modelSha256);
  const saved = new SavedEvaluations((await isSpecial(out)) ? undefined : `${out}.partial`, evaluations);
  await saved.begin({ ...identity, ...provenance });
  const before = evaluations.filter((evaluation) => saved.get(evaluation)).length;
  const todo = pending(measurement, sites, saved);
  const weightOf = await holdWeights(
    subject.files,
    todo.map(({ site }) => site),
    run.precision,
  );
  await evaluate(measurement, sites, todo, weightOf, saved);

  const rows = [...sites].sort((a, b) => byPath(a.path, b.path));
  const layers = new Map(
    rows.map((site) => [site.path, measurement.describe(site, (evaluation) => saved.get(evaluation)!)]),
  );
  await writeWhole(out, new TextEncoder().encode(writeSensitivity({ ...identity, provenance, layers })));
  await saved.remove();
  const earlier = before > 0 ? ` (${before} of them before)` : "";
  tell(
    `${out}: ${layers.size} layers, ${evaluations.length} evaluations${earlier} of ${identity.samples} sample(s), ` +
      `${run.precision} on ${model.runtime.adapter}; ${describeDuration(performance.now() - started)}` +
      (todo.length > 0 ? `, ${Math.round(100 * measurement.shareOfNetwork(todo))} % of the UNet run for each` : ""),
  );
  await model.dispose();
}

/** The same for all shards, and for a run that goes on; the shard itself is not in it. */
async function provenanceOf(subject: Omit<Task, "request">, request: SensitivityRequest) {
  const { settings, prompts, pictures, calibration, calibrationFile, files } = subject;
  return {
    seed: seedToJson(settings.seed),
    steps: settings.steps,
    width: settings.width,
    height: settings.height,
    precision: request.run.precision,
    pictures,
    ssim: request.ssim,
    candidates: request.candidates,
    weights: request.weights,
    rangeActivations: request.rangeRule,
    bos: calibration.bos,
    ...(request.layers.length > 0 && { layers: request.layers }),
    promptsSha256: sha256(prompts.join("\n")),
    calibrationSha256: sha256(await readBytes(calibrationFile)),
    modelSha256: files.digest(),
  };
}

/** What an interrupted run has left to do. */
function pending(measurement: Measurement, sites: readonly Site[], saved: SavedEvaluations): readonly Work[] {
  return sites
    .map((site) => ({ site, evaluations: measurement.evaluationsOf(site).filter((one) => !saved.get(one)) }))
    .filter(({ evaluations }) => evaluations.length > 0);
}

/** Does what is left to do of the shard's layers, and shows how far it is. */
async function evaluate(
  measurement: Measurement,
  sites: readonly Site[],
  todo: readonly Work[],
  weightOf: (site: Site) => Float32Array,
  saved: SavedEvaluations,
): Promise<void> {
  const all = sites.map((site) => ({ site, evaluations: measurement.evaluationsOf(site) }));
  const count = (work: readonly Work[]): number => work.reduce((sum, { evaluations }) => sum + evaluations.length, 0);
  const [total, totalCost] = [count(all), measurement.costOf(all)];
  let done = total - count(todo);
  let left = measurement.costOf(todo);
  const bar = progressBar("sensitivity", "evaluations");
  const show = (): void => bar.show(done, total, 1 - left / totalCost);
  show();
  for await (const { site, evaluation, findings } of measurement.run(todo, weightOf)) {
    await saved.add(evaluation, findings);
    left -= measurement.costOf([{ site, evaluations: [evaluation] }]);
    done++;
    show();
  }
  bar.end();
}

/** The prompts to use. Throws `invalid-input` where there are fewer. */
async function readSamples(file: string, samples: number | undefined): Promise<readonly string[]> {
  const prompts = await readPrompts(file, undefined);
  if (samples !== undefined && samples > prompts.length)
    throw invalidInput(`--samples ${samples}: ${file} has ${prompts.length} prompts. Add some, or ask for fewer.`);
  return prompts.slice(0, samples ?? MOST_SAMPLES);
}

/** Those of --layers that are the shard's. Throws `invalid-input` where that leaves none. */
function chooseSites(all: readonly Site[], { layers, shard }: SensitivityRequest): readonly Site[] {
  for (const part of layers)
    if (part === "" || !all.some(({ path }) => path.includes(part)))
      throw invalidInput(
        `--layers: no layer's path contains "${part}"; the first is ${all[0].path}. See mixdq inspect.`,
      );
  const named = layers.length === 0 ? all : all.filter(({ path }) => layers.some((part) => path.includes(part)));
  const sites = shard ? shardOf(named, shard) : named;
  if (sites.length === 0)
    throw invalidInput(
      `--shard ${shard!.index}/${shard!.count}: there are only ${named.length} layers. Make fewer shards.`,
    );
  return sites;
}

/** Ranges of other weights would be measured without a word otherwise; another variant of the same model may be meant. */
function warnOfOtherModel({ provenance }: Calibration, modelSha256: string): void {
  const other = provenance["modelSha256"];
  if (other !== undefined && other !== modelSha256)
    console.error(
      "warning: the calibration was recorded from other model files (another variant or precision, or other weights). " +
        "Calibrate again if the weights have changed.",
    );
}

async function merge(files: readonly string[], out: string): Promise<void> {
  await assertWritable(out);
  const shards = await Promise.all(
    files.map(async (where) => ({ where, sensitivity: readSensitivity(await readText(where), where) })),
  );
  const merged = mergeSensitivities(shards);
  await writeWhole(out, new TextEncoder().encode(writeSensitivity(merged)));
  tell(`${out}: ${merged.layers.size} layers from ${shards.length} shard(s)`);
}
