/**
 * sensitivity.json: how much a picture suffers when one layer's weights, or its input, are quantized to so many bits
 * and everything else stays in float. Two metrics, both larger for better: `sqnr` of the UNet's output in dB, `ssim` of
 * the decoded picture. MixDQ (arXiv 2405.17873) section 3.2: layers that carry content (cross-attention, feed-forward)
 * are judged by SSIM, all others by SQNR.
 */
import { MixdqError } from "../../base/errors.ts";
import { isObject, show } from "../../base/json.ts";

export type Group = "content" | "quality";

/** In this order wherever groups are listed. */
export const GROUPS: readonly Group[] = ["content", "quality"];

/** What a group's layers are judged by. */
export const METRIC_OF: Readonly<Record<Group, string>> = { content: "ssim", quality: "sqnr" };

/** Metric, to bits, to its value. A file may hold more metrics than the two above. */
export type Metrics = ReadonlyMap<string, ReadonlyMap<number, number>>;

export interface LayerSensitivity {
  readonly group: Group;
  /** Elements of the weight. */
  readonly weights: number;
  /** Elements of the input, for one picture; 0 where the file does not say. */
  readonly activations: number;
  readonly weight: Metrics;
  /** Empty where only weights were measured. */
  readonly activation: Metrics;
}

/** Which part of a measurement a file is: 1 of 4 to 4 of 4, as `--shard 1/4` says it. */
export interface Shard {
  readonly index: number;
  readonly count: number;
}

export interface Sensitivity {
  /** "" where the file does not say. */
  readonly model: string;
  /** Pictures that each value is a mean over; 0 where the file does not say. */
  readonly samples: number;
  readonly shard: Shard | undefined;
  /** How it was measured; free form. */
  readonly provenance: Readonly<Record<string, unknown>>;
  /** By module path. */
  readonly layers: ReadonlyMap<string, LayerSensitivity>;
}

const FORMAT = "mixdq-sensitivity";
const VERSION = 1;
/** SDXL-Turbo's file has 0.4 MB. */
const MAX_SENSITIVITY_BYTES = 64 * 2 ** 20;
/** SDXL has 794; more than this is not a model of this family. */
const MAX_LAYERS = 20_000;
/** As of tensor names (weights/header.ts). */
const MAX_PATH_LENGTH = 1024;
const MAX_METRICS = 32;
const MAX_BITS = 16;
/** Far beyond any dB; sums of larger numbers would lose the digits that decide. */
const MAX_VALUE = 1e6;
const MAX_SHARDS = 100_000;
/** So that sums of counts times bits stay exact in a double. */
const MAX_COUNT = 2 ** 40;

/**
 * Checks the text of a sensitivity.json. Every layer has its group's metric for its weights; whether it has the bits that
 * somebody wants is for them to ask (`valueAt`), and whether the layers are the model's too. `where` is the file, for
 * messages. Throws `invalid-input`.
 */
export function readSensitivity(text: string, where: string): Sensitivity {
  if (text.length > MAX_SENSITIVITY_BYTES)
    throw refuse(where, `${text.length} characters`, `at most ${MAX_SENSITIVITY_BYTES}`);
  const file = parse(text, where);
  if (file["format"] !== FORMAT) throw refuse(where, `"format" ${show(file["format"])}`, `"${FORMAT}"`);
  if (file["version"] !== VERSION) throw refuse(where, `"version" ${show(file["version"])}`, `${VERSION}`);
  const { model = "", samples = 0, shard, provenance = {}, layers } = file;
  if (typeof model !== "string") throw refuse(where, `"model" ${show(model)}`, "the model's name");
  const entries = Object.entries(object(layers, `${where}: "layers"`));
  if (entries.length === 0 || entries.length > MAX_LAYERS)
    throw refuse(where, `${entries.length} layers`, `1 to ${MAX_LAYERS}`);
  return {
    model,
    samples: integer(samples, 0, MAX_COUNT, `${where}: "samples"`),
    shard: shard === undefined ? undefined : readShard(shard, `${where}: "shard"`),
    provenance: object(provenance, `${where}: "provenance"`),
    layers: new Map(entries.map(([path, layer]) => [path, readLayer(path, layer, where)])),
  };
}

