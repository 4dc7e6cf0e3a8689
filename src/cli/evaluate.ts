/** `mixdq evaluate`: how good a model's pictures are, and how far quantization moves them from FP16. */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { readModel } from "../engine/model.ts";
import { configOfModel } from "../engine/quantization.ts";
import { checkRequest, type Settings } from "../engine/request.ts";
import { encodePixels } from "../image.ts";
import { loadNetwork } from "../ort/network.ts";
import { loadPipeline, type PipelineOptions } from "../pipeline.ts";
import { CONFIDENCE, RESAMPLES, type Estimate } from "../quality/bootstrap.ts";
import * as figures from "../quality/figures.ts";
import type { Gaussian } from "../quality/frechet.ts";
import { pictureGrid } from "../quality/grid.ts";
import { JUDGE_FILES, readDescription, readStatistics, type JudgeDescription } from "../quality/judge.ts";
import type { Picture } from "../quality/picture.ts";
import { readJudgedPrompts, readPromptLines, type Prompt } from "../quality/prompts.ts";
import { assertReadable, createReader, type ReadPicture } from "../quality/reader.ts";
import type { MixdqConfig } from "../quant/config.ts";
import type { EngineInfo } from "../types.ts";
import { requestNodeGpu } from "./adapter.ts";
import { DEFAULT_MODEL } from "./defaults.ts";
import { diskFiles } from "./diskFiles.ts";
import { hashedFiles } from "./hashedFiles.ts";
import {
  assertWritable,
  integer,
  invalid,
  readConfig,
  readFlags,
  required,
  RUN_FLAGS,
  runFlags,
  text,
  writeWhole,
  type RunFlags,
} from "./options.ts";
import { progressLine } from "./progress.ts";
import { progressBar, type ProgressBar } from "./progressBar.ts";

export const EVALUATE_USAGE = `mixdq evaluate --out report.json
  --model DIR           a diffusers folder; default: the model in models/postcard
  --precision fp32|fp16|w8a8|w4a8 --config mixdq.json      what to evaluate, as in generate; default fp16
  --prompts N|FILE      the first N of the judge's prompts (default 256), or a file: .jsonl like the judge's own, else
                        one prompt a line (then without alignment and Fréchet distance)
  --judge DIR           default: judge/ in the model's folder; a model without one needs --prompts FILE
  --seed N              of the first picture, the next ones count on; default 0
  --out FILE            alignment, frechet, ssim (one window), ssim11 (11x11, Gaussian) and psnr (dB), each with value,
                        low and high (95 %); the last three against FP16 with the same seeds, which is to itself equal by
                        definition: ssim 1, psnr the largest that is finite
  --grid FILE           a PNG of the first pictures (a row: a prompt in FP16, in the chosen run); default: beside --out
  --adapter NAME --backend NAME --kernels direct|tiled --no-f16 --debug 1..3`;

const FLAGS = {
  ...RUN_FLAGS,
  prompts: { type: "string" },
  judge: { type: "string" },
  seed: { type: "string" },
  out: { type: "string" },
  grid: { type: "string" },
} as const;

const DEFAULT_PROMPTS = 256;
/** The grid is for the eye: so many prompts, fewer where it would become higher than this. */
const GRID_PROMPTS = 24;
const GRID_PIXELS = 4096;
/** Pictures in a row where there is nothing to put beside them. */
const GRID_COLUMNS = 6;
const SHOWN_WARNINGS = 3;

