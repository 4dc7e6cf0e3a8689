import { expect, test } from "vitest";
import { allocate, type AllocateOptions, type Allocation } from "./allocate.ts";
import { baselines } from "./baselines.ts";
import { bitsWithin } from "./groups.ts";
import { makeRandom, shuffle } from "./random.ts";
import { onlyGroup, sampleSensitivity } from "./samples.testing.ts";
import type { Group, Sensitivity } from "./sensitivity.ts";
import { paretoFront, splitBudget, sweep, usableRatios } from "./sweep.ts";

const SAMPLE = sampleSensitivity(3, 11);

/** Bits per weight over all layers, counted from the outside: a layer that is not listed has 16. */
function averageOf({ layers }: Sensitivity, allocation: Allocation, group?: Group): number {
  let [bits, count] = [0, 0];
  for (const [path, layer] of layers) {
    if (group && layer.group !== group) continue;
    bits += layer.weights * (allocation.layers.get(path)?.weightBits ?? 16);
    count += layer.weights;
  }
  return bits / count;
}

function objectiveOf({ layers }: Sensitivity, allocation: Allocation, group: Group): number {
  const metric = group === "content" ? "ssim" : "sqnr";
  return [...layers]
    .filter(([path, layer]) => layer.group === group && allocation.layers.has(path))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .reduce((sum, [path, layer]) => sum + layer.weight.get(metric)!.get(allocation.layers.get(path)!.weightBits)!, 0);
}

const quick = (options: Partial<AllocateOptions> & { weightBits: number }): AllocateOptions => ({
  certify: false,
  ...options,
});

test("both groups: within the budget, the sums are what they are said to be, by the paper's widths", async () => {
  const allocation = await allocate(SAMPLE, { weightBits: 4.5 });
  expect(averageOf(SAMPLE, allocation)).toBeLessThanOrEqual(4.5);
  expect(averageOf(SAMPLE, allocation)).toBeGreaterThan(4.4);
  expect(allocation.weights.averageBits).toBeCloseTo(averageOf(SAMPLE, allocation), 12);
  for (const solution of allocation.weights.chosen.groups) {
    expect(solution.objective).toBeCloseTo(objectiveOf(SAMPLE, allocation, solution.group), 9);
    expect(solution.averageBits).toBeCloseTo(averageOf(SAMPLE, allocation, solution.group), 12);
    expect(solution.averageBits).toBeLessThanOrEqual(solution.budget);
    expect(solution).toMatchObject({ gap: 0, bound: solution.objective });
    expect(allocation.weights.certified.get(solution.group)).toMatch(/^HiGHS/);
  }
  for (const [path, { weightBits }] of allocation.layers)
    expect(SAMPLE.layers.get(path)!.group === "content" ? [2, 4, 8] : [4, 8]).toContain(weightBits);
  expect([...allocation.layers.keys()]).toEqual([...SAMPLE.layers.keys()].sort());
});

test("summed as noise: the least that the budget allows, by search over all of few layers; less than dB leave", async () => {
  const noise = (layers: Allocation["layers"]): number =>
    [...layers].reduce((sum, [path, { weightBits }]) => {
      const layer = SAMPLE.layers.get(path)!;
      return layer.group === "quality" ? sum + 10 ** (-layer.weight.get("sqnr")!.get(weightBits)! / 10) : sum;
    }, 0);
  const ratio = 0.8;
  const byNoise = await allocate(SAMPLE, { weightBits: 4.5, sum: "noise", ratio });
  const byDecibels = await allocate(SAMPLE, quick({ weightBits: 4.5, ratio }));
  expect(byNoise.weights.programs.map(({ metric }) => metric)).toEqual(["ssim", "noise"]);
  expect(byNoise.weights.chosen.groups[1].objective).toBeCloseTo(-noise(byNoise.layers), 12);
  expect(byNoise.weights.certified.get("quality")).toMatch(/^HiGHS/);
  expect(noise(byNoise.layers)).toBeLessThan(0.99 * noise(byDecibels.layers));

  const few: Sensitivity = { ...SAMPLE, layers: new Map([...onlyGroup(SAMPLE, "quality").layers].slice(0, 8)) };
  const candidates = { content: [2, 4, 8], quality: [2, 4, 8] };
  const { layers } = await allocate(few, quick({ weightBits: 4, sum: "noise", candidates, protect: 0 }));
  const paths = [...few.layers.keys()];
  const total = [...few.layers.values()].reduce((sum, { weights }) => sum + weights, 0);
  let least = Infinity;
  for (let code = 0; code < 3 ** paths.length; code++) {
    const bits = paths.map((_, i) => [2, 4, 8][Math.floor(code / 3 ** i) % 3]);
    const cost = bits.reduce((sum, width, i) => sum + width * few.layers.get(paths[i])!.weights, 0);
    if (cost > 4 * total) continue;
    least = Math.min(least, noise(new Map(paths.map((path, i) => [path, { weightBits: bits[i] as 4, actBits: 8 }]))));
  }
  expect(noise(layers)).toBeCloseTo(least, 12);
});

