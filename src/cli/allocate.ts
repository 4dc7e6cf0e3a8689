/** `mixdq allocate`: a sensitivity.json and a budget become a mixdq.json, and a report that people can read. */
import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { allocate as solve, CANDIDATES, type Allocation, type AllocateOptions } from "../allocator/allocate.ts";
import { baselines } from "../allocator/baselines.ts";
import { MAX_CALIBRATION_BYTES, RANGE_RULES, readRanges, type Ranges } from "../allocator/ranges.ts";
import { renderReport, type SamplePicture } from "../allocator/report/report.ts";
import { MAX_SENSITIVITY_BYTES, readSensitivity, type Group, type Sensitivity } from "../allocator/sensitivity.ts";
import { sweep } from "../allocator/sweep.ts";
import { attachRanges, writeMixdqConfig, type MixdqConfig } from "../quant/config.ts";
import {
  assertWritable,
  integer,
  invalid,
  number,
  readFlags,
  required,
  text,
  writeWhole,
  type Flags,
} from "./options.ts";

export const ALLOCATE_USAGE = `mixdq allocate --sensitivity FILE --weight-bits N --out mixdq.json
  --sensitivity FILE    what mixdq sensitivity wrote, whole (shards merged)
  --weight-bits N       bits per weight, on average and at most; the sum of each group's metric (content: SSIM,
                        quality: SQNR in dB) becomes as large as it can be
  --calibration FILE    what mixdq calibrate wrote; without it the file has no scales for activations
  --range-activations minmax|moving|percentile      which of its ranges; default minmax
  --act-bits N          4, 8 or 16 (weights only) for all inputs; in between: bits per input element on average, of 4
                        and 8. Default 8
  --candidates LIST     widths of weights to choose from, of 2,3,4,8; default 2,4,8 for content, 4,8 for quality layers
  --quality-candidates LIST   for quality layers alone      --no-2-bit   none with 2 bits
  --protect SHARE       of each group's layers, those whose inputs suffer most at 8 bits, and so keep 16-bit float
                        inputs; default 0.01 (0 with --act-bits 16)
  --protect-as weight-only|float   their weights: chosen as all others (default), or in 16-bit float too and counted so
  --ratio K             content's bits over quality's; default: where both groups lose the same share of their metric
  --weight-range mse|minmax   default mse      --symmetric   weights without zero point; default: with
  --group 64            a scale per 64 input channels; default: one per output channel
  --report FILE         an HTML page: sensitivities, bits by layer, the sweep of 400 budgets and ratios, baselines
  --pictures DIR        for the report: pairs NAME.fp16.png, NAME.quantized.png
  --seed N              of the random baselines; default 0`;

const FLAGS = {
  sensitivity: { type: "string" },
  calibration: { type: "string" },
  "range-activations": { type: "string" },
  "weight-bits": { type: "string" },
  "act-bits": { type: "string" },
  candidates: { type: "string" },
  "quality-candidates": { type: "string" },
  "no-2-bit": { type: "boolean" },
  protect: { type: "string" },
  "protect-as": { type: "string" },
  ratio: { type: "string" },
  "weight-range": { type: "string" },
  symmetric: { type: "boolean" },
  group: { type: "string" },
  out: { type: "string" },
  report: { type: "string" },
  pictures: { type: "string" },
  seed: { type: "string" },
} as const;

export async function allocate(args: readonly string[]): Promise<void> {
  const { flags } = readFlags(args, FLAGS);
  const sensitivityFile = required(flags, "sensitivity", "the sensitivity.json to allocate by");
  const out = required(flags, "out", "the mixdq.json to write");
  const report = text(flags, "report");
  for (const file of [out, ...(report === undefined ? [] : [report])]) await assertWritable(file);
  const options = readOptions(flags);
  const weights = readWeights(flags);
  const seed = integer(flags, "seed") ?? 0;
  const rule = oneOf(flags, "range-activations", RANGE_RULES, "minmax");
  const calibrationFile = text(flags, "calibration");
  const pictures = await readPictures(text(flags, "pictures"));

  const source = await readText(sensitivityFile, MAX_SENSITIVITY_BYTES);
  const sensitivity = readSensitivity(source.text, sensitivityFile);
  const { shard } = sensitivity;
  if (shard && shard.count > 1)
    throw invalid(
      `${sensitivityFile}: got shard ${shard.index} of ${shard.count}, expected the whole: ` +
        `join the shards with mixdq sensitivity merge.`,
    );
  const calibration =
    calibrationFile === undefined ? undefined : await readText(calibrationFile, MAX_CALIBRATION_BYTES);
  const ranges = calibration && readRanges(calibration.text, calibrationFile!, rule);

  const allocation = await solve(sensitivity, options, sensitivityFile);
  const config = configOf(sensitivity, allocation, ranges, weights, {
    made: "mixdq allocate",
    sensitivity: { sha256: source.sha256, samples: sensitivity.samples },
    ...(calibration && { calibration: { sha256: calibration.sha256, range: rule } }),
    ...provenanceOf(allocation, options),
  });
  const content = new TextEncoder().encode(writeMixdqConfig(config));
  const page = report && (await makeReport(sensitivity, allocation, options, { seed, pictures }));
  await writeWhole(out, content);
  if (page) await writeWhole(report, new TextEncoder().encode(page));

  if (ranges && ranges.model !== "" && sensitivity.model !== "" && ranges.model !== sensitivity.model)
    console.error(`warning: the sensitivity is of ${sensitivity.model}, the calibration of ${ranges.model}.`);
  for (const note of allocation.notes) console.error(`note: ${note}`);
  console.log(describe(out, sensitivity, allocation));
}

