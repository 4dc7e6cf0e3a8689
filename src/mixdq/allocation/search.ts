/**
 * The exact part of the knapsack: item by item, all partial allocations that may still become the best one, as a frontier
 * of cost and value. Few items need it: the relaxation has decided the others (reduced-cost fixing).
 * Dynamic programming with lists over an expanding core: Pisinger 1995, "A minimal algorithm for the multiple-choice
 * knapsack problem".
 */
import { lossOf, type Choice, type Knapsack, type Relaxation } from "./relaxation.ts";

export interface Assignment {
  /** By item, the index of its choice. */
  readonly choice: Int32Array;
  readonly cost: number;
  readonly value: number;
}

/** Partial allocations, cost and value both strictly rising; the items not yet looked at stand at their base choice. */
interface Frontier {
  readonly size: number;
  readonly costs: Float64Array;
  readonly values: Float64Array;
  /** Where each comes from in the frontier before, and by which move. */
  readonly parents: Int32Array;
  readonly moves: Uint8Array;
}

/** What choosing otherwise than the base adds. */
interface Move {
  readonly choice: number;
  readonly cost: number;
  readonly value: number;
}

/** Values are below 2^48: what bounds computed in doubles may be wrong by, with room. */
const SLACK = 64;

/** By item: the choices that an allocation of at least this value may hold, in rising cost. */
export function openChoices(knapsack: Knapsack, relaxation: Relaxation, atLeast: number): number[][] {
  const allowed = relaxation.bound - atLeast + SLACK;
  return knapsack.items.map((choices, item) =>
    [...choices.keys()].filter((choice) => lossOf(knapsack, relaxation, item, choice) <= allowed),
  );
}

/** What a frontier is thinned to once memory is short. */
const THIN = 2048;

/**
 * An allocation of the most value, and whether it is proven to be. Where more than `limit` partial allocations would have
 * to be kept, the search goes on with a selection of them, and mostly finds an allocation within 1e-9 of the bound that it
 * cannot prove. Of several best ones it may be any (but always the same one).
 */
export function findBest(
  knapsack: Knapsack,
  relaxation: Relaxation,
  budget: number,
  limit: number,
): Assignment & { isProven: boolean } {
  const { bound, price, base, greedy, greedyCost, greedyValue } = relaxation;
  let best = { value: greedyValue, cost: greedyCost, frontier: -1, at: -1 };
  const losses = knapsack.items.map((choices, item) => choices.map((_, c) => lossOf(knapsack, relaxation, item, c)));
  // What an item's second choice loses: the sooner it is looked at, the less is open when the others' turn comes.
  const second = losses.map((all, item) =>
    all.reduce((m, loss, c) => (c === base[item] ? m : Math.min(m, loss)), Infinity),
  );
  const order = [...second.keys()].sort((a, b) => second[a] - second[b] || a - b);
  const frontiers: Frontier[] = [root(relaxation)];
  const decided: number[] = [];
  let kept = 0;
  for (const item of order) {
    if (best.value >= bound || second[item] > bound - best.value + SLACK) break;
    const moves = movesOf(knapsack.items[item], base[item], (c) => losses[item][c] <= bound - best.value + SLACK);
    const isAlive = (cost: number, value: number): boolean => value + price * (budget - cost) + SLACK > best.value;
    const all = extend(frontiers.at(-1)!, moves, isAlive);
    const next = kept > limit ? thin(all) : all;
    decided.push(item);
    frontiers.push(next);
    for (let i = 0; i < next.size && next.costs[i] <= budget; i++)
      if (next.values[i] > best.value)
        best = { value: next.values[i], cost: next.costs[i], frontier: frontiers.length - 1, at: i };
    kept += next.size;
  }
  const isProven = kept <= limit || best.value >= bound;
  if (best.frontier < 0) return { choice: greedy, cost: best.cost, value: best.value, isProven };
  const choice = base.slice();
  for (let f = best.frontier, at = best.at; f > 0; f--) {
    choice[decided[f - 1]] = frontiers[f].moves[at];
    at = frontiers[f].parents[at];
  }
  return { choice, cost: best.cost, value: best.value, isProven };
}

/**
 * Of all allocations whose value is `value` (the best there is), the one of the least cost; of those the one that, item
 * by item, takes the costlier choice where the first of them differ. undefined where more than `limit` partial
 * allocations would have to be kept.
 */
