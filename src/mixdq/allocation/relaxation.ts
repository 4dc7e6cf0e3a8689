/**
 * The multiple-choice knapsack with its integers let go: what budget a unit of value is worth (Lagrange's multiplier), how
 * good any allocation can be at best, and which choices can still be part of the best one.
 * Sinha & Zoltners 1979; Kellerer, Pferschy & Pisinger, "Knapsack Problems", chapter 11.
 */

/** One way to treat an item. Both are integers, so that sums and ties are exact. */
export interface Choice {
  readonly cost: number;
  readonly value: number;
}

/** One step up the convex hull of an item's choices. */
interface Step {
  readonly item: number;
  /** The choice it leads to. */
  readonly to: number;
  readonly cost: number;
  readonly value: number;
}

/** Items to choose for, made ready once for any number of budgets. */
export interface Knapsack {
  /** By item: its choices, cost and value both strictly rising. */
  readonly items: readonly (readonly Choice[])[];
  /** All steps that the relaxation takes, the most value for their cost first. */
  readonly steps: readonly Step[];
  readonly minCost: number;
  readonly maxCost: number;
}

export interface Relaxation {
  /** No allocation has more value than this. */
  readonly bound: number;
  /** Value per cost at the budget's edge. */
  readonly price: number;
  /** By item: a choice that loses nothing at this price. */
  readonly base: Int32Array;
  readonly baseCost: number;
  readonly baseValue: number;
  /** An allocation within the budget, by item. */
  readonly greedy: Int32Array;
  readonly greedyCost: number;
  readonly greedyValue: number;
}

/** `items`: each item's choices, with cost and value both strictly rising. */
export function makeKnapsack(items: readonly (readonly Choice[])[]): Knapsack {
  const steps = items.flatMap((choices, item) => {
    const corners = hull(choices);
    return corners.slice(1).map((to, i): Step => {
      const [from, next] = [choices[corners[i]], choices[to]];
      return { item, to, cost: next.cost - from.cost, value: next.value - from.value };
    });
  });
  // Products of such integers would not be exact: steps of nearly one slope may come in either order, which changes
  // where the search begins, not where it ends.
  const order = (a: Step, b: Step): number => b.value / b.cost - a.value / a.cost || a.item - b.item || a.to - b.to;
  const ends = (at: 0 | -1): number => items.reduce((sum, choices) => sum + choices.at(at)!.cost, 0);
  return { items, steps: steps.sort(order), minCost: ends(0), maxCost: ends(-1) };
}

/** Solves the relaxation for a budget of at least `minCost`. */
export function relax({ items, steps }: Knapsack, budget: number): Relaxation {
  const base = new Int32Array(items.length);
  let [cost, value] = [0, 0];
  for (const choices of items) {
    cost += choices[0].cost;
    value += choices[0].value;
  }
  let at = 0;
  for (; at < steps.length && cost + steps[at].cost <= budget; at++) {
    const step = steps[at];
    cost += step.cost;
    value += step.value;
    base[step.item] = step.to;
  }
  const broken = steps[at];
  const price = broken ? broken.value / broken.cost : 0;
  const greedy = base.slice();
  const relaxation = { bound: value + price * (budget - cost), price, base, baseCost: cost, baseValue: value };
  // What is left of the budget goes to whatever still fits. Once a step of an item does not, its later ones lead nowhere.
  const isStuck = new Uint8Array(items.length);
  for (const step of steps.slice(at)) {
    if (isStuck[step.item]) continue;
    if (cost + step.cost > budget) {
      isStuck[step.item] = 1;
      continue;
    }
    cost += step.cost;
    value += step.value;
    greedy[step.item] = step.to;
  }
  return { ...relaxation, greedy, greedyCost: cost, greedyValue: value };
}

/** What a choice of an item loses against the item's best at this price: an allocation with it is at most bound - loss. */
export function lossOf(
  { items }: Knapsack,
  { base, price }: Pick<Relaxation, "base" | "price">,
  item: number,
  choice: number,
): number {
  const [best, other] = [items[item][base[item]], items[item][choice]];
  return best.value - other.value - price * (best.cost - other.cost);
}

/** The upper convex hull of the choices as points (cost, value): their indices, slopes strictly falling. */
function hull(choices: readonly Choice[]): number[] {
  const corners: number[] = [];
  const slope = (a: number, b: number): number =>
    (choices[b].value - choices[a].value) / (choices[b].cost - choices[a].cost);
  for (let next = 0; next < choices.length; next++) {
    while (corners.length >= 2 && slope(corners.at(-2)!, corners.at(-1)!) <= slope(corners.at(-1)!, next))
      corners.pop();
    corners.push(next);
  }
  return corners;
}
