/**
 * How much of the budget each group gets. MixDQ tries many splits, B_content = k B_quality, and many budgets, and lets
 * pictures decide between them; this room sees no pictures and goes by what each group keeps of its own metric.
 */
import type { Group } from "./sensitivity.ts";
import type { GroupProgram, GroupSolution } from "./groups.ts";

/** One allocation of a sweep. */
export interface Point {
  /** Bits per element allowed over all groups, and B_content / B_quality; 1 where there is one group. */
  readonly budget: number;
  readonly ratio: number;
  readonly groups: readonly GroupSolution[];
  /** Bits per element over all groups. */
  readonly averageBits: number;
  /**
   * What the group keeps that keeps less: 1 where every layer has its best width, 0 where one group has all its layers at
   * their least. Sums of SSIM and of dB cannot be added; shares of what each can reach can be compared.
   */
  readonly score: number;
}

/** The sizes of the paper's sweep, and how far below the target its budgets begin (MixDQ's code). */
export const SWEEP = { budgets: 20, ratios: 20, below: 0.3 };

export type GroupBudgets = ReadonlyMap<Group, number>;

/**
 * The groups' budgets for an average of `budget` bits and the ratio k of content to quality:
 * B_quality = B (1 + r) / (k r + 1), B_content = k B_quality, with r the ratio of their elements. One group has all of it.
 */
export function splitBudget(programs: readonly GroupProgram[], budget: number, ratio: number): GroupBudgets {
  const { content, quality } = sidesOf(programs);
  if (!content || !quality) return new Map(programs.map(({ group }) => [group, budget]));
  const r = content.elements / quality.elements;
  const share = (budget * (1 + r)) / (ratio * r + 1);
  return new Map<Group, number>([
    ["content", ratio * share],
    ["quality", share],
  ]);
}

/** Average bits over all groups with every layer at its least, and at its most useful width. */
export function rangeOf(programs: readonly GroupProgram[]): { lowest: number; highest: number } {
  const mean = (key: "lowest" | "highest"): number =>
    programs.reduce((sum, program) => sum + program[key] * program.elements, 0) /
    programs.reduce((sum, { elements }) => sum + elements, 0);
  return { lowest: mean("lowest"), highest: mean("highest") };
}

/** `count` ratios, evenly spaced over all for which each group can use its budget whole; fewer where there are no more. */
export function usableRatios(programs: readonly GroupProgram[], budget: number, count: number): number[] {
  const { content, quality } = sidesOf(programs);
  if (!content || !quality) return [1];
  if (budget >= rangeOf(programs).highest) return [content.highest / quality.highest];
  const r = content.elements / quality.elements;
  const all = budget * (1 + r);
  const withQuality = (bits: number): number => (all / bits - 1) / r;
  const withContent = (bits: number): number => (all > bits * r ? bits / (all - bits * r) : Infinity);
  const least = Math.max(withContent(content.lowest), withQuality(quality.highest), 0);
  const most = Math.min(withQuality(quality.lowest), withContent(content.highest));
  if (!(most > least)) return [least];
  return linspace(least, most, count);
}

/** Solves every group for its part of the budget. Throws `invalid-input` where a group cannot do with it. */
export async function solvePoint(
  programs: readonly GroupProgram[],
  budget: number,
  ratio: number,
  options?: { readonly quick?: boolean },
): Promise<Point> {
  const budgets = splitBudget(programs, budget, ratio);
  const groups: GroupSolution[] = [];
  for (const program of programs) groups.push(await program.solve(budgets.get(program.group)!, options));
  const shares = groups.map(({ objective }, i) => programs[i].shareOf(objective));
  const elements = programs.reduce((sum, program) => sum + program.elements, 0);
  const bits = groups.reduce((sum, { averageBits }, i) => sum + averageBits * programs[i].elements, 0);
  return { budget, ratio, groups, averageBits: bits / elements, score: Math.min(...shares) };
}

/**
 * Every ratio at every budget from `target` - 0.3 to `target`: 400 points, some fewer where budgets are too small to be
 * met. Of one group, the budgets alone.
 */
export async function sweep(
  programs: readonly GroupProgram[],
  target: number,
  { budgets, ratios, below } = SWEEP,
): Promise<Point[]> {
  const points: Point[] = [];
  const { lowest } = rangeOf(programs);
  for (const budget of linspace(target - below, target, budgets)) {
    if (budget < lowest) continue;
    for (const ratio of usableRatios(programs, budget, ratios))
      points.push(await solvePoint(programs, budget, ratio, { quick: true }));
  }
  return points;
}

/** The points that no other one beats: none has a higher score with no more bits. By rising bits. */
export function paretoFront(points: readonly Point[]): Point[] {
  let highest = -Infinity;
  return points
    .toSorted((a, b) => a.averageBits - b.averageBits || b.score - a.score)
    .filter(({ score }) => score > highest && ((highest = score), true));
}

/**
 * The ratio whose point has the highest score, of 20: where the groups lose in equal measure, as near as the widths
 * allow. Of equals the smallest.
 */
export async function balancedRatio(programs: readonly GroupProgram[], budget: number): Promise<number> {
  let best: Point | undefined;
  for (const ratio of usableRatios(programs, budget, SWEEP.ratios)) {
    const point = await solvePoint(programs, budget, ratio, { quick: true });
    if (!best || point.score > best.score) best = point;
  }
  return best!.ratio;
}

function sidesOf(programs: readonly GroupProgram[]): Partial<Record<Group, GroupProgram>> {
  return Object.fromEntries(programs.map((program) => [program.group, program]));
}

function linspace(from: number, to: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => (count === 1 ? to : from + ((to - from) * i) / (count - 1)));
}
