/** calibration.json: what `mixdq calibrate` found out about every layer's input. */
import { MixdqError } from "../../base/errors.ts";
import { isObject, show } from "../../base/json.ts";
import type { ValueRange } from "../../quant/config.ts";
import type { LayerStatistics, RangeStatistics } from "./statistics.ts";

const FORMAT = "mixdq-calibration";
const VERSION = 1;

/** SDXL has 794; more than this is not a model of this family. */
const MAX_LAYERS = 20_000;
/** As of tensor names (weights/header.ts). */
const MAX_PATH_LENGTH = 1024;
/** SDXL's file has 0.4 MB. */
const MAX_CALIBRATION_BYTES = 64 * 2 ** 20;

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
  const { model, bos, layers, rest } = openCalibration(text, where, {}, readStatistics);
  const { prompts, provenance = {} } = rest;
  if (!Number.isSafeInteger(prompts) || (prompts as number) < 1)
    throw refuse(where, `prompts ${show(prompts)}`, "a positive whole number");
  if (!isObject(provenance)) throw refuse(where, `provenance ${show(provenance)}`, "an object");
  return { model, prompts: prompts as number, bos, provenance, layers };
}

/**
 * The ranges alone, by one rule. All else that a calibration records may be missing, so that ranges from elsewhere will do:
 * `{"format":"mixdq-calibration","version":1,"bos":true,"layers":{"<module path>":{"act":{"min","max"},"act2":{...}}}}`.
 * Throws `invalid-input`.
 */
export function readRanges(text: string, where: string, rule: RangeRule = "minmax"): Ranges {
  const readAct = (json: unknown, here: string): ValueRange => readRange(json, here, rule);
  const { model, bos, layers } = openCalibration(text, where, { model: "", bos: true }, readAct);
  return { model, bos, layers };
}

/** What both have in common; `readAct` reads what is known of one input. */
function openCalibration<Act>(
  text: string,
  where: string,
  defaults: { readonly model?: string; readonly bos?: boolean },
  readAct: (json: unknown, where: string) => Act,
) {
  if (text.length > MAX_CALIBRATION_BYTES)
    throw refuse(where, `${text.length} characters`, `at most ${MAX_CALIBRATION_BYTES}`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw refuse(where, `something that is not JSON (${String(cause)})`, "a calibration.json", cause);
  }
  if (!isObject(json) || json["format"] !== FORMAT)
    throw refuse(where, `format ${show(isObject(json) ? json["format"] : json)}`, `"${FORMAT}"`);
  const { version, model, bos, layers, ...rest } = { ...defaults, ...json } as Record<string, unknown>;
  if (version !== VERSION) throw refuse(where, `version ${show(version)}`, `${VERSION}`);
  if (typeof model !== "string") throw refuse(where, `model ${show(model)}`, "the model's name");
  if (typeof bos !== "boolean") throw refuse(where, `bos ${show(bos)}`, "true or false");
  if (!isObject(layers)) throw refuse(where, `layers ${show(layers)}`, "an object of module path to ranges");
  const entries = Object.entries(layers);
  if (entries.length === 0 || entries.length > MAX_LAYERS)
    throw refuse(where, `${entries.length} layers`, `1 to ${MAX_LAYERS}`);
  const readLayer = (path: string, layer: unknown): { readonly act: Act; readonly act2?: Act } => {
    if (path.length > MAX_PATH_LENGTH)
      throw refuse(where, `a layer name of ${path.length} characters`, `at most ${MAX_PATH_LENGTH}`);
    const here = `${where}: ${path}`;
    if (!isObject(layer)) throw refuse(here, show(layer), 'an object with "act"');
    const act = readAct(layer["act"], `${here}: act`);
    return layer["act2"] === undefined ? { act } : { act, act2: readAct(layer["act2"], `${here}: act2`) };
  };
  return { model, bos, rest, layers: new Map(entries.map(([path, layer]) => [path, readLayer(path, layer)])) };
}

function readStatistics(json: unknown, where: string): RangeStatistics {
  const { min, max } = readRange(json, where, "minmax");
  const { min: movingMin, max: movingMax } = readRange(json, where, "moving");
  const { min: percentileMin, max: percentileMax } = readRange(json, where, "percentile");
  const [meanSquare, count] = [readNumber(json, where, "meanSquare"), readNumber(json, where, "count")];
  if (meanSquare < 0) throw refuse(where, `meanSquare ${meanSquare}`, "0 or more");
  if (!Number.isSafeInteger(count) || count < 1) throw refuse(where, `count ${count}`, "a positive whole number");
  return { min, max, movingMin, movingMax, percentileMin, percentileMax, meanSquare, count };
}

function readRange(json: unknown, where: string, rule: RangeRule): ValueRange {
  const [low, high] = RANGE_KEYS[rule];
  const [min, max] = [readNumber(json, where, low), readNumber(json, where, high)];
  if (min > max) throw refuse(where, `${low} ${min} above ${high} ${max}`, "an order");
  return { min, max };
}

function readNumber(json: unknown, where: string, key: keyof RangeStatistics): number {
  if (!isObject(json)) throw refuse(where, show(json), "an object with min, max, ...");
  const found = json[key];
  if (typeof found !== "number" || !Number.isFinite(found))
    throw refuse(where, `${key} ${show(found)}`, "a finite number");
  return found;
}

function refuse(where: string, got: string, expected: string, cause?: unknown): MixdqError {
  const message = `${where}: got ${got}, expected ${expected}. Make the file with mixdq calibrate.`;
  return new MixdqError("invalid-input", message.replaceAll("\n", " "), { cause });
}