function readOptions(flags: Flags): AllocateOptions {
  const weightBits = number(flags, "weight-bits");
  if (weightBits === undefined) throw invalid("--weight-bits is missing: bits per weight, such as 4.0.");
  const both = widths(flags, "candidates");
  const quality = widths(flags, "quality-candidates") ?? both ?? CANDIDATES.quality;
  const without = (list: readonly number[]): readonly number[] =>
    list.filter((bits) => !flags["no-2-bit"] || bits !== 2);
  const given = {
    actBits: number(flags, "act-bits"),
    protect: number(flags, "protect"),
    ratio: number(flags, "ratio"),
  };
  return {
    weightBits,
    candidates: { content: without(both ?? CANDIDATES.content), quality: without(quality) },
    protectedAs: oneOf(flags, "protect-as", ["weight-only", "float"] as const, "weight-only"),
    ...(given.actBits !== undefined && { actBits: given.actBits }),
    ...(given.protect !== undefined && { protect: given.protect }),
    ...(given.ratio !== undefined && { ratio: given.ratio }),
  };
}

function widths(flags: Flags, name: string): readonly number[] | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  const list = value.split(",").map((item) => item.trim());
  if (list.some((item) => !/^\d+$/.test(item)))
    throw invalid(`--${name} ${value}: expected bit-widths with commas between them, such as 2,4,8.`);
  return [...new Set(list.map(Number))].sort((a, b) => a - b);
}

function readWeights(flags: Flags): MixdqConfig["weights"] {
  const group = oneOf(flags, "group", ["none", "64"], "none");
  const range = oneOf(flags, "weight-range", ["mse", "minmax"], "mse");
  return { symmetric: flags["symmetric"] === true, range, group: group === "64" ? 64 : null };
}

function oneOf<T extends string>(flags: Flags, name: string, choices: readonly T[], fallback: T): T {
  const value = text(flags, name) ?? fallback;
  if (!choices.includes(value as T)) throw invalid(`--${name} ${value}: expected ${choices.join(", ")}.`);
  return value as T;
}

async function readText(file: string, most: number): Promise<{ text: string; sha256: string }> {
  const size = (await stat(file).catch(() => undefined))?.size ?? 0;
  if (size > most) throw invalid(`${file}: got ${size} bytes, expected at most ${most}.`);
  const bytes = await readFile(file).catch((error: Error) => {
    throw invalid(`${file} cannot be read: ${error.message}.`);
  });
  return { text: bytes.toString("utf8"), sha256: createHash("sha256").update(bytes).digest("hex") };
}

const REFERENCE = ".fp16.png";
const QUANTIZED = ".quantized.png";

async function readPictures(folder: string | undefined): Promise<SamplePicture[]> {
  if (folder === undefined) return [];
  const names = await readdir(folder).catch((error: Error) => {
    throw invalid(`--pictures ${folder} cannot be read: ${error.message}.`);
  });
  const titles = names.filter((name) => name.endsWith(REFERENCE)).map((name) => name.slice(0, -REFERENCE.length));
  const pairs = titles.filter((title) => names.includes(title + QUANTIZED)).sort();
  if (pairs.length === 0)
    throw invalid(`--pictures ${folder}: got no pairs, expected NAME${REFERENCE} beside NAME${QUANTIZED}.`);
  const read = (name: string): Promise<Uint8Array> => readFile(path.join(folder, name));
  const load = async (title: string): Promise<SamplePicture> => ({
    title,
    reference: await read(title + REFERENCE),
    quantized: await read(title + QUANTIZED),
  });
  return Promise.all(pairs.map(load));
}

