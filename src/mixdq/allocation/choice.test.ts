import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { allocate, allocationAt } from "./allocate.ts";
import { chooseByPictures, contendersOf, roundsOf, sharesOf, type Contender, type PictureScores } from "./choice.ts";
import { sampleSensitivity } from "./samples.testing.ts";
import { readSensitivity } from "./sensitivity.ts";
import { sweep } from "./sweep.ts";

const TARGET = 4.3;
const sensitivity = sampleSensitivity(3, 5);

test("contenders are what no other point of the sweep beats, each once, within the budget", async () => {
  const allocation = await allocate(sensitivity, { weightBits: TARGET, certify: false });
  const { programs } = allocation.weights;
  const points = await sweep(programs, TARGET);
  const contenders = await contendersOf(programs, points);
  expect(contenders.length).toBeGreaterThan(5);
  expect(contenders.length).toBeLessThanOrEqual(20);
  expect(new Set(contenders.map(({ bits }) => JSON.stringify([...bits]))).size).toBe(contenders.length);
  for (const { averageBits, shares } of contenders) {
    expect(averageBits).toBeLessThanOrEqual(TARGET);
    for (const point of points) {
      const others = sharesOf(programs, point);
      expect(others.every((share, i) => share >= shares[i]) && others.some((share, i) => share > shares[i])).toBe(
        false,
      );
    }
  }
  // What is best on paper is one of them.
  const bits = JSON.stringify(allocation.weights.chosen.groups.flatMap((group) => [...group.bits]));
  expect(contenders.map((contender) => JSON.stringify([...contender.bits]))).toContain(bits);
  // Further content's share never falls as its budget rises.
  const content = contenders.map(({ shares }) => shares[0]);
  expect(content).toEqual(content.toSorted((a, b) => a - b));
});

test("of a long front so many as may be drawn, with its ends and what is best on paper", async () => {
  const widths = [2, 3, 4, 8];
  const candidates = { content: widths, quality: widths };
  const file = path.join(import.meta.dirname, "../../../models/postcard/quantization/sensitivity.json");
  const measured = readSensitivity(readFileSync(file, "utf8"), file);
  const { weights } = await allocate(measured, { weightBits: 4, candidates, sum: "noise", certify: false });
  const points = await sweep(weights.programs, 4);
  const rated = points.map((point) => sharesOf(weights.programs, point));
  const front = rated.filter(
    (own) => !rated.some((other) => other.every((s, i) => s >= own[i]) && other.some((s, i) => s > own[i])),
  );
  expect(new Set(front.map(String)).size).toBeGreaterThan(20);
  const contenders = await contendersOf(weights.programs, points);
  expect(contenders.length).toBeLessThanOrEqual(20);
  const content = front.map(([share]) => share!);
  const ends = contenders.map(({ shares }) => shares[0]);
  expect([Math.min(...ends), Math.max(...ends)]).toEqual([Math.min(...content), Math.max(...content)]);
  const best = Math.max(...points.map(({ score }) => score));
  expect(contenders.map(({ point }) => point.score)).toContain(best);
});

test("an allocation moves to another point with its inputs as they are, and is proven there too", async () => {
  const allocation = await allocate(sensitivity, { weightBits: TARGET });
  const { programs } = allocation.weights;
  const contenders = await contendersOf(programs, await sweep(programs, TARGET));
  const { point, bits } = contenders[0];
  const moved = await allocationAt(allocation, point);
  expect([...moved.layers.keys()]).toEqual([...allocation.layers.keys()]);
  for (const [path, layer] of moved.layers)
    expect(layer).toEqual({ weightBits: bits.get(path), actBits: allocation.layers.get(path)!.actBits });
  expect(moved.weights.averageBits).toBe(point.averageBits);
  expect([...moved.weights.certified.keys()]).toEqual(["content", "quality"]);
});

const contender = (name: string, averageBits = 4): Contender => ({
  ...{ name, averageBits, shares: [], point: undefined },
  bits: new Map([[name, 4]]),
});
const scores = (ssim: number, prompts: number): PictureScores => {
  const exactly = (value: number) => ({ value, low: value, high: value });
  return { prompts, ssim: exactly(ssim), ssim11: exactly(ssim), psnr: exactly(30) };
};

test("rounds halve the contenders and double the pictures; the winner is the best over all of them", async () => {
  expect(roundsOf(20, 64)).toEqual([
    { contenders: 20, prompts: 16 },
    { contenders: 10, prompts: 32 },
    { contenders: 5, prompts: 64 },
  ]);
  expect(roundsOf(1, 1)).toEqual(Array.from({ length: 3 }, () => ({ contenders: 1, prompts: 1 })));

  // "late" is third after few pictures and best after all; "early" leads only at first.
  const ssim: Record<string, readonly number[]> = {
    early: [0.99, 0.95, 0.9],
    late: [0.97, 0.97, 0.99],
    steady: [0.98, 0.96, 0.95],
    poor: [0.8, 0.99, 0.99],
  };
  const asked: string[] = [];
  const ranked = await chooseByPictures(
    ["poor", "early", "late", "steady", "poorest"].map((name) => contender(name)),
    8,
    (one, prompts) => {
      asked.push(`${one.name} ${prompts}`);
      return Promise.resolve(scores(ssim[one.name]?.[Math.log2(prompts / 2)] ?? 0.1, prompts));
    },
  );
  expect(asked).toEqual([
    ...["poor 2", "early 2", "late 2", "steady 2", "poorest 2"],
    ...["early 4", "steady 4", "late 4"],
    ...["late 8", "steady 8"],
  ]);
  expect(ranked.map(({ name, scores: { prompts } }) => [name, prompts])).toEqual([
    ["late", 8],
    ["steady", 8],
    ["early", 4],
    ["poor", 2],
    ["poorest", 2],
  ]);
});

test("of equals the one of fewer bits, then as given", async () => {
  const all = [contender("a", 4), contender("b", 3.9), contender("c", 3.9)];
  const ranked = await chooseByPictures(all, 4, (_, prompts) => Promise.resolve(scores(0.9, prompts)));
  expect(ranked.map(({ name }) => name)).toEqual(["b", "c", "a"]);
});
