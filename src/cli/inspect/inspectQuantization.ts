/** What `mixdq inspect` says of mixdq.json and calibration.json. */
import type { Calibration } from "../../mixdq/calibration/file.ts";
import { layerType } from "../../mixdq/calibration/layers.ts";
import { activationSqnr } from "../../mixdq/calibration/preset.ts";
import { averageWeightBits, type MixdqConfig } from "../../quant/config.ts";

export type Row = readonly [name: string, value: string, note?: string];

/**
 * Bits by type of layer. `weightCounts`, where the model is at hand, holds every quantizable layer's weights: then
 * averages go by weights, and layers that the configuration leaves in 16-bit float are counted too.
 */
export function describeConfig(config: MixdqConfig, weightCounts: ReadonlyMap<string, number> | undefined): Row[] {
  const { model, weights, bos, layers, provenance } = config;
  const { symmetric, range, group } = weights;
  const average = weightCounts && averageWeightBits(config, weightCounts);
  const bits = (path: string): string => {
    const { weightBits = 16, actBits = 16 } = layers.get(path) ?? {};
    return `w${weightBits}a${actBits}`;
  };
  const paths = [...(weightCounts?.keys() ?? layers.keys())];
  return [
    ["mixdq.json", `for ${model || "a model that it does not name"}`],
    ["weights", `${symmetric ? "symmetric" : "asymmetric"}, ${range}, ${group ? `groups of ${group}` : "per channel"}`],
    ["text's first token", bos ? "from the cache (bos)" : "quantized as all others (no bos)"],
    ["split shortcuts", `${[...layers.values()].filter(({ act2 }) => act2 !== undefined).length}`],
    ["average weight bits", averageText(config, average)],
    ...fields(provenance),
    ...byType(paths).map(([type, members]): Row => [type, count(members, "layer"), tally(members.map(bits))]),
    ["all", count(paths, "layer"), tally(paths.map(bits))],
  ];
}

function averageText(config: MixdqConfig, average: { quantized: number; all: number } | undefined): string {
  if (average)
    return `${average.all.toFixed(3)} over all layers, ${average.quantized.toFixed(3)} over those in integers`;
  return config.averageWeightBits === undefined
    ? "not said; with --model DIR they are counted"
    : `${config.averageWeightBits} by the file's own word; with --model DIR they are counted`;
}

/** How many of the layers that 8 bits hurt most are listed. */
const WORST = 10;

export function describeCalibration({ model, prompts, bos, provenance, layers }: Calibration): Row[] {
  const rated = [...layers].map(([path, statistics]) => ({ path, statistics, sqnr: activationSqnr(statistics) }));
  const sorted = rated.toSorted((a, b) => a.sqnr - b.sqnr);
  const sqnrOf = new Map(rated.map(({ path, sqnr }) => [path, sqnr]));
  return [
    ["calibration.json", `of ${model}, ${prompts} prompt(s), ${layers.size} layers`],
    ["text's first token", bos ? "left out of keys and values (bos)" : "recorded as all others (no bos)"],
    ...fields(provenance),
    ...byType([...layers.keys()]).map(([type, members]): Row => {
      const values = members.map((path) => sqnrOf.get(path)!).sort((a, b) => a - b);
      const [least, median] = [values[0], values[Math.floor(values.length / 2)]];
      return [type, count(members, "layer"), `8-bit input: ${decibels(least)} at least, ${decibels(median)} median`];
    }),
    ...sorted.slice(0, WORST).map(({ path, statistics: { act, act2 }, sqnr }): Row => {
      const ranges = [act, ...(act2 ? [act2] : [])].map(({ min, max }) => `${short(min)} to ${short(max)}`);
      return [path, decibels(sqnr), ranges.join(" and ")];
    }),
  ];
}

/** Types in the order in which they first appear. */
function byType(paths: readonly string[]): [type: string, paths: string[]][] {
  const types = new Map<string, string[]>();
  for (const path of paths) {
    const type = layerType(path);
    types.set(type, [...(types.get(type) ?? []), path]);
  }
  return [...types];
}

/** Numbers, words and yes or no of a free-form object; an untrusted file may hold anything. */
function fields(provenance: Readonly<Record<string, unknown>>): Row[] {
  return Object.entries(provenance).flatMap(([key, value]): Row[] =>
    ["string", "number", "boolean"].includes(typeof value) ? [[oneLine(key), oneLine(String(value))]] : [],
  );
}

const oneLine = (text: string): string => text.replace(/\s+/g, " ").slice(0, 100);

/** "w4a8 700, w8a8 80": what there is, most frequent first. */
function tally(values: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts]
    .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .map(([value, n]) => `${value} ${n}`)
    .join(", ");
}

const count = (items: readonly unknown[], what: string): string =>
  `${items.length} ${what}${items.length === 1 ? "" : "s"}`;

const decibels = (sqnr: number): string => (sqnr === Infinity ? "always 0" : `${sqnr.toFixed(1)} dB`);

const short = (value: number): string => String(Number(value.toPrecision(4)));
