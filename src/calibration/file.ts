/** calibration.json: what `mixdq calibrate` found out about every layer's input. */
import { MixdqError } from "../errors.ts";
import type { LayerStatistics, RangeStatistics } from "./statistics.ts";

const FORMAT = "mixdq-calibration";
const VERSION = 1;

/** SDXL has 794; more than this is not a model of this family. */
const MAX_LAYERS = 20_000;
/** As of tensor names (weights/header.ts). */
const MAX_PATH_LENGTH = 1024;
/** SDXL's file has 0.4 MB. */
export const MAX_CALIBRATION_BYTES = 64 * 2 ** 20;

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

/** One line a layer, so that two files can be compared by eye. */
export function writeCalibration({ model, prompts, bos, provenance, layers }: Calibration): string {
  const head = JSON.stringify({ format: FORMAT, version: VERSION, model, prompts, bos, provenance });
  const rows = [...layers].map(([path, statistics]) => `${JSON.stringify(path)}:${JSON.stringify(statistics)}`);
  return `${head.slice(0, -1)},"layers":{\n${rows.join(",\n")}\n}}\n`;
}

/** `where` is the file, for messages. Throws `invalid-input` for anything that `writeCalibration` would not write. */
export function readCalibration(text: string, where: string): Calibration {
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
  const { version, model, prompts, bos, provenance = {}, layers } = json;
  if (version !== VERSION) throw refuse(where, `version ${show(version)}`, `${VERSION}`);
  if (typeof model !== "string") throw refuse(where, `model ${show(model)}`, "the model's name");
  if (!Number.isSafeInteger(prompts) || (prompts as number) < 1)
    throw refuse(where, `prompts ${show(prompts)}`, "a positive whole number");
  if (typeof bos !== "boolean") throw refuse(where, `bos ${show(bos)}`, "true or false");
  if (!isObject(provenance)) throw refuse(where, `provenance ${show(provenance)}`, "an object");
  if (!isObject(layers)) throw refuse(where, `layers ${show(layers)}`, "an object of module path to ranges");
  const entries = Object.entries(layers);
  if (entries.length === 0 || entries.length > MAX_LAYERS)
    throw refuse(where, `${entries.length} layers`, `1 to ${MAX_LAYERS}`);
  return {
    model,
    prompts: prompts as number,
    bos,
    provenance,
    layers: new Map(entries.map(([path, value]) => [path, readLayer(path, value, where)])),
  };
}

function readLayer(path: string, value: unknown, where: string): LayerStatistics {
  if (path.length > MAX_PATH_LENGTH)
    throw refuse(where, `a layer name of ${path.length} characters`, `at most ${MAX_PATH_LENGTH}`);
  if (!isObject(value)) throw refuse(`${where}: ${path}`, show(value), 'an object with "act"');
  const { act, act2 } = value;
  return {
    act: readRange(act, `${where}: ${path}: act`),
    ...(act2 !== undefined && { act2: readRange(act2, `${where}: ${path}: act2`) }),
  };
}

function readRange(value: unknown, where: string): RangeStatistics {
  if (!isObject(value)) throw refuse(where, show(value), "an object with min, max, ...");
  const number = (key: keyof RangeStatistics): number => {
    const found = value[key];
    if (typeof found !== "number" || !Number.isFinite(found))
      throw refuse(where, `${key} ${show(found)}`, "a finite number");
    return found;
  };
  const range = {
    min: number("min"),
    max: number("max"),
    movingMin: number("movingMin"),
    movingMax: number("movingMax"),
    percentileMin: number("percentileMin"),
    percentileMax: number("percentileMax"),
    meanSquare: number("meanSquare"),
    count: number("count"),
  };
  for (const [low, high] of [
    ["min", "max"],
    ["movingMin", "movingMax"],
    ["percentileMin", "percentileMax"],
  ] as const)
    if (range[low] > range[high]) throw refuse(where, `${low} ${range[low]} above ${high} ${range[high]}`, "an order");
  if (range.meanSquare < 0) throw refuse(where, `meanSquare ${range.meanSquare}`, "0 or more");
  if (!Number.isSafeInteger(range.count) || range.count < 1)
    throw refuse(where, `count ${range.count}`, "a positive whole number");
  return range;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A stranger's value, short enough for one line. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

function refuse(where: string, got: string, expected: string, cause?: unknown): MixdqError {
  const message = `${where}: got ${got}, expected ${expected}. Make the file with mixdq calibrate.`;
  return new MixdqError("invalid-input", message.replaceAll("\n", " "), { cause });
}
