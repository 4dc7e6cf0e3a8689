/** `mixdq sensitivity`: how much a picture suffers from each layer in few bits; takes up where it was killed; in shards. */
import {
  byPath,
  mergeSensitivities,
  readSensitivity,
  writeSensitivity,
  type LayerSensitivity,
  type Metrics,
} from "../../mixdq/allocation/sensitivity.ts";
import type { Calibration } from "../../mixdq/calibration/file.ts";
import { layerGroup } from "../../mixdq/calibration/layers.ts";
import { checkCalibration } from "../../mixdq/calibration/preset.ts";
import { setDebug } from "../../base/debug.ts";
import { readModel } from "../../model/description.ts";
import { Effort } from "../../mixdq/sensitivity/effort.ts";
import { Probe, type Findings } from "../../mixdq/sensitivity/probe.ts";
import { makeSample, type Sample } from "../../mixdq/sensitivity/samples.ts";
import {
  evaluationsOf,
  shardOf,
  sitesOf,
  type Evaluation,
  type Side,
  type Site,
} from "../../mixdq/sensitivity/sites.ts";
import type { Precision } from "../../base/types.ts";
import { toFloat32 } from "../../weights/convert.ts";
import type { ModelFiles } from "../../weights/files.ts";
import { findComponent } from "../../weights/folder.ts";
import type { WeightTensor } from "../../weights/safetensors.ts";
import { checkSettings, readPrompts } from "../calibrate.ts";
import { command } from "../command.ts";
import { diskFiles } from "../../node/diskFiles.ts";
import { loadFloatModel } from "../floatModel.ts";
import { openNetwork } from "../../runtime/webgpuNetwork.ts";
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
  const files = hashedFiles(await diskFiles(folder));
  const description = await readModel(files);
  const settings = checkSettings(prompts, flags.seed, flags.steps, description);
  const pictures = Math.min(request.pictures, prompts.length);
  return { request, prompts, calibrationFile, calibration, folder, files, description, settings, pictures };
}

