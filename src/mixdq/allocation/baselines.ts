/**
 * What the paper compares its allocation with, at the same budget and with the same layers in float (MixDQ, arXiv
 * 2405.17873, section 4.3): each a simpler way to choose widths.
 */
import { bitsWithin, type Candidate, type GroupProgram } from "./groups.ts";
import { makeProgram } from "./program.ts";
import { makeRandom, shuffle } from "./random.ts";
import { byPath, type LayerSensitivity } from "./sensitivity.ts";

export interface Baseline {
  /** uniform, naive sorting, SQNR only, random, perturbed. */
  readonly name: string;
  readonly bits: ReadonlyMap<string, number>;
  /** As of `Point`. */
  readonly averageBits: number;
  readonly objectives: readonly number[];
  readonly score: number;
}

/** Widths of one layer, rising. */
interface Layer extends Candidate {
  readonly widths: readonly number[];
}

/** Of the layers, how many `perturbed` gives another width. */
const PERTURBED = 0.1;

/**
 * The baselines that `programs` allow, at an average of `budget` bits. Left out: uniform where no width fits; naive sorting
 * and SQNR only where a layer has no SQNR (`layers`); SQNR only where there is one group, which is its own metric's.
 *
 * - uniform: the largest width that all layers have and that fits.
 * - naive sorting: all have their largest width but the most robust ones (by SQNR at the smallest width), which have their
 *   smallest: as many as the budget asks for.
 * - SQNR only: one programme for both groups, all judged by SQNR.
 * - random: each layer a width by chance, then others, by chance, one down or one up until the budget is met and used.
 * - perturbed: `chosen` with a tenth of the layers at another width, then as random.
 */
export async function baselines(
  programs: readonly GroupProgram[],
  layers: ReadonlyMap<string, LayerSensitivity>,
  chosen: ReadonlyMap<string, number>,
  budget: number,
  seed: number,
): Promise<Baseline[]> {
  const candidates = programs
    .flatMap((program) => program.candidates)
    .map((layer): Layer => ({ ...layer, widths: [...layer.values.keys()].sort((a, b) => a - b) }))
    .sort((a, b) => byPath(a.path, b.path));
  const total = (key: "elements" | "floatElements"): number => programs.reduce((sum, program) => sum + program[key], 0);
  const floatBits = 16 * total("floatElements");
  const capacity = bitsWithin(budget, total("elements")) - floatBits;
  const measure = (name: string, bits: ReadonlyMap<string, number>): Baseline => {
    const objectives = programs.map((program) => program.objectiveOf(bits));
    const score = Math.min(...programs.map((program, i) => program.shareOf(objectives[i])));
    return { name, bits, objectives, score, averageBits: (costOf(candidates, bits) + floatBits) / total("elements") };
  };

  const results: Baseline[] = [];
  const uniform = candidates[0]?.widths
    .filter((width) => candidates.every(({ widths }) => widths.includes(width)))
    .findLast(
      (width) =>
        costOf(
          candidates,
          allAt(candidates, () => width),
        ) <= capacity,
    );
  if (uniform !== undefined)
    results.push(
      measure(
        `uniform ${uniform}-bit`,
        allAt(candidates, () => uniform),
      ),
    );

  const sqnr = (path: string, width: number): number | undefined => layers.get(path)?.weight.get("sqnr")?.get(width);
  if (candidates.every(({ path, widths }) => widths.every((width) => sqnr(path, width) !== undefined))) {
    const smallest = ({ path, widths }: Layer): number => sqnr(path, widths[0])!;
    const robustFirst = candidates.toSorted((a, b) => smallest(b) - smallest(a) || byPath(a.path, b.path));
    const start = allAt(candidates, ({ widths }) => widths.at(-1)!);
    results.push(measure("naive sorting", lower(start, robustFirst, capacity, "to the bottom")));
    if (programs.length > 1) {
      const items = candidates.map(({ path, widths, elements }) => ({
        path,
        options: widths.map((bits) => ({ bits, cost: bits * elements, value: sqnr(path, bits)! })),
      }));
      const { bits } = await makeProgram(items).solve(capacity, { quick: true });
      results.push(measure("SQNR only", bits));
    }
  }

  const random = makeRandom(seed);
  const anyOf = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)];
  const fit = (bits: ReadonlyMap<string, number>): ReadonlyMap<string, number> =>
    raise(lower(bits, shuffle(candidates, random), capacity), shuffle(candidates, random), capacity);
  results.push(measure("random", fit(allAt(candidates, ({ widths }) => anyOf(widths)))));
  const moved = new Map(chosen);
  for (const { path, widths } of shuffle(candidates, random).slice(0, Math.ceil(PERTURBED * candidates.length))) {
    const others = widths.filter((width) => width !== chosen.get(path));
    if (others.length > 0) moved.set(path, anyOf(others));
  }
  results.push(measure("perturbed", fit(moved)));
  return results;
}

function allAt(layers: readonly Layer[], width: (layer: Layer) => number): ReadonlyMap<string, number> {
  return new Map(layers.map((layer) => [layer.path, width(layer)]));
}

function costOf(layers: readonly Layer[], bits: ReadonlyMap<string, number>): number {
  return layers.reduce((sum, { path, elements }) => sum + bits.get(path)! * elements, 0);
}

/** Layer after layer one width down (in rounds) or at once to its smallest, until the cost fits. */
function lower(
  bits: ReadonlyMap<string, number>,
  order: readonly Layer[],
  capacity: number,
  how: "one down" | "to the bottom" = "one down",
): ReadonlyMap<string, number> {
  const result = new Map(bits);
  let cost = costOf(order, result);
  while (cost > capacity) {
    const before = cost;
    for (const { path, widths, elements } of order) {
      if (cost <= capacity) break;
      const narrower = widths.filter((width) => width < result.get(path)!);
      const next = narrower.at(how === "one down" ? -1 : 0);
      if (next === undefined) continue;
      cost -= (result.get(path)! - next) * elements;
      result.set(path, next);
    }
    if (cost === before) break; // all at their smallest
  }
  return result;
}

/** One width up for every layer where that still fits. */
function raise(
  bits: ReadonlyMap<string, number>,
  order: readonly Layer[],
  capacity: number,
): ReadonlyMap<string, number> {
  const result = new Map(bits);
  let cost = costOf(order, result);
  for (const { path, widths, elements } of order) {
    const next = widths.find((width) => width > result.get(path)!);
    if (next === undefined || cost + (next - result.get(path)!) * elements > capacity) continue;
    cost += (next - result.get(path)!) * elements;
    result.set(path, next);
  }
  return result;
}
