/**
 * mixdq.json: which layers of a UNet run in how many bits, with the scales of their inputs. One entry per module path, as
 * diffusers names modules; layers that are not listed run in 16-bit float.
 */
import { MixdqError } from "../base/errors.ts";
import { isObject, show } from "../base/json.ts";
import { activationQuant, type ActivationQuant } from "./activations.ts";
import type { WeightBits, WeightQuant } from "./formats.ts";
import { SMALLEST_SCALE } from "./rounding.ts";

/** 16: the layer stays in 16-bit float. */
export type ConfigWeightBits = WeightBits | 16;
/** 16: the input is not quantized (weight-only). */
export type ConfigActBits = 4 | 8 | 16;

export interface LayerBits {
  readonly weightBits: ConfigWeightBits;
  readonly actBits: ConfigActBits;
}

export interface LayerConfig extends LayerBits {
  /** The input, as unsigned codes; there wherever actBits is 4 or 8. */
  readonly act?: ActivationQuant;
  /** The second half of the input of a convolution over a concatenation; `act` is then the first half's. */
  readonly act2?: ActivationQuant;
}

export interface MixdqConfig {
  /** The model that it was made for; "" where the file does not say. */
  readonly model: string;
  readonly weights: Omit<WeightQuant, "bits">;
  /** By module path. */
  readonly layers: ReadonlyMap<string, LayerConfig>;
  /** Row 0 of the keys and values of cross-attention comes from the cache of the float weights. */
  readonly bos: boolean;
  /** As the file's writer counted them. */
  readonly averageWeightBits: number | undefined;
  /** How it was made; free form. */
  readonly provenance: Readonly<Record<string, unknown>>;
}

/** A calibrated range of values. */
export interface ValueRange {
  readonly min: number;
  readonly max: number;
}

/** SDXL has 794 quantizable layers. */
export const MAX_LAYERS = 100_000;
/** About 80 characters long in reality; they end up in messages. */
const MODULE_PATH = /^[\w.-]{1,1024}$/;
const FORMAT = "mixdq-config";
const VERSION = 1;
const WEIGHT_BITS: readonly unknown[] = [2, 3, 4, 8, 16];
const ACT_BITS: readonly unknown[] = [4, 8, 16];
const LAYER_KEYS: readonly string[] = ["weightBits", "actBits", "act", "act2"];
const WEIGHTS_KEYS: readonly string[] = ["symmetric", "range", "group"];

/**
 * Checks a parsed mixdq.json. Scales are rounded to f32, which is what kernels multiply with. Unknown keys of a layer are
 * refused (they would be settings that do nothing), unknown keys of the file ignored. `where` is the file, for messages.
 * Throws `invalid-input`.
 */
export function readMixdqConfig(json: unknown, where: string): MixdqConfig {
  const file = object(json, where);
  expectThat(file.format === FORMAT, where, `"format" ${show(file.format)}`, `"${FORMAT}"`);
  expectThat(file.version === VERSION, where, `"version" ${show(file.version)}`, `${VERSION}`);
  const { model, bos, averageWeightBits, provenance } = withoutNulls({ model: "", bos: true, provenance: {} }, file);
  expectThat(typeof model === "string", where, `"model" ${show(model)}`, "a string");
  expectThat(typeof bos === "boolean", where, `"bos" ${show(bos)}`, "true or false");
  const isAverage =
    averageWeightBits === undefined ||
    (typeof averageWeightBits === "number" && averageWeightBits > 0 && averageWeightBits <= 32);
  expectThat(isAverage, where, `"averageWeightBits" ${show(averageWeightBits)}`, "a number of bits");
  const layers = object(file.layers, `${where}: layers`);
  const paths = Object.keys(layers);
  expectThat(paths.length <= MAX_LAYERS, where, `${paths.length} layers`, `at most ${MAX_LAYERS}`);
  return {
    model: model as string,
    weights: readWeights(file.weights, `${where}: weights`),
    layers: new Map(paths.map((path) => [path, readLayer(layers[path], path, where)])),
    bos: bos as boolean,
    averageWeightBits: averageWeightBits as number | undefined,
    provenance: object(provenance, `${where}: provenance`),
  };
}

/** The text of a mixdq.json, one layer a line, in the order of `layers`. */
export function writeMixdqConfig(config: MixdqConfig): string {
  const { layers, averageWeightBits, ...rest } = config;
  const lines = Array.from(layers, ([path, layer]) => `    ${JSON.stringify(path)}: ${JSON.stringify(layer)}`);
  return [
    "{",
    `  "format": "${FORMAT}",`,
    `  "version": ${VERSION},`,
    `  "model": ${JSON.stringify(rest.model)},`,
    `  "weights": ${JSON.stringify(rest.weights)},`,
    `  "bos": ${JSON.stringify(rest.bos)},`,
    ...(averageWeightBits === undefined ? [] : [`  "averageWeightBits": ${averageWeightBits},`]),
    `  "provenance": ${JSON.stringify(rest.provenance)},`,
    ...(lines.length === 0 ? [`  "layers": {}`] : [`  "layers": {`, lines.join(",\n"), "  }"]),
    "}\n",
  ].join("\n");
}

export const isModulePath = (path: string): boolean => MODULE_PATH.test(path);

/** How a layer's weights are quantized; undefined where they stay in 16-bit float. */
export function weightQuantOf(config: MixdqConfig, path: string): WeightQuant | undefined {
  const bits = config.layers.get(path)?.weightBits ?? 16;
  return bits === 16 ? undefined : { bits, ...config.weights };
}

/**
 * Bits per weight: over the layers in integers, and over all layers with 16 for those in float; scales are not counted.
 * `weightCounts` holds every quantizable layer of the model. Throws `invalid-input` for a layer that it does not know.
 */
