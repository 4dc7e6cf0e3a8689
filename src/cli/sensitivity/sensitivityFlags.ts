/** What `mixdq sensitivity` may be asked, and the checks of it. */
import type { Shard } from "../../mixdq/allocation/sensitivity.ts";
import { RANGE_RULES } from "../../mixdq/calibration/file.ts";
import type { WeightQuant } from "../../quant/formats.ts";
import type { Candidates } from "../../mixdq/sensitivity/sites.ts";
import { floatRunFlags } from "../floatModel.ts";
import { integer, oneOf, required, RUN_FLAGS, text, weightFlags, type Flags, type RunFlags } from "../options.ts";
import { invalidInput } from "../../base/errors.ts";

/** MixDQ's number of samples. */
export const MOST_SAMPLES = 32;

const WEIGHT_BITS = [2, 3, 4, 8];
const ACTIVATION_BITS = [2, 3, 4, 5, 6, 7, 8];

export const SENSITIVITY_USAGE = `mixdq sensitivity --calibration FILE --prompts FILE --out sensitivity.json
  --model DIR           a diffusers folder; default: the model in models/postcard
  --calibration FILE    what mixdq calibrate wrote for this model
  --prompts FILE        text, one prompt a line
  --samples N           the first N prompts, one picture of each; default: all, at most ${MOST_SAMPLES}
  --pictures N          how many of them are decoded for SSIM; default: all
  --ssim all|content    layers that SSIM is measured of; default all (content: those that are judged by it)
  --candidates LIST     bits of weights, of 2,3,4,8; default 2,4,8
  --act-candidates LIST bits of inputs, of 2 to 8, or none; default 4,8
  --range-activations minmax|moving|percentile      default minmax
  --weight-range mse|minmax   default mse      --symmetric   weights without zero point; default: with
  --group 64            a scale per 64 input channels; default: one per output channel
  --shard I/N           every N-th layer from the I-th on (1 to N), for N machines or processes
  --layers LIST         only layers whose module paths contain one of these
  --seed N              start noise of the first prompt, one more for each that follows; default 0
  --steps N             default: the model's own; sample i is taken from step i of N
  --precision fp32|fp16 default fp32
  --adapter NAME --kernels direct|tiled --no-f16 --no-share --debug 1..2
  A run that was killed goes on from sensitivity.json.partial with the same flags, at most one evaluation behind.
mixdq sensitivity merge FILE FILE ... --out sensitivity.json
  Shards of one measurement as a whole; docs/sensitivity.md shows how to spread them over machines.`;

export const SENSITIVITY_FLAGS = {
  ...RUN_FLAGS,
  calibration: { type: "string" },
  prompts: { type: "string" },
  out: { type: "string" },
  samples: { type: "string" },
  pictures: { type: "string" },
  ssim: { type: "string" },
  candidates: { type: "string" },
  "act-candidates": { type: "string" },
  "range-activations": { type: "string" },
  "weight-range": { type: "string" },
  symmetric: { type: "boolean" },
  group: { type: "string" },
  shard: { type: "string" },
  layers: { type: "string" },
  seed: { type: "string" },
  steps: { type: "string" },
} as const;

/** What to measure, and how. */
export interface SensitivityRequest {
  readonly run: RunFlags;
  readonly out: string;
  readonly candidates: Candidates;
  readonly weights: Omit<WeightQuant, "bits">;
  readonly rangeRule: (typeof RANGE_RULES)[number];
  readonly ssim: "all" | "content";
  readonly shard: Shard | undefined;
  /** Parts of module paths; none for all layers. */
  readonly layers: readonly string[];
  readonly pictures: number;
  /** Of the prompts, from the first on. */
  readonly samples: number | undefined;
}

/** Throws `invalid-input`. */
export function readRequest(flags: Flags): SensitivityRequest {
  // What bits cost is measured against the exact model; fp16 has noise of its own, in some layers about that of 8 bits.
  const run = floatRunFlags(flags, "sensitivity disturbs");
  const pictures = integer(flags, "pictures") ?? Infinity;
  if (pictures === 0)
    throw invalidInput("--pictures 0: expected at least one, SSIM is what content layers are judged by.");
  const samples = integer(flags, "samples");
  if (samples === 0) throw invalidInput("--samples 0: expected at least one.");
  const layers = text(flags, "layers");
  return {
    run,
    out: required(flags, "out", "the sensitivity.json to write"),
    candidates: {
      weight: widths(flags, "candidates", "2,4,8", WEIGHT_BITS),
      activation:
        text(flags, "act-candidates") === "none" ? [] : widths(flags, "act-candidates", "4,8", ACTIVATION_BITS),
    },
    weights: weightFlags(flags),
    rangeRule: oneOf(flags, "range-activations", RANGE_RULES) ?? "minmax",
    ssim: oneOf(flags, "ssim", ["all", "content"] as const) ?? "all",
    shard: readShard(text(flags, "shard")),
    layers: layers === undefined ? [] : layers.split(",").map((part) => part.trim()),
    pictures,
    samples,
  };
}

function widths(flags: Flags, name: string, fallback: string, allowed: readonly number[]): readonly number[] {
  const value = text(flags, name) ?? fallback;
  const list = value.split(",").map((item) => Number(item.trim() || NaN));
  if (list.some((bits) => !allowed.includes(bits)))
    throw invalidInput(
      `--${name} ${value}: expected bit-widths of ${allowed.join(", ")} with commas between them, such as ${fallback}.`,
    );
  return [...new Set(list)].sort((a, b) => a - b);
}

function readShard(value: string | undefined): Shard | undefined {
  if (value === undefined) return undefined;
  const [, index, count] = (/^(\d{1,6})\/(\d{1,6})$/.exec(value) ?? []).map(Number);
  if (!index || !count || index > count)
    throw invalidInput(`--shard ${value}: expected I/N with I from 1 to N, such as 2/4.`);
  return { index, count };
}
