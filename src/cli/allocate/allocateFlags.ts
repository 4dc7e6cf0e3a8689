/** What `mixdq allocate` may be asked, and the checks of it. */
import { CANDIDATES, type AllocateOptions } from "../../mixdq/allocation/allocate.ts";
import type { Sensitivity } from "../../mixdq/allocation/sensitivity.ts";
import { RANGE_RULES } from "../../mixdq/calibration/file.ts";
import { DEFAULT_WEIGHTS } from "../../mixdq/calibration/preset.ts";
import type { MixdqConfig } from "../../quant/config.ts";
import { PRECISIONS } from "../../base/choices.ts";
import { choice, number, required, integer, text, toggle, widths, withDefault, type Values } from "../flags.ts";
import { modelFlag } from "../defaults.ts";
import { RUN_FLAGS, runFlags, type RunFlags } from "../options.ts";
import { invalidInput } from "../../base/errors.ts";

export const ALLOCATE_FLAGS = {
  sensitivity: required(
    text("FILE", "what mixdq sensitivity wrote, whole (shards merged)"),
    "the sensitivity.json to allocate by",
  ),
  "weight-bits": required(
    number(
      "bits per weight, on average and at most; the sum of each group's metric (content: SSIM, quality: SQNR in dB) " +
        "becomes as large as it can be",
    ),
    "bits per weight, such as 4.0",
  ),
  out: required(text("mixdq.json", "the file to write"), "the mixdq.json to write"),
  calibration: text("FILE", "what mixdq calibrate wrote; without it the file has no scales for activations"),
  "range-activations": withDefault(choice(RANGE_RULES, "which of its ranges"), "minmax"),
  "act-bits": number(
    "4, 8 or 16 (weights only) for all inputs; in between: bits per input element on average, of 4 and 8. Default 8",
  ),
  candidates: widths("widths of weights to choose from, of 2,3,4,8; default 2,4,8 for content, 4,8 for quality layers"),
  "quality-candidates": widths("for quality layers alone"),
  "no-2-bit": toggle("no layer with 2 bits"),
  protect: number(
    "of each group's layers, those whose inputs suffer most at 8 bits, and so keep 16-bit float inputs; default 0.01 " +
      "(0 with --act-bits 16)",
    "SHARE",
  ),
  "protect-as": withDefault(
    choice(["weight-only", "float"], "their weights: chosen as all others, or in 16-bit float too and counted so"),
    "weight-only",
  ),
  sum: withDefault(
    choice(
      ["decibels", "noise"],
      "quality's SQNR: dB as the paper adds them, or the noise itself, which is what adds up in the network and mostly " +
        "gives the better pictures",
    ),
    "decibels",
  ),
  ratio: number("content's bits over quality's; default: where both groups lose the same share of their metric", "K"),
  "weight-range": choice(
    ["mse", "minmax"],
    "how a range of weights is chosen; default: as the sensitivity was measured",
  ),
  symmetric: toggle("weights without zero point; default: as the sensitivity was measured"),
  group: choice(
    ["none", "64"],
    "a scale per 64 input channels, or one per output channel; default: as the sensitivity was measured",
  ),
  prompts: text(
    "N|FILE",
    "pictures decide the ratio: the best allocations of the sweep are drawn with the last N of the judge's prompts, or " +
      "those of a file (.jsonl like the judge's own, else one a line), and the one nearest to FP16 (SSIM) is taken",
  ),
  model: modelFlag("with --prompts: a diffusers folder", "disk"),
  judge: text("DIR", "with --prompts; default: the model's judge/"),
  report: text(
    "FILE",
    "an HTML page: sensitivities, bits by layer, the sweep of 400 budgets and ratios, baselines, and what the pictures " +
      "said (the baselines are then drawn too)",
  ),
  pictures: text("DIR", "for the report: pairs NAME.fp16.png, NAME.quantized.png; default: of those drawn"),
  seed: withDefault(integer("of the random baselines, and of the first picture"), 0),
  ...RUN_FLAGS,
  precision: choice(PRECISIONS, "with --prompts: fp16 or fp32, of what stays in floats; default fp16"),
};

type AllocateFlags = Values<typeof ALLOCATE_FLAGS>;

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
export function readAllocateRequest(flags: AllocateFlags): AllocateRequest {
  const { prompts, ratio, calibration: calibrationFile, out, report, pictures, seed, judge } = flags;
  if (prompts !== undefined && ratio !== undefined)
    throw invalidInput(`--ratio ${ratio} with --prompts: expected one of them, for pictures decide the ratio.`);
  const options = readOptions(flags);
  if (prompts !== undefined && calibrationFile === undefined && options.actBits !== 16)
    throw invalidInput(
      "--prompts without --calibration: pictures need the scales of every layer's input. Give the file.",
    );
  return {
    sensitivityFile: flags.sensitivity,
    ...{ out, report, pictures, options, seed, calibrationFile },
    rangeRule: flags["range-activations"],
    trials: prompts === undefined ? undefined : { run: trialRun(flags), prompts, judge },
  };
}

function trialRun(flags: AllocateFlags): RunFlags {
  const run = runFlags(flags);
  if (flags.config !== undefined || !["fp16", "fp32"].includes(run.precision) || run.backend !== "webgpu")
    throw invalidInput(
      "--prompts draws what is being allocated: expected no --config, --backend webgpu, and fp16 or fp32 as --precision.",
    );
  return run;
}

function readOptions(flags: AllocateFlags): AllocateOptions {
  const { candidates: both, "act-bits": actBits, protect, ratio } = flags;
  const quality = flags["quality-candidates"] ?? both ?? CANDIDATES.quality;
  const without = (list: readonly number[]): readonly number[] =>
    list.filter((bits) => !flags["no-2-bit"] || bits !== 2);
  return {
    weightBits: flags["weight-bits"],
    candidates: { content: without(both ?? CANDIDATES.content), quality: without(quality) },
    sum: flags.sum,
    protectedAs: flags["protect-as"],
    ...(actBits !== undefined && { actBits }),
    ...(protect !== undefined && { protect }),
    ...(ratio !== undefined && { ratio }),
  };
}

/**
 * How weights are quantized: as the flags say, else as the sensitivity was measured. `other` is what that was where the
 * flags say something else: its figures are then not of these weights. Throws `invalid-input`.
 */
export function chooseWeights(
  flags: AllocateFlags,
  { provenance }: Sensitivity,
): { weights: MixdqConfig["weights"]; other: MixdqConfig["weights"] | undefined } {
  const measured = measuredWeights(provenance["weights"]);
  const { group, symmetric, "weight-range": range } = flags;
  const asked = {
    ...(symmetric && { symmetric }),
    ...(range !== undefined && { range }),
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