export function findFirst(
  knapsack: Knapsack,
  relaxation: Relaxation,
  budget: number,
  value: number,
  limit: number,
): Assignment | undefined {
  const { price, base } = relaxation;
  const open = openChoices(knapsack, relaxation, value);
  const core = [...open.keys()].filter((item) => open[item].length > 1);
  // From the last item to the first, so that in the end the first can be decided first.
  const steps = core.reverse().map((item) => {
    const isOpen = new Set(open[item]);
    return { item, moves: movesOf(knapsack.items[item], base[item], (c) => isOpen.has(c)) };
  });
  const cheapest = steps.map(({ moves }) => moves[0].cost); // at most 0: the base is among the moves
  let stillToSave = cheapest.reduce((sum, cost) => sum + cost, 0);
  const frontiers: Frontier[] = [root(relaxation)];
  let kept = 0;
  for (const [i, { moves }] of steps.entries()) {
    stillToSave -= cheapest[i];
    const next = extend(
      frontiers[i],
      moves,
      (cost, reached) => cost + stillToSave <= budget && reached + price * (budget - cost) + SLACK >= value,
    );
    frontiers.push(next);
    kept += next.size;
    if (kept > limit) return undefined;
  }

  const last = frontiers.at(-1)!;
  let at = indexOf(last.values, last.size, value);
  if (at < 0) return undefined; // only if `value` is not the best
  const total = last.costs[at];
  const choice = base.slice();
  for (let i = steps.length - 1; i >= 0; i--) {
    const { item, moves } = steps[i];
    const [here, before] = [frontiers[i + 1], frontiers[i]];
    const [cost, reached] = [here.costs[at], here.values[at]];
    // A partial allocation that leads to the best is on its frontier: one that beats it would lead to a better one.
    for (const move of moves.toReversed()) {
      const parent = indexOf(before.costs, before.size, cost - move.cost);
      if (parent < 0 || before.values[parent] !== reached - move.value) continue;
      choice[item] = move.choice;
      at = parent;
      break;
    }
  }
  return { choice, cost: total, value };
}

function root({ baseCost, baseValue }: Relaxation): Frontier {
  const values = Float64Array.of(baseValue);
  return { size: 1, costs: Float64Array.of(baseCost), values, parents: Int32Array.of(-1), moves: Uint8Array.of(0) };
}

/** In rising cost. */
function movesOf(choices: readonly Choice[], base: number, isOpen: (choice: number) => boolean): Move[] {
  const from = choices[base];
  return [...choices.keys()].filter(isOpen).map((choice) => {
    const to = choices[choice];
    return { choice, cost: to.cost - from.cost, value: to.value - from.value };
  });
}

/** Every partial allocation with every move, without those that another beats and those that are not alive. */
function extend(from: Frontier, moves: readonly Move[], isAlive: (cost: number, value: number) => boolean): Frontier {
  const most = from.size * moves.length;
  const [costs, values] = [new Float64Array(most), new Float64Array(most)];
  const [parents, taken] = [new Int32Array(most), new Uint8Array(most)];
  const heads = new Int32Array(moves.length);
  let size = 0;
  let highest = -Infinity;
  for (;;) {
    let pick = -1;
    let [cost, value] = [Infinity, -Infinity];
    for (let m = 0; m < moves.length; m++) {
      const head = heads[m];
      if (head === from.size) continue;
      const c = from.costs[head] + moves[m].cost;
      const v = from.values[head] + moves[m].value;
      if (c < cost || (c === cost && v > value)) [pick, cost, value] = [m, c, v];
    }
    if (pick < 0) break;
    const parent = heads[pick]++;
    if (value <= highest) continue;
    highest = value;
    if (!isAlive(cost, value)) continue;
    costs[size] = cost;
    values[size] = value;
    parents[size] = parent;
    taken[size++] = moves[pick].choice;
  }
  return {
    size,
    costs: costs.slice(0, size),
    values: values.slice(0, size),
    parents: parents.slice(0, size),
    moves: taken.slice(0, size),
  };
}

/** Evenly chosen, the ends included. */
function thin(frontier: Frontier): Frontier {
  const { size } = frontier;
  if (size <= THIN) return frontier;
  const at = (i: number): number => Math.round((i * (size - 1)) / (THIN - 1));
  const every = <T extends Float64Array | Int32Array | Uint8Array>(from: T, to: T): T => {
    for (let i = 0; i < THIN; i++) to[i] = from[at(i)];
    return to;
  };
  return {
    size: THIN,
    costs: every(frontier.costs, new Float64Array(THIN)),
    values: every(frontier.values, new Float64Array(THIN)),
    parents: every(frontier.parents, new Int32Array(THIN)),
    moves: every(frontier.moves, new Uint8Array(THIN)),
  };
}

/** The index of a number in a rising array, or -1. */
function indexOf(rising: Float64Array, size: number, wanted: number): number {
  let [low, high] = [0, size];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rising[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low < size && rising[low] === wanted ? low : -1;
}
