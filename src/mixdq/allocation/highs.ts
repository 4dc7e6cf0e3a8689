/**
 * HiGHS, the solver for mixed-integer programmes (Huangfu & Hall 2018), compiled to WebAssembly: proves an optimum
 * independently of our own search, and finds it where that would need too much memory. Its 3.5 MB are loaded on first
 * use. Its module finds highs.wasm beside itself, in Node and in a bundle.
 */
import type { Highs } from "highs";
import { importOptional } from "../../base/optional.ts";
import type { Assignment } from "./search.ts";
import type { Knapsack } from "./relaxation.ts";

export interface HighsResult {
  /** The best allocation that it found within the budget, if any. */
  readonly best: Assignment | undefined;
  /** No allocation of the open choices has more value, by its own account. */
  readonly bound: number;
}

let loading: Promise<Highs> | undefined;

function load(): Promise<Highs> {
  return (loading ??= importOptional(() => import("highs"), "highs", "The integer programme").then(
    ({ default: loadHighs }) => loadHighs(),
  ));
}

/** "HiGHS 1.15.1". */
export async function highsVersion(): Promise<string> {
  return `HiGHS ${(await load()).version.string}`;
}

/** kSolutionStatusFeasible, which the package does not name. */
const FEASIBLE = 2;

/** Its tolerances are absolute: values are scaled so that all of them together are this. */
const VALUE_RANGE = 1e6;

/**
 * max sum v[i,j] x[i,j], subject to sum c[i,j] x[i,j] <= budget, sum_j x[i,j] = 1, x binary; over the `open` choices of
 * each item. Gap 0 unless it would take more than `nodes` nodes of its tree (a limit in seconds would not be the same on
 * every machine).
 */
export async function solveWithHighs(
  { items }: Knapsack,
  open: readonly (readonly number[])[],
  budget: number,
  nodes: number,
): Promise<HighsResult> {
  const highs = await load();
  const choice = Int32Array.from(open, (choices) => choices[0]);
  const free = [...open.keys()].filter((item) => open[item].length > 1);
  const cheapest = (item: number) => items[item][open[item][0]];
  const [startCost, startValue] = items.reduce(
    ([cost, value], _, item) => [cost + cheapest(item).cost, value + cheapest(item).value],
    [0, 0],
  );
  const columns = free.flatMap((item, row) =>
    open[item].map((c) => {
      const { cost, value } = items[item][c];
      return { item, row, choice: c, cost: cost - cheapest(item).cost, value: value - cheapest(item).value };
    }),
  );
  const unit = columns.reduce((divisor, { cost }) => greatestDivisor(divisor, cost), 0) || 1;
  const highest = (item: number) => items[item][open[item].at(-1)!].value - cheapest(item).value;
  const scale = VALUE_RANGE / (free.reduce((sum, item) => sum + highest(item), 0) || 1);
  const numCols = columns.length;
  const numRows = free.length + 1;
  const ones = new Float64Array(free.length).fill(1);
  return highs.withModel(
    {
      numCols,
      numRows,
      sense: highs.constants.objectiveSense.maximize,
      colCost: Float64Array.from(columns, ({ value }) => value * scale),
      colLower: new Float64Array(numCols),
      colUpper: new Float64Array(numCols).fill(1),
      rowLower: Float64Array.of(-highs.infinity, ...ones),
      rowUpper: Float64Array.of(Math.floor((budget - startCost) / unit), ...ones),
      integrality: new Int32Array(numCols).fill(1),
      matrix: {
        format: "csc",
        numRows,
        numCols,
        starts: Int32Array.from({ length: numCols + 1 }, (_, i) => 2 * i),
        indices: Int32Array.from(columns.flatMap(({ row }) => [0, row + 1])),
        values: Float64Array.from(columns.flatMap(({ cost }) => [cost / unit, 1])),
      },
    },
    (model): HighsResult => {
      model.options.set({ output_flag: false, mip_rel_gap: 0, mip_abs_gap: 0, mip_max_nodes: nodes });
      model.run();
      const dual = model.info.get("mip_dual_bound") as number;
      const bound = Number.isFinite(dual) ? startValue + dual / scale : Infinity;
      const isFeasible = model.info.get("primal_solution_status") === FEASIBLE;
      if (!isFeasible) return { best: undefined, bound };
      const { colValue } = model.getSolution();
      // One choice an item: its largest variable, whatever tolerance they were rounded with.
      const chosen = new Float64Array(items.length).fill(0.5);
      for (const [i, column] of columns.entries())
        if (colValue[i] > chosen[column.item]) {
          chosen[column.item] = colValue[i];
          choice[column.item] = column.choice;
        }
      const isWhole = free.every((item) => chosen[item] > 0.5);
      const total = (key: "cost" | "value"): number =>
        items.reduce((sum, choices, item) => sum + choices[choice[item]][key], 0);
      const best = { choice, cost: total("cost"), value: total("value") };
      return { best: isWhole && best.cost <= budget ? best : undefined, bound };
    },
  );
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