/** The text of a sensitivity.json, one layer a line, in the order of `layers`. */
export function writeSensitivity({ model, samples, shard, provenance, layers }: Sensitivity): string {
  const head = JSON.stringify({ format: FORMAT, version: VERSION, model, samples, shard, provenance });
  const rows = Array.from(layers, ([path, { weight, activation, ...layer }]) => {
    const values = { ...layer, weight: plain(weight), ...(activation.size > 0 && { activation: plain(activation) }) };
    return `${JSON.stringify(path)}:${JSON.stringify(values)}`;
  });
  return `${head.slice(0, -1)},"layers":{\n${rows.join(",\n")}\n}}\n`;
}

/**
 * The shards of one measurement as a whole, layers sorted by path: whatever order the shards come in, the result is the
 * same. Throws `invalid-input` where they are not of one measurement, one is missing or there twice, or two of them
 * disagree about a layer.
 */
export function mergeSensitivities(shards: readonly { where: string; sensitivity: Sensitivity }[]): Sensitivity {
  const [first] = shards;
  if (!first) throw new MixdqError("invalid-input", "sensitivity merge: got no shards, expected all of a measurement.");
  const { model, samples, provenance } = first.sensitivity;
  const count = first.sensitivity.shard?.count;
  const layers = new Map<string, { where: string; layer: LayerSensitivity }>();
  const seen = new Map<number, string>();
  for (const { where, sensitivity } of shards) {
    const advice = "Merge the shards of one run.";
    const agree = (what: string, got: unknown, expected: unknown): void => {
      if (got !== expected)
        throw refuse(where, `${what} ${show(got)}`, `${show(expected)} as in ${first.where}`, advice);
    };
    agree('"model"', sensitivity.model, model);
    agree('"samples"', sensitivity.samples, samples);
    agree('"provenance"', JSON.stringify(sensitivity.provenance), JSON.stringify(provenance));
    if (!sensitivity.shard) throw refuse(where, `no "shard"`, "which part of the measurement it is", advice);
    agree('"shard" count', sensitivity.shard.count, count);
    const { index } = sensitivity.shard;
    const twin = seen.get(index);
    if (twin !== undefined) throw refuse(where, `shard ${index}`, `each once, and ${twin} is it too`, advice);
    seen.set(index, where);
    for (const [path, layer] of sensitivity.layers) {
      const known = layers.get(path);
      if (known && !isSame(known.layer, layer))
        throw refuse(
          `${where}: ${path}`,
          `other values than in ${known.where}`,
          "the same",
          "Measure the layer again.",
        );
      layers.set(path, known ?? { where, layer });
    }
  }
  const missing = Array.from({ length: count! }, (_, i) => i + 1).filter((index) => !seen.has(index));
  if (missing.length > 0) {
    const list = missing.slice(0, 8).join(", ") + (missing.length > 8 ? ", ..." : "");
    throw refuse("sensitivity merge", `${seen.size} shards`, `all ${count}`, `Add ${list}.`);
  }
  const merged = [...layers.keys()]
    .sort(byPath)
    .map((path): [string, LayerSensitivity] => [path, layers.get(path)!.layer]);
  return { model, samples, shard: undefined, provenance, layers: new Map(merged) };
}

/**
 * What a layer's weights (or input) are worth at so many bits, by its group's metric unless `metric` says otherwise.
 * Throws `invalid-input` where the file does not say; `where` is the file.
 */
export function valueAt(
  layer: LayerSensitivity,
  side: "weight" | "activation",
  bits: number,
  where: string,
  metric = METRIC_OF[layer.group],
): number {
  const values = layer[side].get(metric);
  const value = values?.get(bits);
  if (value !== undefined) return value;
  const got = values ? `${side} ${metric} at ${[...values.keys()].join(", ")} bits` : `no ${side} ${metric}`;
  throw refuse(where, got, `its value at ${bits} bits`, "Measure it, or leave these bits out.");
}

