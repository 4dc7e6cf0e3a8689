/**
 * The layers of one group with the budget they share: bits per element, on average over the group, elements that stay in
 * 16-bit float included. Content and quality groups are solved apart, each by its own metric (MixDQ's decoupling).
 */
import { MixdqError } from "../../base/errors.ts";
import { makeProgram, type Program, type Solution } from "./program.ts";
import type { Group } from "./sensitivity.ts";

/** A layer that a width is chosen for. */
export interface Candidate {
  readonly path: string;
  readonly group: Group;
  /** Weights or input elements: what the average is taken over. */
  readonly elements: number;
  /** Width, to what it is worth there by the programme's metric. */
  readonly values: ReadonlyMap<number, number>;
}

export interface GroupSolution extends Solution {
  readonly group: Group;
  /** Bits per element that the group might have. */
  readonly budget: number;
  /** Bits per element that it has, its float elements counted with 16; and without them. */
  readonly averageBits: number;
  readonly quantizedBits: number;
}

/** What is added up, larger for better: SSIM, dB, or noise over signal with a minus. */
export type Metric = "ssim" | "sqnr" | "noise";

export interface GroupProgram {
  readonly group: Group;
  readonly metric: Metric;
  readonly candidates: readonly Candidate[];
  /** All of the group's elements, and those that stay in float. */
  readonly elements: number;
  readonly floatElements: number;
  /** Average bits with every layer at its least and its most useful width. */
  readonly lowest: number;
  readonly highest: number;
  /** Throws `invalid-input` for a budget below `lowest`. */
  solve(budget: number, options?: { readonly quick?: boolean }): Promise<GroupSolution>;
  certify(solution: GroupSolution): Promise<string | undefined>;
  /** The sum of the metric for widths that somebody else chose. */
  objectiveOf(bits: ReadonlyMap<string, number>): number;
  /** 0 for the sum at the lowest average, 1 for the sum at the highest: how much of what can be kept is kept. */
  shareOf(objective: number): number;
}

const FLOAT_BITS = 16;
/** More bits than any number format has; keeps budgets times elements finite. */
const MOST_BITS = 64;

/**
 * `candidates` are the layers that a width is chosen for, `floatElements` the elements of the group's other layers. Throws
 * `invalid-input` where there are no widths to choose from.
 */
export async function makeGroupProgram(
  group: Group,
  candidates: readonly Candidate[],
  floatElements: number,
  metric: Metric,
): Promise<GroupProgram> {
  const program: Program = makeProgram(
    candidates.map(({ path, elements, values }) => {
      if (values.size === 0) throw new MixdqError("invalid-input", `${path}: got no widths to choose from.`);
      if (elements < 1) throw new MixdqError("invalid-input", `${path}: got ${elements} elements, expected 1 or more.`);
      return { path, options: Array.from(values, ([bits, value]) => ({ bits, cost: bits * elements, value })) };
    }),
  );
  const quantized = candidates.reduce((sum, layer) => sum + layer.elements, 0);
  const elements = quantized + floatElements;
  const floatBits = FLOAT_BITS * floatElements;
  const average = (cost: number): number => (cost + floatBits) / elements;
  const [worst, best] = [await program.solve(program.minCost), await program.solve(program.maxCost)];
  const lowest = average(program.minCost);
  const capacity = (budget: number): number => {
    const bits = bitsWithin(Math.min(budget, MOST_BITS), elements) - floatBits;
    // A budget that was computed to be just enough must not fail by its last digit.
    return bits < program.minCost && budget >= lowest * (1 - 1e-12) ? program.minCost : bits;
  };
  const solved = new Map<number, Solution>();
  return {
    group,
    metric,
    candidates,
    elements,
    floatElements,
    lowest,
    highest: average(program.maxCost),
    async solve(budget, options) {
      const cost = Math.min(capacity(budget), program.maxCost);
      if (cost < program.minCost)
        throw new MixdqError(
          "invalid-input",
          `got ${budget} bits for the ${group} layers, expected at least ${lowest.toFixed(4)}.`,
        );
      let solution = solved.get(cost);
      if (!solution || (solution.gap > 0 && solution.solver === "search" && !options?.quick)) {
        solution = await program.solve(cost, options);
        solved.set(cost, solution);
      }
      const averages = { averageBits: average(solution.cost), quantizedBits: solution.cost / Math.max(quantized, 1) };
      return { ...solution, group, budget, ...averages };
    },
    certify: (solution) => program.certify(Math.min(capacity(solution.budget), program.maxCost), solution),
    objectiveOf: (bits) => candidates.reduce((sum, { path, values }) => sum + values.get(bits.get(path)!)!, 0),
    shareOf: (objective) =>
      best.objective > worst.objective ? (objective - worst.objective) / (best.objective - worst.objective) : 1,
  };
}

/** The most bits whose average over so many elements, as the nearest double, is not above the budget. */
export function bitsWithin(budget: number, elements: number): number {
  let bits = Math.floor(budget * elements);
  while (bits / elements > budget) bits--;
  while ((bits + 1) / elements <= budget) bits++;
  return bits;
}