export async function evaluate(args: readonly string[]): Promise<void> {
  const plan = await checkedPlan(args);
  const { run, judge, isCompared, prompts } = plan;
  const gpu = run.backend === "webgpu" ? await requestNodeGpu(run.adapter) : undefined;
  const options = { ...run, ...(gpu && { gpu }), files: plan.files };
  const bar = progressBar("evaluate", "pictures");

  const tileRows = Math.min(GRID_PROMPTS, prompts.length, Math.max(1, Math.floor(GRID_PIXELS / plan.settings.height)));
  const tiles: Picture[] = [];
  const reference: Picture[] = [];
  const closeness: figures.Closeness[] = [];
  const fp16 = isCompared
    ? await makePictures(plan, bar, { ...options, precision: "fp16" }, 0, (picture) => reference.push(picture))
    : undefined;
  const chosen = await makePictures(plan, bar, { ...options, config: plan.config }, reference.length, (picture, i) => {
    if (isCompared) closeness.push(figures.closenessOf(reference[i]!, picture));
    if (i < tileRows) tiles.push(...(isCompared ? [reference[i]!, picture] : [picture]));
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
    grid: nameOf(plan.gridFile),
    pictures: prompts.map(({ prompt, attributes }, i) => ({
      prompt,
      seed: plan.firstSeed + i,
      ...(judge && { stated: attributes, seen: chosen.judged[i]!.attributes }),
      ...closeness[i],
    })),
  };
  const grid = pictureGrid(tiles, isCompared ? 2 : Math.min(GRID_COLUMNS, tiles.length));
  const captions = prompts.slice(0, tileRows).map(({ prompt }) => prompt);
  await writeWhole(plan.gridFile, encodePixels(grid, { Software: "mixdq-web", prompts: captions.join("\n") }));
  await writeWhole(plan.out, new TextEncoder().encode(`${JSON.stringify(report, null, 1)}\n`));

  for (const warning of warnings.slice(-SHOWN_WARNINGS)) console.error(`warning: ${warning}`);
  if (warnings.length > SHOWN_WARNINGS)
    console.error(`warning: ${warnings.length - SHOWN_WARNINGS} more are in ${plan.out}.`);
  console.log(
    `${plan.out}: ${prompts.length} pictures of ${plan.settings.width}x${plan.settings.height}, ` +
      `${chosen.info.precision} on ${chosen.info.adapter}; look at ${plan.gridFile}`,
  );
  printFigures({ ...main, ...(isCompared && compared) }, beside);
}

/** An evaluation about which everything is known that can be known before the first picture. */
interface Plan {
  readonly run: RunFlags;
  readonly out: string;
  readonly gridFile: string;
  readonly folder: string;
  readonly files: ReturnType<typeof hashedFiles>;
  /** Which layers run in integers, and the file that says so. */
  readonly config: MixdqConfig | undefined;
  readonly configFile: string;
  /** undefined where there is none, or where the prompts give it nothing to look for. */
  readonly judge: Judge | undefined;
  readonly prompts: readonly Prompt[];
  /** The prompts' file. */
  readonly source: string;
  readonly firstSeed: number;
  readonly settings: Settings;
  /** Whether there is anything to compare with FP16: the chosen run may be that itself. */
  readonly isCompared: boolean;
}

/** Throws, before a byte of weights is read, whatever can be said by then. */
async function checkedPlan(args: readonly string[]): Promise<Plan> {
  const { flags } = readFlags(args, FLAGS);
  const run = runFlags(flags);
  const out = required(flags, "out", "the JSON file to write");
  const gridFile = text(flags, "grid") ?? `${out.replace(/\.json$/, "")}.png`;
  for (const file of [out, gridFile]) await assertWritable(file);
  if (path.resolve(out) === path.resolve(gridFile))
    throw invalid(`--grid ${gridFile}: got the file of --out, expected another. Choose another name.`);

  const folder = text(flags, "model") ?? DEFAULT_MODEL;
  const files = hashedFiles(await diskFiles(folder));
  const model = await readModel(files);
  const config = (await readConfig(flags)) ?? (await configOfModel(files, run.precision));
  const configFile = text(flags, "config") ?? path.join(folder, `mixdq.${run.precision}.json`);
  if (config && run.backend !== "webgpu")
    throw invalid(`--backend ${run.backend} has no integer kernels: use webgpu, or --precision fp16 without --config.`);

  const available = await findJudge(text(flags, "judge"), folder);
  const { prompts, source } = await choosePrompts(text(flags, "prompts"), available);
  const judge = prompts[0]!.attributes && available;
  const isCompared = run.precision !== "fp16" || config !== undefined;
  if (!isCompared && !judge)
    throw invalid(
      `--prompts ${source}: got prompts without attributes for an FP16 run, expected something to measure. Use a judge's ` +
        `prompts, or a run to compare with FP16 (--precision, --config).`,
    );
  const firstSeed = integer(flags, "seed") ?? 0;
  const last = prompts.length - 1;
  const settings = checkRequest({ prompt: prompts[last]!.prompt, seed: firstSeed + last }, model);
  if (judge) assertReadable(settings, judge.description.size);
  return {
    ...{ run, out, gridFile, folder, files, config, configFile },
    ...{ judge, prompts, source, firstSeed, settings, isCompared },
  };
}

/** What is left of a run once its pictures were handed over. */
interface Made {
  readonly info: EngineInfo;
  /** One a picture; none without a judge. */
  readonly judged: readonly figures.Judged[];
  readonly warnings: ReadonlySet<string>;
  readonly seconds: number;
}

/**
 * One engine at a time: it is gone when this returns, and so is what `take` does not keep of its pictures. `before`: how
 * many pictures an earlier run has made.
 */
async function makePictures(
  { prompts, firstSeed, judge, isCompared }: Plan,
  bar: ProgressBar,
  options: PipelineOptions,
  before: number,
  take: (picture: Picture, index: number) => void,
): Promise<Made> {
  const loading = progressLine();
  const pipeline = await loadPipeline({
    ...options,
    onProgress: ({ status, progress }) => loading.show(`${options.precision}: ${status} ${progress.toFixed(0)} %`),
  });
  loading.end();
  try {
    const began = performance.now();
    const judged: figures.Judged[] = [];
    const warnings = new Set<string>();
    for (const [i, { prompt, attributes }] of prompts.entries()) {
      bar.show(before + i, prompts.length * (isCompared ? 2 : 1));
      const image = await pipeline.generate({ prompt, seed: firstSeed + i });
      for (const warning of image.warnings) warnings.add(warning);
      if (judge) judged.push({ ...(await judge.read(image)), stated: attributes! });
      take({ width: image.width, height: image.height, data: image.data }, i);
    }
    return { info: pipeline.info, judged, warnings, seconds: (performance.now() - began) / 1000 };
  } finally {
    await pipeline.dispose();
  }
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
    seeds: { first: firstSeed, last: firstSeed + prompts.length - 1 },
    pictures: { width, height, steps, guidanceScale },
    backend: info.backend,
    adapter: info.adapter,
    ...(judge && { judge: judge.provenance }),
    intervals: { confidence: CONFIDENCE, resamples: RESAMPLES, frechetResamples: figures.FRECHET_RESAMPLES },
    versions: { mixdq: await ownVersion(), node: process.version },
    time: { ended: new Date().toISOString(), seconds: { fp16: fp16?.seconds, chosen: seconds } },
  };
}

