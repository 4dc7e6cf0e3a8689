/** The part of a calibration.json that an allocation needs: the ranges of the inputs, by one of the rules it records. */
import { MixdqError } from "../errors.ts";
import type { ValueRange } from "../quant/config.ts";

export type RangeRule = "minmax" | "moving" | "percentile";

const KEYS: Readonly<Record<RangeRule, readonly [min: string, max: string]>> = {
  minmax: ["min", "max"],
  moving: ["movingMin", "movingMax"],
  percentile: ["percentileMin", "percentileMax"],
};

export const RANGE_RULES = Object.keys(KEYS) as RangeRule[];

export interface Ranges {
  /** "" where the file does not say. */
  readonly model: string;
  /** The text's first token was left out. */
  readonly bos: boolean;
  /** By module path. */
  readonly layers: ReadonlyMap<string, { readonly act: ValueRange; readonly act2?: ValueRange }>;
}

export const MAX_CALIBRATION_BYTES = 64 * 2 ** 20;
const MAX_LAYERS = 20_000;

/**
 * Reads what it needs and passes over the rest, so that ranges from elsewhere do too: `{"format":"mixdq-calibration",
 * "version":1,"bos":true,"layers":{"<path>":{"act":{"min","max"},"act2":{...}}}}`. Throws `invalid-input`.
 */
export function readRanges(text: string, where: string, rule: RangeRule = "minmax"): Ranges {
  if (text.length > MAX_CALIBRATION_BYTES)
    throw refuse(where, `${text.length} characters`, `at most ${MAX_CALIBRATION_BYTES}`);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw refuse(where, `text that is not JSON (${String(cause).replaceAll("\n", " ")})`, "a calibration.json");
  }
  const { format, version, model = "", bos = true, layers } = object(json, where);
  if (format !== "mixdq-calibration" || version !== 1)
    throw refuse(where, `format ${show(format)}, version ${show(version)}`, '"mixdq-calibration", 1');
  if (typeof model !== "string") throw refuse(where, `"model" ${show(model)}`, "the model's name");
  if (typeof bos !== "boolean") throw refuse(where, `"bos" ${show(bos)}`, "true or false");
  const entries = Object.entries(object(layers, `${where}: "layers"`));
  if (entries.length > MAX_LAYERS) throw refuse(where, `${entries.length} layers`, `at most ${MAX_LAYERS}`);
  const [low, high] = KEYS[rule];
  const readRange = (range: unknown, here: string): ValueRange => {
    const { [low]: min, [high]: max } = object(range, here);
    const isRange = Number.isFinite(min) && Number.isFinite(max) && (min as number) <= (max as number);
    if (!isRange) throw refuse(here, `${low} ${show(min)}, ${high} ${show(max)}`, `finite numbers, ${low} <= ${high}`);
    return { min: min as number, max: max as number };
  };
  return {
    model,
    bos,
    layers: new Map(
      entries.map(([path, layer]) => {
        const here = `${where}: ${path}`;
        const { act, act2 } = object(layer, here);
        const first = { act: readRange(act, `${here}: act`) };
        return [path, act2 === undefined ? first : { ...first, act2: readRange(act2, `${here}: act2`) }];
      }),
    ),
  };
}

function object(json: unknown, where: string): Readonly<Record<string, unknown>> {
  if (typeof json !== "object" || json === null || Array.isArray(json))
    throw refuse(where, show(json), "a JSON object");
  return json as Record<string, unknown>;
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

function refuse(where: string, got: string, expected: string): MixdqError {
  return new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. Make it with mixdq calibrate.`);
}