test("a file of one group has the budget to itself", async () => {
  for (const group of ["content", "quality"] as const) {
    const alone = onlyGroup(SAMPLE, group);
    const candidates = { content: [2, 4, 8], quality: [2, 4, 8] };
    const allocation = await allocate(alone, quick({ weightBits: 3.7, candidates }));
    expect(allocation.weights.chosen.groups).toHaveLength(1);
    expect(allocation.weights.chosen.groups[0]).toMatchObject({ group, budget: 3.7 });
    expect(averageOf(alone, allocation)).toBeLessThanOrEqual(3.7);
    const more = await allocate(alone, quick({ weightBits: 3.9, candidates }));
    expect(objectiveOf(alone, more, group)).toBeGreaterThan(objectiveOf(alone, allocation, group));
  }
});

test("the order of a file's layers changes nothing", async () => {
  const shuffled = { ...SAMPLE, layers: new Map(shuffle([...SAMPLE.layers], makeRandom(3))) };
  const [a, b] = [
    await allocate(SAMPLE, quick({ weightBits: 4.2 })),
    await allocate(shuffled, quick({ weightBits: 4.2 })),
  ];
  expect([...b.layers]).toEqual([...a.layers]);
  expect(b.weights.chosen).toEqual(a.weights.chosen);
  expect(b.protectedLayers).toEqual(a.protectedLayers);
});

test("protected: of each group the worst inputs, and what that makes of them", async () => {
  const worst = (group: Group): string =>
    [...SAMPLE.layers]
      .filter(([, layer]) => layer.group === group)
      .map(([path, { activation }]) => ({
        path,
        value: activation.get(group === "content" ? "ssim" : "sqnr")!.get(8)!,
      }))
      .reduce((a, b) => (b.value < a.value ? b : a)).path;
  const names = [worst("content"), worst("quality")];

  const weightOnly = await allocate(SAMPLE, quick({ weightBits: 4.5 }));
  expect(weightOnly.protectedLayers).toEqual(names);
  const floats = [...weightOnly.layers].filter(([, { actBits }]) => actBits === 16).map(([path]) => path);
  expect(floats.sort()).toEqual(names.toSorted());
  const none = await allocate(SAMPLE, quick({ weightBits: 4.5, protect: 0 }));
  expect(none.protectedLayers).toEqual([]);
  expect(none.weights.chosen).toEqual(weightOnly.weights.chosen);
  expect([...none.layers.values()].every(({ actBits }) => actBits === 8)).toBe(true);

  // In float altogether they cost 16 bits a weight, and the others have what is left.
  const float = await allocate(SAMPLE, quick({ weightBits: 5, protectedAs: "float" }));
  expect([...SAMPLE.layers.keys()].filter((path) => !float.layers.has(path)).sort()).toEqual(names.toSorted());
  expect(averageOf(SAMPLE, float)).toBeLessThanOrEqual(5);
  expect(float.weights.averageBits).toBeCloseTo(averageOf(SAMPLE, float), 12);
  expect(float.weights.quantizedBits).toBeLessThan(float.weights.averageBits);

  const eight = await allocate(SAMPLE, quick({ weightBits: 4.5, protect: 0.1 }));
  expect(eight.protectedLayers).toHaveLength(Math.ceil(36 * 0.1) + Math.ceil(48 * 0.1));
  const only = await allocate(SAMPLE, quick({ weightBits: 4.5, actBits: 16 }));
  expect(only.protectedLayers).toEqual([]);
  expect([...only.layers.values()].every(({ actBits }) => actBits === 16)).toBe(true);
  expect(only.averageActBits).toBe(16);
});