interface Judge {
  readonly folder: string;
  readonly description: JudgeDescription;
  readonly statistics: Gaussian;
  readonly read: ReadPicture;
  readonly provenance: object;
}

/** undefined where none was asked for and the model has none. */
async function findJudge(asked: string | undefined, model: string): Promise<Judge | undefined> {
  const folder = asked ?? path.join(model, "judge");
  const info = await stat(folder).catch(() => undefined);
  if (!info?.isDirectory()) {
    if (asked === undefined) return undefined;
    throw invalid(`--judge ${folder}: no such folder. Give the folder that holds ${JUDGE_FILES.description}.`);
  }
  const fileOf = (name: keyof typeof JUDGE_FILES): string => path.join(folder, JUDGE_FILES[name]);
  const description = readDescription(await readText(fileOf("description")), fileOf("description"));
  const statistics = readStatistics(await readBytes(fileOf("statistics")), description.features, fileOf("statistics"));
  const bytes = await readBytes(fileOf("network"));
  const network = await loadNetwork(bytes, fileOf("network"));
  return {
    folder,
    description,
    statistics,
    read: await createReader((inputs) => network.run(inputs), description, fileOf("network")),
    provenance: {
      sha256: sha256(bytes),
      accuracy: description.accuracy,
      heldOut: description.heldOut,
    },
  };
}

