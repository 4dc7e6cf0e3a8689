/**
 * mixdq.json: which layers of a UNet run in how many bits, with the scales of their inputs. One entry per module path, as
 * diffusers names modules; layers that are not listed run in 16-bit float.
 */
import { MixdqError } from "../base/errors.ts";
import { Json, readJson, type JsonSource } from "../base/json.ts";
import { show } from "../base/printable.ts";
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
/** A few hundred bytes a layer: SDXL's file has 150 kB. */
const MAX_CHARACTERS = 32 * 2 ** 20;
/** About 80 characters long in reality; they end up in messages. */
const MODULE_PATH = /^[\w.-]{1,1024}$/;
const FORMAT = "mixdq-config";
const VERSION = 1;
const WEIGHT_BITS = [2, 3, 4, 8, 16] as const satisfies readonly ConfigWeightBits[];
const ACT_BITS = [4, 8, 16] as const satisfies readonly ConfigActBits[];
/** A hundred thousand layers in float and one in 2 bits. */
const LEAST_AVERAGE = 1e-6;
const LAYER_KEYS: readonly string[] = ["weightBits", "actBits", "act", "act2"];
const WEIGHTS_KEYS: readonly string[] = ["symmetric", "range", "group"];

const sourceOf = (where: string): JsonSource => ({ where, code: "invalid-input", advice: "Correct the file." });

/** The same of the file's text. Throws `invalid-input`. */
export function parseMixdqConfig(text: string, where: string): MixdqConfig {
  return read(readJson(text, sourceOf(where), { most: MAX_CHARACTERS, what: "a mixdq.json", uniqueKeys: true }));
}

/**
 * Checks a parsed mixdq.json. Scales are rounded to f32, which is what kernels multiply with. Unknown keys of a layer are
 * refused (they would be settings that do nothing), unknown keys of the file ignored. `where` is the file, for messages.
 * Throws `invalid-input`.
 */
export function readMixdqConfig(json: unknown, where: string): MixdqConfig {
  return read(new Json(json, sourceOf(where)));
}

function read(file: Json): MixdqConfig {
  file.get("format").oneOf([FORMAT]);
  file.get("version").oneOf([VERSION]);
  const average = file.get("averageWeightBits");
  return {
    model: file.get("model").or("").string(),
    weights: readWeights(file.get("weights")),
    layers: new Map(
      file
        .get("layers")
        .entries("layers", 0, MAX_LAYERS)
        .map(([path, layer]) => [path, readLayer(layer, path, file)]),
    ),
    bos: file.get("bos").or(true).boolean(),
    averageWeightBits: average.isMissing ? undefined : average.number(LEAST_AVERAGE, 32),
    provenance: file.get("provenance").or({}).object(),
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

export const MODULE_PATH_MEANS = "a module path: at most 1024 letters, digits, _ - and dots";

export const isModulePath = (path: string): boolean => MODULE_PATH.test(path);

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

function readWeights(json: Json): MixdqConfig["weights"] {
  json.onlyKeys(WEIGHTS_KEYS);
  return {
    symmetric: json.get("symmetric").boolean(),
    range: json.get("range").oneOf(["minmax", "mse"]),
    group: json.get("group").or(null).oneOf([null, 64]),
  };
}

function readLayer(entry: Json, path: string, file: Json): LayerConfig {
  if (!isModulePath(path)) throw file.inside(`the layer ${show(path)}`, MODULE_PATH_MEANS);
  const layer = entry.named(path, file);
  layer.onlyKeys(LAYER_KEYS);
  const [weightBits, actBits] = [layer.get("weightBits").oneOf(WEIGHT_BITS), layer.get("actBits").oneOf(ACT_BITS)];
  if (weightBits === 16 && actBits !== 16)
    throw layer.inside(`"actBits" ${actBits} with "weightBits" 16`, `"actBits" 16: such a layer is float`);
  const top = actBits === 4 ? 15 : 255;
  const [act, act2] = [layer.get("act"), layer.get("act2")];
  if ((actBits !== 16 || !act2.isMissing) && act.isMissing)
    throw layer.inside(`no "act"`, "the scale and zeroPoint of the layer's input");
  return {
    weightBits,
    actBits,
    ...(!act.isMissing && { act: readAct(act, top) }),
    ...(!act2.isMissing && { act2: readAct(act2, top) }),
  };
}

function readAct(act: Json, top: number): ActivationQuant {
  act.onlyKeys(["scale", "zeroPoint"]);
  const json = act.get("scale");
  const scale = typeof json.value === "number" ? Math.fround(json.value) : Number.NaN;
  if (!(scale >= SMALLEST_SCALE && scale < Infinity)) json.fail("a positive number that float32 can hold");
  return { scale, zeroPoint: act.get("zeroPoint").integer(0, top) };
}
