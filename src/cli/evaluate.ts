/** `mixdq evaluate`: how good a model's pictures are, and how far quantization moves them from FP16. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { readModel } from "../model/description.ts";
import { configOfModel } from "../model/quantization.ts";
import { checkRequest, type Settings } from "../model/request.ts";
import { encodePixels } from "../api/image.ts";
import { CONFIDENCE, RESAMPLES, type Estimate } from "../mixdq/quality/bootstrap.ts";
import * as figures from "../mixdq/quality/figures.ts";
import { pictureGrid } from "../mixdq/quality/grid.ts";
import type { Picture } from "../mixdq/quality/picture.ts";
import { assertReadable } from "../mixdq/quality/reader.ts";
import type { MixdqConfig } from "../quant/config.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import { command } from "./command.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { hashedFiles } from "../node/hashedFiles.ts";
import { nameOf, readBytes, sha256 } from "../node/inputFiles.ts";
import { choosePrompts, doubts, findJudge } from "./judging.ts";
import { required, seed, text, withDefault, type Values } from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { readConfig, RUN_FLAGS, runFlags, type RunFlags } from "./options.ts";
import { assertWritable, isSpecial, writeWhole, tell } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";
import { printable } from "../base/printable.ts";
import { seedAfter, seedToJson } from "../base/seed.ts";
import { makePictures, type Made, type PictureTask } from "./pictures.ts";
import { progressBar } from "../node/progressBar.ts";

const FLAGS = {
  model: modelFlag("a diffusers folder", "disk"),
  out: required(
    text(
      "report.json",
      "alignment, frechet, ssim (one window), ssim11 (11x11, Gaussian) and psnr (dB), each with value, low and high " +
        "(95 %); the last three against FP16 with the same seeds, which is to itself equal by definition: ssim 1, psnr the " +
        "largest that is finite",
    ),
    "the JSON file to write",
  ),
  prompts: text(
    "N|FILE",
    "the first N of the judge's prompts (default 256), or a file: .jsonl like the judge's own, else one prompt a line " +
      "(then without alignment and Fréchet distance)",
  ),
  judge: text("DIR", "default: judge/ in the model's folder; a model without one needs --prompts FILE"),
  seed: withDefault(seed("of the first picture, the next ones count on"), 0),
  grid: text("FILE", "a PNG of the first pictures (a row: a prompt in FP16, in the chosen run); default: beside --out"),
  ...RUN_FLAGS,
};

/** The grid is for the eye: so many prompts, fewer where it would become higher than this. */
const GRID_PROMPTS = 24;
const GRID_PIXELS = 4096;
/** Pictures in a row where there is nothing to put beside them. */
const GRID_COLUMNS = 6;
const SHOWN_WARNINGS = 3;

export const evaluate = command({
  name: "evaluate",
  summary: "how good a model's pictures are, and how far quantization moves them from FP16",
  flags: FLAGS,
  run: writeReport,
});

async function writeReport(flags: Values<typeof FLAGS>): Promise<void> {
  const plan = await checkedPlan(flags);
  const { run, judge, isCompared, prompts } = plan;
  const gpu = run.backend === "webgpu" ? await requestNodeGpu(run.adapter) : undefined;
  const options = { ...run, ...(gpu && { gpu }), files: plan.files };
  const bar = progressBar("evaluate", "pictures");

  const tileRows = Math.min(GRID_PROMPTS, prompts.length, Math.max(1, Math.floor(GRID_PIXELS / plan.settings.height)));
  const tiles: Picture[] = [];
  const reference: Picture[] = [];
  const closeness: figures.Closeness[] = [];
  const count = prompts.length * (isCompared ? 2 : 1);
  bar.show(0, count);
  const fp16 = isCompared
    ? await makePictures(plan, { ...options, precision: "fp16" }, (picture) => bar.show(reference.push(picture), count))
    : undefined;
  const chosen = await makePictures(plan, { ...options, config: plan.config }, (picture, i) => {
    bar.show(reference.length + i + 1, count);
    if (isCompared) closeness.push(figures.closenessOf(reference[i], picture));
    if (i < tileRows) tiles.push(...(isCompared ? [reference[i], picture] : [picture]));
  });
  bar.end();

  const main = judge && figures.judgedFigures(chosen.judged, judge.statistics);
  const beside = fp16 && judge && figures.judgedFigures(fp16.judged, judge.statistics);
  const compared = isCompared ? figures.comparedFigures(closeness) : figures.figuresOfEqual(plan.settings);
  const warnings = [...new Set([...(fp16?.warnings ?? []), ...chosen.warnings, ...doubts(plan)])];
  const report = {
    format: "mixdq-evaluation",
    version: 1,
    ...main,
    ...compared,
    ...(beside && { fp16: beside, alignmentAgainstFp16: figures.alignmentAgainst(fp16.judged, chosen.judged) }),
    ...(judge && figures.judgedDetails(chosen.judged, judge.statistics, judge.description)),
    warnings,
    provenance: await provenanceOf(plan, fp16, chosen),
    grid: plan.gridFile === undefined ? null : nameOf(plan.gridFile),
    pictures: prompts.map(({ prompt, attributes }, i) => ({
      prompt,
      seed: seedToJson(seedAfter(plan.firstSeed, i)),
      ...(judge && { stated: attributes, seen: chosen.judged[i].attributes }),
      ...closeness[i],
    })),
  };
  const grid = pictureGrid(tiles, isCompared ? 2 : Math.min(GRID_COLUMNS, tiles.length));
  const captions = prompts.slice(0, tileRows).map(({ prompt }) => prompt);
  if (plan.gridFile !== undefined)
    await writeWhole(plan.gridFile, encodePixels(grid, { Software: "mixdq-web", prompts: captions.join("\n") }));
  await writeWhole(plan.out, new TextEncoder().encode(`${JSON.stringify(report, null, 1)}\n`));

  for (const warning of warnings.slice(-SHOWN_WARNINGS)) console.error(`warning: ${printable(warning, 1000)}`);
  if (warnings.length > SHOWN_WARNINGS)
    console.error(`warning: ${warnings.length - SHOWN_WARNINGS} more are in ${plan.out}.`);
  tell(
    `${plan.out}: ${prompts.length} pictures of ${plan.settings.width}x${plan.settings.height}, ` +
      `${chosen.info.precision}${plan.config ? ` by ${nameOf(plan.configFile)}` : ""} on ${chosen.info.adapter}` +
      (plan.gridFile === undefined ? "" : `; look at ${plan.gridFile}`),
  );
  printFigures({ ...main, ...(isCompared && compared) }, beside);
}