test("inputs may have a budget of their own", async () => {
  const allocation = await allocate(SAMPLE, quick({ weightBits: 5, actBits: 7.5 }));
  let [bits, count] = [0, 0];
  for (const [path, { activations }] of SAMPLE.layers) {
    const { actBits } = allocation.layers.get(path)!;
    if (actBits === 16) expect(allocation.protectedLayers).toContain(path);
    else [bits, count] = [bits + actBits * activations, count + activations];
  }
  expect(bits / count).toBeLessThanOrEqual(7.5);
  expect(bits / count).toBeGreaterThan(7);
  expect(allocation.activations!.averageBits).toBeCloseTo(bits / count, 12);
  const float = await allocate(SAMPLE, quick({ weightBits: 5, actBits: 7.5, protect: 1 }));
  expect(float.averageActBits).toBe(16);
  const all = await allocate(SAMPLE, quick({ weightBits: 5, actBits: 4, protect: 0 }));
  expect([...all.layers.values()].every(({ actBits }) => actBits === 4)).toBe(true);
});

test("without sensitivities of activations nothing is protected, unless that was asked for", async () => {
  const layers = new Map([...SAMPLE.layers].map(([path, layer]) => [path, { ...layer, activation: new Map() }]));
  const allocation = await allocate({ ...SAMPLE, layers }, quick({ weightBits: 4.5 }));
  expect(allocation.protectedLayers).toEqual([]);
  expect(allocation.notes.join()).toContain("no sensitivity of activations");
  const asked = allocate({ ...SAMPLE, layers }, quick({ weightBits: 4.5, protect: 0.01 }), "s.json");
  await expect(asked).rejects.toThrow(/s\.json: .*got no activation ssim, expected its value at 8 bits/);
});

test.each<[Partial<AllocateOptions>, RegExp]>([
  [{ weightBits: 2 }, /--weight-bits 2, expected at least 3\.\d+, which all layers at their smallest width take/],
  [{ weightBits: Number.NaN }, /--weight-bits NaN/],
  [{ weightBits: 17 }, /--weight-bits 17/],
  [
    { weightBits: 4, candidates: { content: [2, 5], quality: [4] } },
    /--candidates with 5 bits, expected some of 2, 3, 4, 8/,
  ],
  [{ weightBits: 4, candidates: { content: [2], quality: [] } }, /no candidates for quality layers/],
  [{ weightBits: 4, candidates: { content: [2, 3], quality: [4] } }, /got weight ssim at 2, 4, 8 bits, .* at 3 bits/],
  [{ weightBits: 4, actBits: 9 }, /--act-bits 9, expected 4 to 8, or 16/],
  [{ weightBits: 4, protect: 2 }, /--protect 2/],
  [{ weightBits: 4, ratio: 0 }, /--ratio 0/],
  [{ weightBits: 4, ratio: 9 }, /--ratio 9: got .* bits for the quality layers, expected at least 4/],
])("%j is refused", async (options, message) => {
  await expect(allocate(SAMPLE, quick(options as AllocateOptions), "s.json")).rejects.toMatchObject({
    code: "invalid-input",
    message: expect.stringMatching(message),
  });
});

test("the budget that a message names is enough, and the largest budgets too", async () => {
  const refused = await allocate(SAMPLE, quick({ weightBits: 2 })).catch((error: Error) => error.message);
  const least = Number(/at least ([\d.]+)/.exec(refused as string)![1]);
  const lowest = await allocate(SAMPLE, quick({ weightBits: least }));
  expect([...lowest.layers.values()].filter(({ weightBits }) => weightBits === 8)).toHaveLength(0);
  for (const weightBits of [8, 12, 16]) {
    const highest = await allocate(SAMPLE, quick({ weightBits }));
    expect([...highest.layers.values()].every((layer) => layer.weightBits === 8)).toBe(true);
  }
});