/** By UTF-16 code units: the same on every machine, in whatever language. */
export function byPath(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function parse(text: string, where: string): Readonly<Record<string, unknown>> {
  try {
    return object(JSON.parse(text), where);
  } catch (cause) {
    if (cause instanceof MixdqError) throw cause;
    // What Python's json.dump writes for a value that is not a number, and JSON does not have.
    const token = /[:,[]\s*(-?(?:NaN|Infinity))/.exec(text)?.[1];
    if (token) throw refuse(where, token, "finite numbers", "Measure those layers again.");
    throw refuse(where, `text that is not JSON (${String(cause).replaceAll("\n", " ")})`, "a sensitivity.json");
  }
}

function readShard(json: unknown, where: string): Shard {
  const shard = object(json, where);
  const count = integer(shard["count"], 1, MAX_SHARDS, `${where}: "count"`);
  return { index: integer(shard["index"], 1, count, `${where}: "index"`), count };
}

function readLayer(path: string, json: unknown, file: string): LayerSensitivity {
  if (path.length === 0 || path.length > MAX_PATH_LENGTH)
    throw refuse(file, `a layer's name of ${path.length} characters`, `1 to ${MAX_PATH_LENGTH}`);
  const where = `${file}: ${path}`;
  const layer = object(json, where);
  const group = layer["group"] as Group;
  if (!GROUPS.includes(group)) throw refuse(where, `"group" ${show(group)}`, GROUPS.map(show).join(" or "));
  const weight = readMetrics(layer["weight"], `${where}: "weight"`);
  const { activations = 0, activation } = layer;
  const metric = METRIC_OF[group];
  if (!weight.has(metric)) throw refuse(where, `no weight ${metric}`, `what ${group} layers are judged by`);
  return {
    group,
    weights: integer(layer["weights"], 1, MAX_COUNT, `${where}: "weights"`),
    activations: integer(activations, 0, MAX_COUNT, `${where}: "activations"`),
    weight,
    activation: activation === undefined ? new Map() : readMetrics(activation, `${where}: "activation"`),
  };
}

function readMetrics(json: unknown, where: string): Metrics {
  const metrics = Object.entries(object(json, where));
  if (metrics.length > MAX_METRICS) throw refuse(where, `${metrics.length} metrics`, `at most ${MAX_METRICS}`);
  return new Map(
    metrics.map(([metric, values]) => {
      const here = `${where}: ${show(metric)}`;
      const entries = Object.entries(object(values, here));
      if (entries.length === 0) throw refuse(here, "no values", "one for each bit-width");
      return [metric, new Map(entries.map(([bits, value]) => readValue(bits, value, here)))];
    }),
  );
}

function readValue(bits: string, value: unknown, where: string): [number, number] {
  if (!/^[1-9]\d?$/.test(bits) || Number(bits) > MAX_BITS)
    throw refuse(where, `bits ${show(bits)}`, `whole numbers such as "4", at most "${MAX_BITS}"`);
  if (typeof value !== "number" || !(Math.abs(value) <= MAX_VALUE)) {
    const expected = `a finite number of at most ${MAX_VALUE}`;
    throw refuse(where, `${show(value)} at ${bits} bits`, expected, "Measure the layer again.");
  }
  return [Number(bits), value];
}

function plain(metrics: Metrics): Record<string, Record<string, number>> {
  return Object.fromEntries(Array.from(metrics, ([metric, values]) => [metric, Object.fromEntries(values)]));
}

function isSame(a: LayerSensitivity, b: LayerSensitivity): boolean {
  const sameValues = (x: ReadonlyMap<number, number>, y: ReadonlyMap<number, number> | undefined): boolean =>
    x.size === y?.size && [...x].every(([bits, value]) => y.get(bits) === value);
  const sameMetrics = (x: Metrics, y: Metrics): boolean =>
    x.size === y.size && [...x].every(([metric, values]) => sameValues(values, y.get(metric)));
  return (
    a.group === b.group &&
    a.weights === b.weights &&
    a.activations === b.activations &&
    sameMetrics(a.weight, b.weight) &&
    sameMetrics(a.activation, b.activation)
  );
}

function integer(value: unknown, min: number, max: number, where: string): number {
  if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max)
    throw refuse(where, show(value), `a whole number from ${min} to ${max}`);
  return value as number;
}

function object(json: unknown, where: string): Readonly<Record<string, unknown>> {
  if (!isObject(json)) throw refuse(where, show(json), "a JSON object");
  return json;
}

function refuse(where: string, got: string, expected: string, advice = "Make it with mixdq sensitivity."): MixdqError {
  return new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. ${advice}`);
}
