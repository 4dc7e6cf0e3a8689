/**
 * sensitivity.json: how much a picture suffers when one layer's weights, or its input, are quantized to so many bits
 * and everything else stays in float. Two metrics, both larger for better: `sqnr` of the UNet's output in dB, `ssim` of
 * the decoded picture. MixDQ (arXiv 2405.17873) section 3.2: layers that carry content (cross-attention, feed-forward)
 * are judged by SSIM, all others by SQNR.
 */
import { MixdqError } from "../../base/errors.ts";
import { readJson, type Json } from "../../base/json.ts";
import { show } from "../../base/printable.ts";
import { isModulePath, MODULE_PATH_MEANS } from "../../quant/config.ts";

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

const MEASURE = "Make it with mixdq sensitivity.";
const FORMAT = "mixdq-sensitivity";
const VERSION = 1;
/** SDXL-Turbo's file has 0.4 MB. */
const MAX_SENSITIVITY_CHARACTERS = 64 * 2 ** 20;
/** SDXL has 794; more than this is not a model of this family. */
const MAX_LAYERS = 20_000;
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
  const source = { where, code: "invalid-input", advice: MEASURE } as const;
  const file = readJson(text, source, {
    most: MAX_SENSITIVITY_CHARACTERS,
    what: "a sensitivity.json",
    uniqueKeys: true,
  });
  file.get("format").oneOf([FORMAT]);
  file.get("version").oneOf([VERSION]);
  const shard = file.get("shard");
  return {
    model: file.get("model").or("").string("the model's name"),
    samples: file.get("samples").or(0).integer(0, MAX_COUNT),
    shard: shard.isMissing ? undefined : readShard(shard),
    provenance: file.get("provenance").or({}).object(),
    layers: new Map(
      file
        .get("layers")
        .entries("layers", 1, MAX_LAYERS)
        .map(([path, layer]) => [path, readLayer(path, layer, file)]),
    ),
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

function readShard(json: Json): Shard {
  const count = json.get("count").integer(1, MAX_SHARDS);
  return { index: json.get("index").integer(1, count), count };
}

function readLayer(path: string, entry: Json, file: Json): LayerSensitivity {
  if (!isModulePath(path)) throw file.inside(`the layer ${show(path)}`, MODULE_PATH_MEANS);
  const layer = entry.named(path, file);
  const group = layer.get("group").oneOf(GROUPS);
  const weight = readMetrics(layer.get("weight"));
  const activation = layer.get("activation");
  const metric = METRIC_OF[group];
  if (!weight.has(metric)) throw layer.inside(`no weight ${metric}`, `what ${group} layers are judged by`);
  return {
    group,
    weights: layer.get("weights").integer(1, MAX_COUNT),
    activations: layer.get("activations").or(0).integer(0, MAX_COUNT),
    weight,
    activation: activation.isMissing ? new Map() : readMetrics(activation),
  };
}

function readMetrics(json: Json): Metrics {
  return new Map(
    json.entries("metrics", 0, MAX_METRICS).map(([metric, values]) => [
      metric,
      new Map(
        values.entries("values", 1, MAX_BITS).map(([bits, value]) => {
          if (!/^[1-9]\d?$/.test(bits) || Number(bits) > MAX_BITS)
            throw values.inside(`bits ${show(bits)}`, `whole numbers such as "4", at most "${MAX_BITS}"`);
          return [Number(bits), value.number(-MAX_VALUE, MAX_VALUE)];
        }),
      ),
    ]),
  );
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

function refuse(where: string, got: string, expected: string, advice = MEASURE): MixdqError {
  return new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. ${advice}`);
}