test("budgets are split by the paper's formula", async () => {
  const { programs } = (await allocate(SAMPLE, quick({ weightBits: 4.5 }))).weights;
  const [content, quality] = programs;
  for (const ratio of [0.5, 0.8, 1, 1.3]) {
    const budgets = splitBudget(programs, 4.5, ratio);
    const r = content!.elements / quality!.elements;
    expect(budgets.get("quality")).toBeCloseTo((4.5 * (1 + r)) / (ratio * r + 1), 12);
    expect(budgets.get("content")).toBeCloseTo(ratio * budgets.get("quality")!, 12);
    const total = budgets.get("content")! * content!.elements + budgets.get("quality")! * quality!.elements;
    expect(total / (content!.elements + quality!.elements)).toBeCloseTo(4.5, 12);
  }
  const fixed = await allocate(SAMPLE, quick({ weightBits: 4.5, ratio: 0.8 }));
  expect(fixed.weights.chosen.ratio).toBe(0.8);
  for (const ratio of usableRatios(programs, 4.5, 20)) {
    const budgets = splitBudget(programs, 4.5, ratio);
    for (const { group, lowest, highest } of programs) {
      expect(budgets.get(group)!).toBeGreaterThan(lowest - 1e-9);
      expect(budgets.get(group)!).toBeLessThan(highest + 1e-9);
    }
  }
});

test("the sweep: 400 points within their budgets, and a front that nothing beats", async () => {
  const { programs, chosen } = (await allocate(SAMPLE, quick({ weightBits: 5 }))).weights;
  const points = await sweep(programs, 5);
  expect(points).toHaveLength(400);
  for (const { averageBits, budget, score } of points) {
    expect(averageBits).toBeLessThanOrEqual(budget);
    expect(score).toBeGreaterThanOrEqual(0);
    expect(score).toBeLessThanOrEqual(1);
  }
  const front = paretoFront(points);
  expect(front.length).toBeGreaterThan(3);
  for (const point of front) {
    const beaten = points.some(
      (other) =>
        (other.averageBits <= point.averageBits && other.score > point.score) ||
        (other.averageBits < point.averageBits && other.score >= point.score),
    );
    expect(beaten).toBe(false);
  }
  // The ratio that is chosen without pictures is the one where the group that keeps less keeps most.
  const atBudget = points.filter(({ budget }) => budget === 5);
  expect(atBudget).toHaveLength(20);
  expect(chosen.score).toBe(Math.max(...atBudget.map(({ score }) => score)));
  expect(front.at(-1)!.score).toBe(Math.max(...points.map(({ score }) => score)));
});

test("baselines keep the budget, are the same every time, and are not better", async () => {
  const { programs, chosen } = (await allocate(SAMPLE, quick({ weightBits: 4.5 }))).weights;
  const bits = new Map(chosen.groups.flatMap((solution) => [...solution.bits]));
  const first = await baselines(programs, SAMPLE.layers, bits, 4.5, 1);
  expect(first.map(({ name }) => name)).toEqual(["uniform 4-bit", "naive sorting", "SQNR only", "random", "perturbed"]);
  for (const { averageBits, score, objectives, bits: others } of first) {
    expect(averageBits).toBeLessThanOrEqual(4.5);
    expect(others.size).toBe(SAMPLE.layers.size);
    expect(score).toBeLessThan(chosen.score);
    // Nobody has more of both sums.
    expect(objectives.every((sum, i) => sum > chosen.groups[i].objective)).toBe(false);
  }
  expect(await baselines(programs, SAMPLE.layers, bits, 4.5, 1)).toEqual(first);
  const other = await baselines(programs, SAMPLE.layers, bits, 4.5, 2);
  expect(other.slice(0, 3)).toEqual(first.slice(0, 3));
  expect(other.slice(3)).not.toEqual(first.slice(3));
});

test("whole bits within a budget, to the last one", () => {
  expect(bitsWithin(4, 1000)).toBe(4000);
  expect(bitsWithin(3.66, 100)).toBe(366);
  expect(bitsWithin(1 / 3, 3)).toBe(1);
  const random = makeRandom(9);
  for (let i = 0; i < 2000; i++) {
    const elements = 1 + Math.floor(random() * 3e9);
    const bits = Math.floor(random() * 8 * elements);
    // The average of so many bits, however it is rounded, has room for all of them and no more.
    expect(bitsWithin(bits / elements, elements)).toBe(bits);
  }
});

test("SDXL's size: 800 layers, 400 points, all proven, in seconds", async () => {
  const large = sampleSensitivity(29, 21);
  expect(large.layers.size).toBe(812);
  const { programs, chosen } = (await allocate(large, { weightBits: 4 })).weights;
  expect(chosen.groups.every(({ gap }) => gap === 0)).toBe(true);
  const started = performance.now();
  const points = await sweep(programs, 4);
  expect(points.flatMap(({ groups }) => groups).every(({ gap }) => gap === 0)).toBe(true);
  expect(performance.now() - started).toBeLessThan(60_000);
});
