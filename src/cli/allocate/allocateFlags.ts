/** What `mixdq allocate` may be asked, and the checks of it. */
import { CANDIDATES, type AllocateOptions } from "../../mixdq/allocation/allocate.ts";
import type { Sensitivity } from "../../mixdq/allocation/sensitivity.ts";
import { RANGE_RULES } from "../../mixdq/calibration/file.ts";
import { DEFAULT_WEIGHTS } from "../../mixdq/calibration/preset.ts";
import type { MixdqConfig } from "../../quant/config.ts";
import { integer, number, oneOf, required, RUN_FLAGS, runFlags, text, type Flags, type RunFlags } from "../options.ts";
import { invalidInput } from "../../base/errors.ts";

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
  --sum decibels|noise  quality's SQNR: dB as the paper adds them (default), or the noise itself, which is what adds up in
                        the network and mostly gives the better pictures
  --ratio K             content's bits over quality's; default: where both groups lose the same share of their metric
  --weight-range mse|minmax      --symmetric   weights without zero point      --group 64|none   a scale per 64 input
                        channels, or one per output channel; default: as the sensitivity was measured
  --prompts N|FILE      pictures decide the ratio: the best allocations of the sweep are drawn with the last N of the
                        judge's prompts, or those of a file (.jsonl like the judge's own, else one a line), and the one
                        nearest to FP16 (SSIM) is taken. With
                        --model DIR (default: the model in models/postcard), --judge DIR (default: its judge/),
                        --seed N of the first picture, --precision fp16|fp32 of what stays in floats, --adapter NAME
                        --kernels direct|tiled --no-f16
  --report FILE         an HTML page: sensitivities, bits by layer, the sweep of 400 budgets and ratios, baselines, and
                        what the pictures said (the plainer ways are then drawn too)
  --pictures DIR        for the report: pairs NAME.fp16.png, NAME.quantized.png; default: of those drawn
  --seed N              of the random baselines too; default 0`;

export const ALLOCATE_FLAGS = {
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
  sum: { type: "string" },
  ratio: { type: "string" },
  "weight-range": { type: "string" },
  symmetric: { type: "boolean" },
  group: { type: "string" },
  prompts: { type: "string" },
  judge: { type: "string" },
  out: { type: "string" },
  report: { type: "string" },
  pictures: { type: "string" },
  seed: { type: "string" },
  ...RUN_FLAGS,
} as const;

export interface AllocateRequest {
  readonly sensitivityFile: string;
  readonly calibrationFile: string | undefined;
  readonly rangeRule: (typeof RANGE_RULES)[number];
  readonly options: AllocateOptions;
  readonly out: string;
  readonly report: string | undefined;
  readonly pictures: string | undefined;
  readonly seed: number;
  /** Where pictures decide. */
  readonly trials: { readonly run: RunFlags; readonly prompts: string; readonly judge: string | undefined } | undefined;
}

/** Throws `invalid-input`. */
export function readAllocateRequest(flags: Flags): AllocateRequest {
  const prompts = text(flags, "prompts");
  const ratio = number(flags, "ratio");
  const calibrationFile = text(flags, "calibration");
  if (prompts !== undefined && ratio !== undefined)
    throw invalidInput(`--ratio ${ratio} with --prompts: expected one of them, for pictures decide the ratio.`);
  const options = readOptions(flags, ratio);
  if (prompts !== undefined && calibrationFile === undefined && options.actBits !== 16)
    throw invalidInput(
      "--prompts without --calibration: pictures need the scales of every layer's input. Give the file.",
    );
  return {
    sensitivityFile: required(flags, "sensitivity", "the sensitivity.json to allocate by"),
    out: required(flags, "out", "the mixdq.json to write"),
    report: text(flags, "report"),
    pictures: text(flags, "pictures"),
    options,
    seed: integer(flags, "seed") ?? 0,
    rangeRule: oneOf(flags, "range-activations", RANGE_RULES) ?? "minmax",
    calibrationFile,
    trials: prompts === undefined ? undefined : { run: trialRun(flags), prompts, judge: text(flags, "judge") },
  };
}

function trialRun(flags: Flags): RunFlags {
  const run = runFlags(flags);
  if (flags["config"] !== undefined || !["fp16", "fp32"].includes(run.precision) || run.backend !== "webgpu")
    throw invalidInput(
      "--prompts draws what is being allocated: expected no --config, --backend webgpu, and fp16 or fp32 as --precision.",
    );
  return run;
}

function readOptions(flags: Flags, ratio: number | undefined): AllocateOptions {
  const weightBits = number(flags, "weight-bits");
  if (weightBits === undefined) throw invalidInput("--weight-bits is missing: bits per weight, such as 4.0.");
  const both = widths(flags, "candidates");
  const quality = widths(flags, "quality-candidates") ?? both ?? CANDIDATES.quality;
  const without = (list: readonly number[]): readonly number[] =>
    list.filter((bits) => !flags["no-2-bit"] || bits !== 2);
  const given = { actBits: number(flags, "act-bits"), protect: number(flags, "protect") };
  return {
    weightBits,
    candidates: { content: without(both ?? CANDIDATES.content), quality: without(quality) },
    sum: oneOf(flags, "sum", ["decibels", "noise"] as const) ?? "decibels",
    protectedAs: oneOf(flags, "protect-as", ["weight-only", "float"] as const) ?? "weight-only",
    ...(given.actBits !== undefined && { actBits: given.actBits }),
    ...(given.protect !== undefined && { protect: given.protect }),
    ...(ratio !== undefined && { ratio }),
  };
}

function widths(flags: Flags, name: string): readonly number[] | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  const list = value.split(",").map((item) => item.trim());
  if (list.some((item) => !/^\d+$/.test(item)))
    throw invalidInput(`--${name} ${value}: expected bit-widths with commas between them, such as 2,4,8.`);
  return [...new Set(list.map(Number))].sort((a, b) => a - b);
}

/**
 * How weights are quantized: as the flags say, else as the sensitivity was measured. `other` is what that was where the
 * flags say something else: its figures are then not of these weights. Throws `invalid-input`.
 */
export function chooseWeights(
  flags: Flags,
  { provenance }: Sensitivity,
): { weights: MixdqConfig["weights"]; other: MixdqConfig["weights"] | undefined } {
  const measured = measuredWeights(provenance["weights"]);
  const group = oneOf(flags, "group", ["none", "64"] as const);
  const asked = {
    ...(flags["symmetric"] === true && { symmetric: true }),
    ...(flags["weight-range"] !== undefined && { range: oneOf(flags, "weight-range", ["mse", "minmax"] as const)! }),
    ...(group !== undefined && { group: group === "64" ? (64 as const) : null }),
  };
  const weights = { ...(measured ?? DEFAULT_WEIGHTS), ...asked };
  const isMeasured = !measured || JSON.stringify(measured) === JSON.stringify(weights);
  return { weights, other: isMeasured ? undefined : measured };
}

/** undefined where the file does not say, or says something that is not for us. */
function measuredWeights(json: unknown): MixdqConfig["weights"] | undefined {
  const { symmetric, range, group = null } = Object(json) as Record<string, unknown>;
  const isKnown =
    typeof symmetric === "boolean" && (range === "mse" || range === "minmax") && (group === null || group === 64);
  return isKnown ? { symmetric, range, group } : undefined;
}