async function choosePrompts(
  asked: string | undefined,
  judge: Judge | undefined,
): Promise<{ prompts: readonly Prompt[]; source: string }> {
  if (asked !== undefined && !/^\d+$/.test(asked)) {
    const where = `--prompts ${asked}`;
    const content = await readText(asked, "--prompts ");
    if (!asked.endsWith(".jsonl")) return { prompts: readPromptLines(content, where), source: asked };
    if (!judge)
      throw invalid(`${where}: got attributes and no judge to look for them, expected one. Give --judge DIR.`);
    const prompts = readJudgedPrompts(content, judge.description.attributes, where);
    return { prompts: atLeastTwo(prompts, where), source: asked };
  }
  if (!judge)
    throw invalid(
      `--prompts ${asked ?? "is missing"}: this model has no judge, and so no prompts of its own. Give --prompts FILE, a ` +
        `text file with one prompt a line.`,
    );
  const source = path.join(judge.folder, JUDGE_FILES.prompts);
  const all = readJudgedPrompts(await readText(source), judge.description.attributes, source);
  const count = asked === undefined ? Math.min(DEFAULT_PROMPTS, all.length) : Number(asked);
  if (count > all.length)
    throw invalid(`--prompts ${asked}: expected at most ${all.length}, all that the judge has. Give a smaller number.`);
  return { prompts: atLeastTwo(all.slice(0, count), `--prompts ${count}`), source };
}

function atLeastTwo(prompts: readonly Prompt[], where: string): readonly Prompt[] {
  if (prompts.length >= 2) return prompts;
  throw invalid(
    `${where}: got ${prompts.length} prompt(s), expected at least 2: one picture has no spread. Give more.`,
  );
}

/** What the figures do not show, or show badly. */
function doubts({ judge, prompts, source }: Plan): string[] {
  if (!judge)
    return [`${nameOf(source)} states no attributes for a judge: alignment and Fréchet distance are left out.`];
  const { features } = judge.description;
  if (prompts.length > features) return [];
  return [
    `Of the ${features} features, ${prompts.length} pictures show the spread of ${prompts.length - 1} at most: compare this ` +
      `Fréchet distance only with those of as many pictures, or take more than ${features} prompts.`,
  ];
}

/** More is no file of ours: the longest is an ONNX network, which has its own limit. */
const MAX_FILE_BYTES = 2 ** 28;

async function readBytes(file: string, flag = ""): Promise<Uint8Array> {
  const cannot = (error: Error): never => {
    throw invalid(`${flag}${file} cannot be read: ${error.message}. Check the path.`);
  };
  const { size } = await stat(file).catch(cannot);
  if (size > MAX_FILE_BYTES)
    throw invalid(`${flag}${file}: got ${size} bytes, expected at most ${MAX_FILE_BYTES}. Check the path.`);
  return readFile(file).catch(cannot);
}

async function readText(file: string, flag = ""): Promise<string> {
  return new TextDecoder().decode(await readBytes(file, flag));
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** The file's or folder's own name: a path of this machine means nothing to whom the report is passed on. */
function nameOf(file: string): string {
  return path.basename(path.resolve(file));
}

async function ownVersion(): Promise<string> {
  const file = path.resolve(import.meta.dirname ?? ".", "../../package.json");
  return (JSON.parse(await readFile(file, "utf8")) as { version: string }).version;
}

function printFigures(estimates: Readonly<Record<string, Estimate>>, fp16: Readonly<Record<string, Estimate>> = {}) {
  const number = (value: number): string => value.toFixed(4).padStart(8);
  for (const [name, { value, low, high }] of Object.entries(estimates))
    console.log(
      `  ${name.padEnd(9)}${number(value)}, 95 %: ${number(low)} to ${number(high)}` +
        (fp16[name] ? `; in FP16 ${number(fp16[name].value)}` : ""),
    );
}
