/**
 * One group's integer programme: a bit-width for every layer, so that the sum of the layers' values is largest and the
 * sum of their costs stays within the budget. MixDQ (arXiv 2405.17873) section 3.3; exact, with its gap stated.
 *
 * 1. The relaxation gives a bound, a first allocation, and decides most layers (relaxation.ts).
 * 2. The search goes through what is left (search.ts). Its optimum is proven unless it needs too much memory.
 * 3. Then HiGHS closes the gap (highs.ts). It also checks the allocation that is finally chosen.
 *
 * Ties: of all allocations with the largest sum the one of the least cost; of those, walking the layers sorted by path,
 * the one that gives more bits where the first of them differ. So the order in which layers are given means nothing. (It
 * holds wherever the search proves the optimum and the tied allocations fit into memory, which is nearly always; else the
 * first that is found stays, the same one every time.)
 */
import { MixdqError } from "../../base/errors.ts";
import { highsVersion, solveWithHighs } from "./highs.ts";
import { makeKnapsack, relax, type Knapsack } from "./relaxation.ts";
import { findBest, findFirst, openChoices, type Assignment } from "./search.ts";
import { byPath } from "./sensitivity.ts";

export interface Option {
  readonly bits: number;
  /** Bits that the layer takes up: bits times elements. An integer. */
  readonly cost: number;
  /** The group's metric; larger is better. */
  readonly value: number;
}

export interface Item {
  readonly path: string;
  readonly options: readonly Option[];
}

export interface Solution {
  /** By path, in path order. */
  readonly bits: ReadonlyMap<string, number>;
  /** Sum of the layers' values, and of their costs. */
  readonly objective: number;
  readonly cost: number;
  /** No allocation within the budget has a larger sum. */
  readonly bound: number;
  /** (bound - objective) / |objective|; 0 where the optimum is proven. */
  readonly gap: number;
  readonly solver: "search" | "HiGHS";
}

export interface Program {
  /** The least and the largest cost that an allocation can have; more budget than the latter changes nothing. */
  readonly minCost: number;
  readonly maxCost: number;
  /**
   * Throws `invalid-input` for a budget below `minCost`. With `quick`, HiGHS is not asked to close a gap that the search
   * leaves (the solution states it).
   */
  solve(budget: number, options?: { readonly quick?: boolean }): Promise<Solution>;
  /**
   * Solves the whole programme again with HiGHS alone. Returns its name and version where it finds nothing better than
   * `solution` and closes its gap, undefined where it does not get that far. Throws where it does find something better:
   * then this room has a fault.
   */
  certify(budget: number, solution: Solution): Promise<string | undefined>;
}

/** Partial allocations kept at most, 21 bytes each. SDXL-Turbo's programmes need about 2,000. */
const STATES = 2_000_000;
/** Nodes of HiGHS's tree; SDXL-Turbo's programmes need one. */
const NODES = 2_000;
/** Values become integers, so that sums do not depend on their order and equal sums are equal: all together 2^47. */
const VALUE_BITS = 47;
/** Relative: what HiGHS's tolerances may make of two equal sums. */
const TOLERANCE = 1e-7;

/**
 * `items` in any order. A width that is worth no more than a cheaper one of the same layer is never chosen: where a
 * noisy measurement finds 8 bits worse than 4, 4 it is. Costs are integers whose sum is below 2^53.
 */
export function makeProgram(items: readonly Item[], states = STATES): Program {
  const layers = items
    .map(({ path, options }) => ({ path, options: withoutBeaten(options) }))
    .sort((a, b) => byPath(a.path, b.path));
  const range = layers.reduce((sum, { options }) => sum + options.at(-1)!.value - options[0].value, 0);
  const scale = range > 0 ? 2 ** Math.min(VALUE_BITS - Math.ceil(Math.log2(range)), 1000) : 1;
  // Differences below the resolution of about 1e-14 of the range are ties.
  const choices = layers.map(({ options }) => {
    const whole = options.map(({ value, ...rest }) => ({
      ...rest,
      value: Math.round((value - options[0].value) * scale),
    }));
    return whole.filter(({ value }, i) => i === 0 || value > whole[i - 1].value);
  });
  const knapsack = makeKnapsack(choices);

  const describe = ({ choice, cost }: Assignment, bound: number | undefined, solver: Solution["solver"]): Solution => {
    const chosen = layers.map(({ path, options }, i) => {
      const { bits } = choices[i][choice[i]];
      return { path, bits, value: options.find((option) => option.bits === bits)!.value };
    });
    const objective = chosen.reduce((sum, { value }) => sum + value, 0);
    const rest = bound === undefined ? 0 : Math.max(0, bound - valueOf(knapsack, choice)) / scale;
    const bits = new Map(chosen.map((layer) => [layer.path, layer.bits]));
    const gap = rest / Math.max(Math.abs(objective), Number.MIN_VALUE);
    return { bits, objective, cost, bound: objective + rest, gap, solver };
  };

  return {
    minCost: knapsack.minCost,
    maxCost: knapsack.maxCost,
    async solve(budget, { quick = false } = {}) {
      if (!(budget >= knapsack.minCost))
        throw new MixdqError(
          "invalid-input",
          `got a budget of ${budget} bits, expected at least the ${knapsack.minCost} that the smallest widths take.`,
        );
      const relaxation = relax(knapsack, budget);
      const found = findBest(knapsack, relaxation, budget, states);
      if (found.isProven) {
        const first = findFirst(knapsack, relaxation, budget, found.value, states);
        return describe(first ?? found, undefined, "search");
      }
      if (quick) return describe(found, relaxation.bound, "search");
      const open = openChoices(knapsack, relaxation, found.value);
      const { best, bound } = await solveWithHighs(knapsack, open, budget, NODES);
      const better = best && best.value > found.value ? best : found;
      // Its bound is a double; without slack, rounding could put it below the optimum.
      return describe(better, Math.min(relaxation.bound, bound + 1), "HiGHS");
    },
    async certify(budget, { objective, bits }) {
      const all = choices.map((options) => [...options.keys()]);
      const { best, bound } = await solveWithHighs(knapsack, all, budget, NODES);
      const own = layers.reduce((sum, { path }, i) => {
        const choice = choices[i].find((option) => option.bits === bits.get(path));
        return sum + (choice?.value ?? -Infinity);
      }, 0);
      const allowed = TOLERANCE * Math.max(Math.abs(objective) * scale, range * scale);
      if (best && best.value > own + allowed)
        throw new MixdqError(
          "invalid-output",
          `The allocator found a sum of ${objective}, HiGHS one that is larger by ${(best.value - own) / scale}. ` +
            `This is a fault in mixdq: please report it with the sensitivity file.`,
        );
      return bound <= own + allowed ? highsVersion() : undefined;
    },
  };
}

/** By rising cost, each worth more than all before it: the running maximum repairs what noise turned around. */
function withoutBeaten(options: readonly Option[]): Option[] {
  const sorted = options.toSorted((a, b) => a.cost - b.cost || b.value - a.value);
  let highest = -Infinity;
  return sorted.filter(({ value }) => value > highest && ((highest = value), true));
}

function valueOf({ items }: Knapsack, choice: Int32Array): number {
  return items.reduce((sum, choices, item) => sum + choices[choice[item]].value, 0);
}