/** An evaluation about which everything is known that can be known before the first picture. */
interface Plan extends PictureTask {
  readonly run: RunFlags;
  readonly out: string;
  /** undefined where no picture is wanted. */
  readonly gridFile: string | undefined;
  readonly folder: string;
  readonly files: ReturnType<typeof hashedFiles>;
  /** Which layers run in integers, and the file that says so. */
  readonly config: MixdqConfig | undefined;
  readonly configFile: string;
  /** The prompts' file. */
  readonly source: string;
  readonly settings: Settings;
  /** Whether there is anything to compare with FP16: the chosen run may be that itself. */
  readonly isCompared: boolean;
}

/** Throws, before a byte of weights is read, whatever can be said by then. */
async function checkedPlan(flags: Values<typeof FLAGS>): Promise<Plan> {
  const run = runFlags(flags);
  const { out, model: folder, seed: firstSeed } = flags;
  // Beside a device or a pipe there is no place for a picture.
  const gridFile = flags.grid ?? ((await isSpecial(out)) ? undefined : `${out.replace(/\.json$/, "")}.png`);
  for (const file of [out, ...(gridFile === undefined ? [] : [gridFile])]) await assertWritable(file);
  if (gridFile !== undefined && path.resolve(out) === path.resolve(gridFile))
    throw invalidInput(`--grid ${gridFile}: got the file of --out, expected another. Choose another name.`);

  const files = hashedFiles(await diskFiles(folder));
  const model = await readModel(files);
  const config = (await readConfig(flags)) ?? (await configOfModel(files, run.precision));
  const configFile = flags.config ?? path.join(folder, `mixdq.${run.precision}.json`);
  if (config && run.backend !== "webgpu")
    throw invalidInput(
      `--backend ${run.backend} has no integer kernels: use webgpu, or --precision fp16 without --config.`,
    );

  const available = await findJudge(flags.judge, folder);
  const { prompts, source } = await choosePrompts(flags.prompts, available);
  const judge = prompts[0].attributes && available;
  const isCompared = run.precision !== "fp16" || config !== undefined;
  if (!isCompared && !judge)
    throw invalidInput(
      `--prompts ${source}: got prompts without attributes for an FP16 run, expected something to measure. Use a judge's ` +
        `prompts, or a run to compare with FP16 (--precision, --config).`,
    );
  const last = prompts.length - 1;
  const settings = checkRequest({ prompt: prompts[last].prompt, seed: seedAfter(firstSeed, last) }, model);
  if (judge) assertReadable(settings, judge.description.size);
  return {
    ...{ run, out, gridFile, folder, files, config, configFile },
    ...{ judge, prompts, source, firstSeed, settings, isCompared },
  };
}

/** Everything needed to make the same report again. */
async function provenanceOf(plan: Plan, fp16: Made | undefined, { info, seconds }: Made) {
  const { folder, files, config, configFile, source, prompts, firstSeed, settings, judge } = plan;
  const { width, height, steps, guidanceScale } = settings;
  return {
    model: nameOf(folder),
    modelSha256: files.digest(),
    precision: info.precision,
    config: config ? { file: nameOf(configFile), sha256: sha256(await readBytes(configFile)) } : null,
    comparedWith: plan.isCompared ? "fp16 with the same seeds" : "itself: this is the fp16 run",
    prompts: { source: nameOf(source), count: prompts.length },
    seeds: { first: seedToJson(firstSeed), last: seedToJson(seedAfter(firstSeed, prompts.length - 1)) },
    pictures: { width, height, steps, guidanceScale },
    backend: info.backend,
    adapter: info.adapter,
    ...(judge && { judge: judge.provenance }),
    intervals: { confidence: CONFIDENCE, resamples: RESAMPLES, frechetResamples: figures.FRECHET_RESAMPLES },
    versions: { mixdq: await ownVersion(), node: process.version },
    time: { ended: new Date().toISOString(), seconds: { fp16: fp16?.seconds, chosen: seconds } },
  };
}

async function ownVersion(): Promise<string> {
  const file = path.resolve(import.meta.dirname ?? ".", "../../package.json");
  return (JSON.parse(await readFile(file, "utf8")) as { version: string }).version;
}

function printFigures(estimates: Readonly<Record<string, Estimate>>, fp16: Readonly<Record<string, Estimate>> = {}) {
  const number = (value: number): string => value.toFixed(4).padStart(8);
  for (const [name, { value, low, high }] of Object.entries(estimates))
    tell(
      `  ${name.padEnd(9)}${number(value)}, 95 %: ${number(low)} to ${number(high)}` +
        (fp16[name] ? `; in FP16 ${number(fp16[name].value)}` : ""),
    );
}
