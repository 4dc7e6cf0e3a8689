/** What `mixdq sensitivity` may be asked, and the checks of it. */
import type { Shard } from "../../mixdq/allocation/sensitivity.ts";
import { RANGE_RULES } from "../../mixdq/calibration/file.ts";
import type { WeightQuant } from "../../quant/formats.ts";
import type { Candidates } from "../../mixdq/sensitivity/sites.ts";
import { floatRunFlags } from "../floatModel.ts";
import { PRECISIONS } from "../../base/choices.ts";
import { choice, integer, required, seed, text, widths, withDefault, type Flag, type Values } from "../flags.ts";
import { modelFlag } from "../defaults.ts";
import { RUN_FLAGS, WEIGHT_FLAGS, weightsOf, type RunFlags } from "../options.ts";
import { invalidInput } from "../../base/errors.ts";
import { printable } from "../../base/printable.ts";

/** MixDQ's number of samples. */
export const MOST_SAMPLES = 32;

const WEIGHT_BITS = [2, 3, 4, 8];
const ACTIVATION_BITS = [2, 3, 4, 5, 6, 7, 8];

export const SENSITIVITY_FLAGS = {
  model: modelFlag("a diffusers folder"),
  calibration: required(
    text("FILE", "what mixdq calibrate wrote for this model"),
    "the calibration.json of this model",
  ),
  prompts: required(text("FILE", "text, one prompt a line"), "a text file with one prompt a line"),
  out: required(text("sensitivity.json", "the file to write"), "the sensitivity.json to write"),
  samples: integer(`the first N prompts, one picture of each; default: all, at most ${MOST_SAMPLES}`),
  pictures: integer("how many of them are decoded for SSIM; default: all"),
  ssim: withDefault(
    choice(["all", "content"], "layers that SSIM is measured of (content: those that are judged by it)"),
    "all",
  ),
  candidates: withDefault(widths("bits of weights, of 2,3,4,8", WEIGHT_BITS), [2, 4, 8], "2,4,8"),
  "act-candidates": withDefault(
    noneOr(widths("bits of inputs, of 2 to 8, or none", ACTIVATION_BITS), []),
    [4, 8],
    "4,8",
  ),
  "range-activations": withDefault(choice(RANGE_RULES, "which of the calibrated ranges"), "minmax"),
  ...WEIGHT_FLAGS,
  shard: shard("every N-th layer from the I-th on (1 to N), for N machines or processes"),
  layers: text("LIST", "only layers whose module paths contain one of these"),
  seed: withDefault(seed("start noise of the first prompt, one more for each that follows"), 0),
  steps: integer("default: the model's own; sample i is taken from step i of N"),
  ...RUN_FLAGS,
  precision: choice(PRECISIONS, "fp32 or fp16, of the model that is measured; default fp32"),
};

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
export function readRequest(flags: Values<typeof SENSITIVITY_FLAGS>): SensitivityRequest {
  // What bits cost is measured against the exact model; fp16 has noise of its own, in some layers about that of 8 bits.
  const run = floatRunFlags(flags, "sensitivity disturbs");
  const { pictures = Infinity, samples, layers, out, ssim } = flags;
  if (pictures === 0)
    throw invalidInput("--pictures 0: expected at least one, SSIM is what content layers are judged by.");
  if (samples === 0) throw invalidInput("--samples 0: expected at least one.");
  return {
    ...{ run, out, ssim, pictures, samples },
    candidates: { weight: flags.candidates, activation: flags["act-candidates"] },
    weights: weightsOf(flags),
    rangeRule: flags["range-activations"],
    shard: flags.shard,
    layers: layers === undefined ? [] : layers.split(",").map((part) => part.trim()),
  };
}

/** The flag, which may also say that there is none. */
function noneOr<T>(flag: Flag<T | undefined>, none: T): Flag<T | undefined> {
  return { ...flag, parse: (given, name) => (given === "none" ? none : flag.parse(given, name)) };
}

function shard(help: string): Flag<Shard | undefined> {
  return {
    placeholder: "I/N",
    help,
    parse(value) {
      if (value === undefined) return undefined;
      const [, index, count] = (/^(\d{1,6})\/(\d{1,6})$/.exec(value) ?? []).map(Number);
      if (!index || !count || index > count)
        throw invalidInput(`--shard ${printable(value)}: expected I/N with I from 1 to N, such as 2/4.`);
      return { index, count };
    },
  };
}
