/** calibration.json: what `mixdq calibrate` found out about every layer's input. */
import { readJson, type Json } from "../../base/json.ts";
import { show } from "../../base/printable.ts";
import { isModulePath, MODULE_PATH_MEANS, type ValueRange } from "../../quant/config.ts";
import type { LayerStatistics, RangeStatistics } from "./statistics.ts";

const FORMAT = "mixdq-calibration";
const VERSION = 1;

/** SDXL has 794; more than this is not a model of this family. */
const MAX_LAYERS = 20_000;
/** SDXL's file has 0.4 MB. */
const MAX_CHARACTERS = 64 * 2 ** 20;

export interface Calibration {
  readonly model: string;
  readonly prompts: number;
  /** The text's first token was left out of the ranges of cross-attention's keys and values. */
  readonly bos: boolean;
  /** How it was made: seed, steps, precision, ... */
  readonly provenance: Readonly<Record<string, unknown>>;
  /** By module path. */
  readonly layers: ReadonlyMap<string, LayerStatistics>;
}

/** Where the two ends of each recorded range are. */
const RANGE_KEYS = {
  minmax: ["min", "max"],
  moving: ["movingMin", "movingMax"],
  percentile: ["percentileMin", "percentileMax"],
} as const;

/** Which of the recorded ranges an activation is quantized with. */
export type RangeRule = keyof typeof RANGE_KEYS;

export const RANGE_RULES = Object.keys(RANGE_KEYS) as readonly RangeRule[];

export function rangeBy(rule: RangeRule, statistics: RangeStatistics): ValueRange {
  const [low, high] = RANGE_KEYS[rule];
  return { min: statistics[low], max: statistics[high] };
}

/** By module path; `act2` is of the skip half of a convolution over a concatenation, `act` then of the first half. */
export type LayerRanges = ReadonlyMap<string, { readonly act: ValueRange; readonly act2?: ValueRange }>;

/** The part of a calibration that scales are made of. */
export interface Ranges {
  /** "" where the file does not say. */
  readonly model: string;
  readonly bos: boolean;
  readonly layers: LayerRanges;
}

/** One line a layer, so that two files can be compared by eye. */
export function writeCalibration({ model, prompts, bos, provenance, layers }: Calibration): string {
  const head = JSON.stringify({ format: FORMAT, version: VERSION, model, prompts, bos, provenance });
  const rows = [...layers].map(([path, statistics]) => `${JSON.stringify(path)}:${JSON.stringify(statistics)}`);
  return `${head.slice(0, -1)},"layers":{\n${rows.join(",\n")}\n}}\n`;
}

/** `where` is the file, for messages. Throws `invalid-input` for anything that `writeCalibration` would not write. */
export function readCalibration(text: string, where: string): Calibration {
  const file = open(text, where);
  return {
    model: file.get("model").string("the model's name"),
    prompts: file.get("prompts").integer(1, Number.MAX_SAFE_INTEGER),
    bos: file.get("bos").boolean(),
    provenance: file.get("provenance").or({}).object(),
    layers: readLayers(file, readStatistics),
  };
}

/**
 * The ranges alone, by one rule. All else that a calibration records may be missing, so that ranges from elsewhere will do:
 * `{"format":"mixdq-calibration","version":1,"bos":true,"layers":{"<module path>":{"act":{"min","max"},"act2":{...}}}}`.
 * Throws `invalid-input`.
 */
export function readRanges(text: string, where: string, rule: RangeRule = "minmax"): Ranges {
  const file = open(text, where);
  return {
    model: file.get("model").or("").string("the model's name"),
    bos: file.get("bos").or(true).boolean(),
    layers: readLayers(file, (act) => readRange(act, rule)),
  };
}

function open(text: string, where: string): Json {
  const source = { where, code: "invalid-input", advice: "Make the file with mixdq calibrate." } as const;
  const file = readJson(text, source, { most: MAX_CHARACTERS, what: "a calibration.json", uniqueKeys: true });
  file.get("format").oneOf([FORMAT]);
  file.get("version").oneOf([VERSION]);
  return file;
}

/** `readAct` reads what is known of one input. */
function readLayers<Act>(
  file: Json,
  readAct: (act: Json) => Act,
): Map<string, { readonly act: Act; readonly act2?: Act }> {
  const readLayer = (path: string, entry: Json): { readonly act: Act; readonly act2?: Act } => {
    if (!isModulePath(path)) throw file.inside(`the layer ${show(path)}`, MODULE_PATH_MEANS);
    const layer = entry.named(path, file);
    const [act, act2] = [readAct(layer.get("act")), layer.get("act2")];
    return act2.isMissing ? { act } : { act, act2: readAct(act2) };
  };
  const layers = file.get("layers").entries("layers", 1, MAX_LAYERS);
  return new Map(layers.map(([path, layer]) => [path, readLayer(path, layer)]));
}

function readStatistics(json: Json): RangeStatistics {
  const { min, max } = readRange(json, "minmax");
  const { min: movingMin, max: movingMax } = readRange(json, "moving");
  const { min: percentileMin, max: percentileMax } = readRange(json, "percentile");
  const meanSquare = json.get("meanSquare").number(0);
  const count = json.get("count").integer(1, Number.MAX_SAFE_INTEGER);
  return { min, max, movingMin, movingMax, percentileMin, percentileMax, meanSquare, count };
}

/** Values of a network in float32, so ends that float32 holds. */
function readRange(json: Json, rule: RangeRule): ValueRange {
  const [low, high] = RANGE_KEYS[rule];
  const [min, max] = [low, high].map((key) => json.get(key).float32()) as [number, number];
  if (min > max) throw json.inside(`${low} ${min} above ${high} ${max}`, "an order");
  return { min, max };
}