export function averageWeightBits(
  config: Pick<MixdqConfig, "layers">,
  weightCounts: ReadonlyMap<string, number>,
): { quantized: number; all: number } {
  let [integerBits, integers, total] = [0, 0, 0];
  for (const count of weightCounts.values()) total += count;
  for (const [path, { weightBits }] of config.layers) {
    const count = weightCounts.get(path);
    if (count === undefined) {
      const advice = "Use the configuration with the model it was made for.";
      throw new MixdqError("invalid-input", `${path}: got a layer that the model does not have. ${advice}`);
    }
    if (weightBits === 16) continue;
    integerBits += weightBits * count;
    integers += count;
  }
  return {
    quantized: integers === 0 ? 16 : integerBits / integers,
    all: total === 0 ? 16 : (integerBits + 16 * (total - integers)) / total,
  };
}

/**
 * Bit-widths and calibrated ranges of the inputs, joined to what a configuration holds. Layers whose input is not
 * quantized need no range. Throws `invalid-input` for a layer without one.
 */
export function attachRanges(
  layers: ReadonlyMap<string, LayerBits>,
  ranges: ReadonlyMap<string, { readonly act: ValueRange; readonly act2?: ValueRange | undefined }>,
): Map<string, LayerConfig> {
  return new Map(
    Array.from(layers, ([path, { weightBits, actBits }]): [string, LayerConfig] => {
      if (actBits === 16) return [path, { weightBits, actBits }];
      const range = ranges.get(path);
      if (range === undefined) {
        const advice = "Calibrate with the model that the bit-widths are for.";
        throw new MixdqError("invalid-input", `${path}: got no calibrated range, expected one. ${advice}`);
      }
      const { act, act2 } = range;
      const layer = { weightBits, actBits, act: activationQuant(act.min, act.max, actBits, path) };
      return [path, act2 ? { ...layer, act2: activationQuant(act2.min, act2.max, actBits, path) } : layer];
    }),
  );
}

function readWeights(json: unknown, where: string): MixdqConfig["weights"] {
  const weights = object(json, where);
  onlyKeys(weights, WEIGHTS_KEYS, where);
  const { symmetric, range, group = null } = weights;
  expectThat(typeof symmetric === "boolean", where, `"symmetric" ${show(symmetric)}`, "true or false");
  expectThat(range === "minmax" || range === "mse", where, `"range" ${show(range)}`, `"minmax" or "mse"`);
  expectThat(group === null || group === 64, where, `"group" ${show(group)}`, "null or 64");
  return { symmetric, range, group } as MixdqConfig["weights"];
}

function readLayer(json: unknown, path: string, file: string): LayerConfig {
  expectThat(isModulePath(path), file, `the layer ${show(path)}`, "a module path: letters, digits, _ - and dots");
  const where = `${file}: ${path}`;
  const layer = withoutNulls({}, object(json, where));
  onlyKeys(layer, LAYER_KEYS, where);
  const { weightBits, actBits } = layer;
  expectThat(WEIGHT_BITS.includes(weightBits), where, `"weightBits" ${show(weightBits)}`, "2, 3, 4, 8 or 16");
  expectThat(ACT_BITS.includes(actBits), where, `"actBits" ${show(actBits)}`, "4, 8 or 16");
  const bits = { weightBits, actBits } as LayerBits;
  const isFloat = bits.weightBits !== 16 || bits.actBits === 16;
  expectThat(isFloat, where, `"actBits" ${bits.actBits} with "weightBits" 16`, `"actBits" 16: such a layer is float`);
  const top = bits.actBits === 4 ? 15 : 255;
  const read = (key: "act" | "act2") =>
    layer[key] === undefined ? {} : { [key]: readAct(layer[key], top, `${where}: ${key}`) };
  const needsAct = bits.actBits !== 16 || layer.act2 !== undefined;
  expectThat(!needsAct || layer.act !== undefined, where, `no "act"`, "the scale and zeroPoint of the layer's input");
  return { ...bits, ...read("act"), ...read("act2") };
}

function readAct(json: unknown, top: number, where: string): ActivationQuant {
  const act = object(json, where);
  onlyKeys(act, ["scale", "zeroPoint"], where);
  const scale = typeof act.scale === "number" ? Math.fround(act.scale) : Number.NaN;
  const isScale = scale >= SMALLEST_SCALE && scale < Infinity;
  expectThat(isScale, where, `"scale" ${show(act.scale)}`, "a positive number that float32 can hold");
  const zeroPoint = act.zeroPoint as number;
  const isCode = Number.isInteger(zeroPoint) && zeroPoint >= 0 && zeroPoint <= top;
  expectThat(isCode, where, `"zeroPoint" ${show(zeroPoint)}`, `an integer from 0 to ${top}`);
  return { scale, zeroPoint };
}

function object(json: unknown, where: string): Readonly<Record<string, unknown>> {
  expectThat(isObject(json), where, show(json), "a JSON object");
  return json;
}

/** Programs that write absent values as null mean their defaults. */
function withoutNulls(defaults: object, json: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return { ...defaults, ...Object.fromEntries(Object.entries(json).filter(([, value]) => value !== null)) };
}

function onlyKeys(json: Readonly<Record<string, unknown>>, keys: readonly string[], where: string): void {
  const unknown = Object.keys(json).find((key) => !keys.includes(key));
  expectThat(unknown === undefined, where, `the key ${show(unknown)}`, `only ${keys.join(", ")}`);
}

function expectThat(condition: boolean, where: string, got: string, expected: string): asserts condition {
  if (condition) return;
  throw new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. Correct the file.`);
}