function configOf(
  { model }: Sensitivity,
  { layers, weights: { averageBits } }: Allocation,
  ranges: Ranges | undefined,
  weights: MixdqConfig["weights"],
  provenance: MixdqConfig["provenance"],
): MixdqConfig {
  const config = { model, weights, bos: ranges?.bos ?? true, averageWeightBits: averageBits, provenance };
  return { ...config, layers: ranges ? attachRanges(layers, ranges.layers) : layers };
}

function provenanceOf(allocation: Allocation, options: AllocateOptions): Record<string, unknown> {
  const sideOf = ({ chosen, quantizedBits, certified }: Allocation["weights"], budget: number) => ({
    budget,
    ...(chosen.groups.length > 1 && { ratio: chosen.ratio }),
    averageBits: chosen.averageBits,
    averageQuantizedBits: quantizedBits,
    groups: Object.fromEntries(
      chosen.groups.map(({ group, budget: own, averageBits, objective, bound, gap, solver }) => [
        group,
        { budget: own, averageBits, objective, bound, gap, solver, certifiedBy: certified.get(group) ?? null },
      ]),
    ),
  });
  return {
    weights: { candidates: options.candidates, ...sideOf(allocation.weights, options.weightBits) },
    ...(allocation.activations && { activations: sideOf(allocation.activations, options.actBits!) }),
    averageActBits: allocation.averageActBits ?? null,
    protected: { as: options.protectedAs, layers: allocation.protectedLayers },
  };
}

async function makeReport(
  sensitivity: Sensitivity,
  allocation: Allocation,
  { weightBits }: AllocateOptions,
  { seed, pictures }: { seed: number; pictures: readonly SamplePicture[] },
): Promise<string> {
  const { programs } = allocation.weights;
  const started = performance.now();
  const points = await sweep(programs, weightBits);
  const seconds = (performance.now() - started) / 1000;
  console.error(`sweep: ${points.length} points in ${seconds.toFixed(1)} s`);
  const chosen = new Map(allocation.weights.chosen.groups.flatMap(({ bits }) => [...bits]));
  const others = await baselines(programs, sensitivity.layers, chosen, weightBits, seed);
  return renderReport({ sensitivity, allocation, weightBits, points, baselines: others, pictures });
}

function describe(out: string, { layers }: Sensitivity, allocation: Allocation): string {
  const { chosen, averageBits, quantizedBits, certified } = allocation.weights;
  const count = (test: (bits: number) => boolean, of: "weightBits" | "actBits"): number =>
    [...allocation.layers.values()].filter((layer) => test(layer[of])).length;
  const weights = [...layers.values()].reduce((sum, layer) => sum + layer.weights, 0);
  const widthsUsed = [...new Set([...allocation.layers.values()].map(({ weightBits }) => weightBits))].sort(
    (a, b) => a - b,
  );
  const rows = [
    ["group", "layers", "metric", "budget", "average", "objective", "bound", "gap", "proven by"],
    ...chosen.groups.map(({ group, budget, averageBits: own, objective, bound, gap, solver }, i) => [
      group,
      `${allocation.weights.programs[i]!.candidates.length}`,
      METRIC_NAMES[group],
      budget.toFixed(4),
      own.toFixed(4),
      objective.toFixed(6),
      bound.toFixed(6),
      gap === 0 ? "0" : gap.toExponential(1),
      [solver, ...(certified.has(group) ? [certified.get(group)!] : [])].join(", "),
    ]),
  ];
  const columns = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const table = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(columns[column]!))
      .join("  ")
      .trimEnd(),
  );
  const float = layers.size - allocation.layers.size;
  return [
    `${out}: ${averageBits.toFixed(4)} bits a weight, ${((weights * averageBits) / 8e6).toFixed(1)} MB` +
      (float > 0 ? `; ${quantizedBits.toFixed(4)} without the ${float} layers in 16-bit float` : "") +
      (chosen.groups.length > 1 ? `; content to quality ${chosen.ratio.toFixed(4)}` : ""),
    ...table,
    `weights: ${widthsUsed.map((bits) => `${count((b) => b === bits, "weightBits")} layers at ${bits}`).join(", ")} bits; ` +
      `inputs: ${count((b) => b === 16, "actBits") + float} in float` +
      (allocation.averageActBits === undefined ? "" : `, ${allocation.averageActBits.toFixed(4)} bits on average`),
  ].join("\n");
}

const METRIC_NAMES: Readonly<Record<Group, string>> = { content: "SSIM", quality: "SQNR, dB" };
