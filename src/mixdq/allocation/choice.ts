/**
 * Pictures decide: the last step of MixDQ's algorithm (arXiv 2405.17873, algorithm 1). A sum of SSIM and a sum of dB cannot
 * be weighed against each other on paper, so the allocations of the sweep that no other one beats in both are drawn, and
 * the one whose pictures come closest to FP16's is taken.
 */
import type { Estimate } from "../quality/bootstrap.ts";
import type { GroupProgram } from "./groups.ts";
import { solvePoint, type Point } from "./sweep.ts";

/** An allocation that pictures are made with. */
export interface Contender {
  /** "ratio 0.853", or a baseline's name. */
  readonly name: string;
  /** Widths of the weights, by path. */
  readonly bits: ReadonlyMap<string, number>;
  readonly averageBits: number;
  /** Of each group's metric the share that is kept, 0 to 1, in the order of the programmes. */
  readonly shares: readonly number[];
  /** Where the sweep found it; undefined for a baseline. */
  readonly point: Point | undefined;
}

/** How pictures come out; the first three beside FP16's of the same prompts and seeds. */
export interface PictureScores {
  /** How many pictures. */
  readonly prompts: number;
  /** One window over the whole picture, as the paper has it; then 11x11, Gaussian. */
  readonly ssim: Estimate;
  readonly ssim11: Estimate;
  /** dB. */
  readonly psnr: Estimate;
  /** Where there is a judge for the prompts. */
  readonly alignment?: Estimate;
  readonly frechet?: Estimate;
}

export interface Trial extends Contender {
  readonly scores: PictureScores;
}

export interface Choice {
  /** The front's, the chosen one first; those that were given up early have scores of fewer pictures. */
  readonly trials: readonly Trial[];
  /** At the same budget, over all prompts. */
  readonly baselines: readonly Trial[];
}

/** How much of each group's metric a point keeps. */
export function sharesOf(programs: readonly GroupProgram[], { groups }: Pick<Point, "groups">): number[] {
  return groups.map(({ objective }, i) => programs[i].shareOf(objective));
}

/** Contenders at most; a front of more is thinned. */
const MOST = 20;

/**
 * The points that no other one beats: none keeps as much of every group's metric and more of one's, within the largest
 * budget of the sweep. By rising ratio, each allocation once, solved to the end; of many, some evenly spread and the one
 * that is best on paper.
 */
export async function contendersOf(
  programs: readonly GroupProgram[],
  points: readonly Point[],
): Promise<(Contender & { readonly point: Point })[]> {
  const rated = points.map((point) => ({ point, shares: sharesOf(programs, point) }));
  const front = rated
    .filter(({ shares }) => !rated.some((other) => beats(other.shares, shares)))
    .map(({ point }) => point)
    .sort((a, b) => a.ratio - b.ratio || b.budget - a.budget);
  const contenders = new Map<string, Contender & { readonly point: Point }>();
  for (const { budget, ratio } of thinned(front)) {
    const point = await solvePoint(programs, budget, ratio);
    const bits = new Map(point.groups.flatMap((group) => [...group.bits]));
    const { averageBits } = point;
    const contender = {
      name: `ratio ${ratio.toFixed(3)}`,
      bits,
      averageBits,
      shares: sharesOf(programs, point),
      point,
    };
    const key = [...bits.values()].join();
    if (!contenders.has(key)) contenders.set(key, contender);
  }
  return [...contenders.values()];
}

function thinned(front: readonly Point[]): readonly Point[] {
  if (front.length <= MOST) return front;
  const kept = new Set(Array.from({ length: MOST - 1 }, (_, i) => Math.round((i * (front.length - 1)) / (MOST - 2))));
  const scores = front.map(({ score }) => score);
  kept.add(scores.indexOf(Math.max(...scores)));
  return front.filter((_, i) => kept.has(i));
}

const beats = (one: readonly number[], other: readonly number[]): boolean =>
  one.every((share, i) => share >= other[i]) && one.some((share, i) => share > other[i]);

/** Of the prompts, the shares that the rounds draw. */
const ROUNDS = [1 / 4, 1 / 2, 1];

/**
 * Successive halving (Jamieson & Talwalkar 2016): a quarter of the prompts for all, half of them for the better half, all
 * of them for the better half of that.
 */
export function roundsOf(contenders: number, prompts: number): { contenders: number; prompts: number }[] {
  return ROUNDS.map((share, round) => ({
    contenders: Math.ceil(contenders / 2 ** round),
    prompts: Math.max(1, Math.ceil(share * prompts)),
  }));
}

/**
 * The contenders as the rounds leave them: the one with the highest SSIM over all prompts first; of equals the one of
 * fewer bits, then as given. `score` is asked for the first so many prompts, what was drawn before need not be drawn again.
 */
export async function chooseByPictures<T extends Contender>(
  contenders: readonly T[],
  prompts: number,
  score: (contender: T, prompts: number) => Promise<PictureScores>,
): Promise<(T & Trial)[]> {
  let ranked: (T & Trial)[] = [];
  let left: readonly T[] = contenders;
  for (const round of roundsOf(contenders.length, prompts)) {
    left = left.slice(0, round.contenders);
    const trials: (T & Trial)[] = [];
    for (const contender of left) trials.push({ ...contender, scores: await score(contender, round.prompts) });
    trials.sort((a, b) => b.scores.ssim.value - a.scores.ssim.value || a.averageBits - b.averageBits);
    ranked = [...trials, ...ranked.slice(trials.length)];
    left = trials;
  }
  return ranked;
}