async function measure({ request, prompts, calibrationFile, calibration, ...task }: Task): Promise<void> {
  const { run, out } = request;
  const { folder, files, description, settings, pictures } = task;
  const started = performance.now();
  const model = await loadFloatModel(description, files, run);

  const { height, width } = model.latentShape(settings);
  const [unet, decoder] = [
    model.graphs.unet({ batch: 1, height, width, tokens: model.graphs.tokens }),
    model.graphs.vae({ height, width }),
  ];
  const { executor, store } = openNetwork(model.unet.network, unet);
  const { plan } = executor;
  const all = sitesOf(unet.build(), plan);
  checkCalibration(all, calibration);
  const sites = chooseSites(all, request);
  const evaluations = sites.flatMap(({ path }) => evaluationsOf(path, request.candidates));

  // The same for all shards, and for a run that goes on; the shard itself is not in it.
  const provenance = {
    seed: seedToJson(settings.seed),
    steps: settings.steps,
    width: settings.width,
    height: settings.height,
    precision: run.precision,
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
  const identity = { model: nameOf(folder), samples: prompts.length, shard: request.shard };
  warnOfOtherModel(calibration, provenance.modelSha256);
  const partial = (await isSpecial(out)) ? undefined : `${out}.partial`;
  const saved = new SavedEvaluations(partial, evaluations);
  await saved.begin({ ...identity, ...provenance });
  const pending = ({ path }: Site): readonly Evaluation[] =>
    evaluationsOf(path, request.candidates).filter((evaluation) => !saved.get(evaluation));
  const todo = sites.filter((site) => pending(site).length > 0);

  const wantsPicture = ({ path }: Site): boolean => request.ssim === "all" || layerGroup(path) === "content";
  const decoding = openNetwork(model.vae.network, decoder).executor.plan;
  const effort = new Effort(plan, decoding, pictures / prompts.length);
  const costOf = (site: Site): number => effort.of(site, wantsPicture(site));
  const total = sites.reduce(
    (sum, site) => sum + costOf(site) * evaluationsOf(site.path, request.candidates).length,
    0,
  );
  let left = todo.reduce((sum, site) => sum + costOf(site) * pending(site).length, 0);
  const before = evaluations.filter((evaluation) => saved.get(evaluation)).length;
  let done = before;
  const bar = progressBar("sensitivity", "evaluations");
  const show = (): void => bar.show(done, evaluations.length, 1 - left / total);

  const options = { model, executor, settings };
  const samples: Sample[] = [];
  if (todo.length > 0)
    for (const [i, prompt] of prompts.entries()) samples.push(await makeSample(prompt, i, i < pictures, options));
  const weightOf = await readWeights(files, todo, run.precision);
  const { rangeRule, weights } = request;
  const probe = new Probe({ ...options, store, samples, calibration, rangeRule, weights, weightOf });
  show();
  for (const site of todo)
    for await (const { evaluation, findings } of probe.measure(site, pending(site), wantsPicture(site))) {
      await saved.add(evaluation, rounded(findings));
      left -= costOf(site);
      done++;
      show();
    }
  bar.end();
  probe.dispose();

  const rows = [...sites].sort((a, b) => byPath(a.path, b.path));
  const layers = new Map(rows.map((site) => [site.path, describeLayer(site, request, saved)]));
  await writeWhole(out, new TextEncoder().encode(writeSensitivity({ ...identity, provenance, layers })));
  await saved.remove();
  const earlier = before > 0 ? ` (${before} of them before)` : "";
  const shares = todo.map((site) => effort.shareOfNetwork(site));
  const share = shares.reduce((sum, value) => sum + value, 0) / shares.length;
  tell(
    `${out}: ${layers.size} layers, ${evaluations.length} evaluations${earlier} of ${prompts.length} sample(s), ` +
      `${run.precision} on ${model.runtime.adapter}; ${describeDuration(performance.now() - started)}` +
      (shares.length > 0 ? `, ${Math.round(100 * share)} % of the UNet run for each` : ""),
  );
  await model.dispose();
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
        `--layers: no layer's path contains "${part}"; the first is ${all[0]!.path}. See mixdq inspect.`,
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

/** The checkpoint's weights of these layers, held in memory as the checkpoint has them. */
async function readWeights(
  files: ModelFiles,
  sites: readonly Site[],
  precision: Precision,
): Promise<(site: Site) => Float32Array> {
  const names = new Map(
    sites.flatMap(({ weight: { name, aliases = [] } }) => [name, ...aliases].map((alias) => [alias, name] as const)),
  );
  const held = new Map<string, WeightTensor>();
  if (names.size > 0)
    for await (const tensor of (await findComponent(files, "unet", { precision })).tensors({
      wanted: (name) => names.has(name),
    }))
      held.set(names.get(tensor.name)!, tensor);
  return ({ weight: { name } }) => {
    const { bytes, dtype } = held.get(name)!;
    return toFloat32(bytes, dtype);
  };
}

/** To what can be told apart: 0.0001 dB, and 1e-7 of SSIM. */
function rounded({ sqnr, x0, ssim }: Findings): Findings {
  const round = (value: number, digits: number): number => Number(value.toFixed(digits));
  return { sqnr: round(sqnr, 4), x0: round(x0, 4), ssim: ssim === undefined ? undefined : round(ssim, 7) };
}

function describeLayer(
  { path, weights, activations }: Site,
  { candidates }: SensitivityRequest,
  saved: SavedEvaluations,
): LayerSensitivity {
  const metrics = (side: Side): Metrics =>
    new Map(
      (["sqnr", "x0", "ssim"] as const).flatMap((metric): [string, Map<number, number>][] => {
        const values = candidates[side].flatMap((bits): [number, number][] => {
          const value = saved.get({ path, side, bits })![metric];
          return value === undefined ? [] : [[bits, value]];
        });
        return values.length > 0 ? [[metric, new Map(values)]] : [];
      }),
    );
  return {
    group: layerGroup(path),
    weights,
    activations,
    weight: metrics("weight"),
    activation: metrics("activation"),
  };
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
