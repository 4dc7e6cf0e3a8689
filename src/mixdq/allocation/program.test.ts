import { expect, test } from "vitest";
import { makeProgram, type Item, type Solution } from "./program.ts";
import { makeRandom, shuffle } from "./random.ts";

interface Style {
  readonly widths: readonly number[];
  readonly size: (random: () => number) => number;
  readonly value: (random: () => number, bits: number, size: number) => number;
}

const STYLES: readonly Style[] = [
  { widths: [2, 4, 8], size: (r) => 1 + Math.floor(r() * 9), value: (r, bits) => 6 * bits + 10 * r() },
  { widths: [4, 8], size: (r) => 320 * (1 + Math.floor(r() * 40)), value: (r, bits) => 1 - 4 ** -bits * r() },
  // Values in no order at all: more bits may be worth less.
  { widths: [2, 3, 4, 8], size: (r) => 1 + Math.floor(r() * 1e6), value: (r) => 100 * r() - 50 },
  // Small whole numbers: ties everywhere.
  { widths: [2, 4, 8], size: (r) => 1 + Math.floor(r() * 3), value: (r, bits) => Math.floor(r() * 3) + bits / 2 },
  // Value in proportion to cost: every allocation lies on the relaxation's edge.
  { widths: [2, 4, 8], size: (r) => 1 + Math.floor(r() * 50), value: (_, bits, size) => bits * size },
];

function makeItems({ widths, size, value }: Style, count: number, random: () => number): Item[] {
  return Array.from({ length: count }, (_, i) => {
    const elements = size(random);
    const options = widths.map((bits) => ({ bits, cost: bits * elements, value: value(random, bits, elements) }));
    return { path: `layer.${i}`, options };
  });
}

const costRange = (items: readonly Item[], pick: (...costs: number[]) => number): number =>
  items.reduce((sum, { options }) => sum + pick(...options.map(({ cost }) => cost)), 0);

/** Every allocation there is. */
function* everyAllocation(items: readonly Item[]): Generator<{ bits: number[]; cost: number; value: number }> {
  const at = items.map(() => 0);
  for (;;) {
    const chosen = items.map(({ options }, i) => options[at[i]]);
    yield {
      bits: chosen.map(({ bits }) => bits),
      cost: chosen.reduce((sum, { cost }) => sum + cost, 0),
      value: chosen.reduce((sum, { value }) => sum + value, 0),
    };
    let i = 0;
    while (i < items.length && ++at[i] === items[i].options.length) at[i++] = 0;
    if (i === items.length) return;
  }
}

/** The best sum for every cost up to the budget, by the textbook's dynamic programme over costs. */
function bestByCost(items: readonly Item[], budget: number): Float64Array {
  let best = new Float64Array(budget + 1).fill(0);
  for (const { options } of items) {
    const next = new Float64Array(budget + 1).fill(-Infinity);
    for (const { cost, value } of options)
      for (let spent = cost; spent <= budget; spent++) next[spent] = Math.max(next[spent], best[spent - cost] + value);
    best = next;
  }
  return best;
}

/** The solution says what it is: its widths are options, its sums are theirs, the cost is within the budget. */
function expectSound(items: readonly Item[], budget: number, { bits, objective, cost, bound, gap }: Solution): void {
  const chosen = items.map(({ path, options }) => options.find((option) => option.bits === bits.get(path))!);
  expect(chosen).not.toContain(undefined);
  expect(bits.size).toBe(items.length);
  expect(cost).toBe(chosen.reduce((sum, option) => sum + option.cost, 0));
  expect(cost).toBeLessThanOrEqual(budget);
  expect(objective).toBeCloseTo(
    chosen.reduce((sum, option) => sum + option.value, 0),
    8,
  );
  expect(bound).toBeGreaterThanOrEqual(objective);
  expect(gap).toBeGreaterThanOrEqual(0);
}

test("small programmes: the best of all allocations, by search and by HiGHS", async () => {
  const random = makeRandom(1);
  const solvers = new Set<string>();
  for (const style of STYLES) {
    for (let round = 0; round < 12; round++) {
      const items = makeItems(style, 1 + Math.floor(random() * 6), random);
      const [least, most] = [costRange(items, Math.min), costRange(items, Math.max)];
      const budget = Math.floor(least + (most - least) * random());
      const best = [...everyAllocation(items)]
        .filter(({ cost }) => cost <= budget)
        .reduce((a, b) => (b.value > a.value ? b : a));
      const found = await makeProgram(items).solve(budget);
      expectSound(items, budget, found);
      expect(found.objective).toBeCloseTo(best.value, 9);
      expect(found).toMatchObject({ gap: 0, solver: "search" });
      expect(found.bound).toBe(found.objective);
      // No room for partial allocations: HiGHS has to close the gap.
      const other = await makeProgram(items, 0).solve(budget);
      expectSound(items, budget, other);
      expect(other.objective).toBeCloseTo(best.value, 9);
      expect(other.gap).toBeLessThan(1e-6);
      solvers.add(other.solver);
    }
  }
  expect([...solvers]).toContain("HiGHS");
});

test("middling programmes: the best sum of a dynamic programme over costs, at many budgets", async () => {
  const random = makeRandom(2);
  const small: Style = { ...STYLES[0], size: (r) => 1 + Math.floor(r() * 30) };
  const cases: readonly Style[] = [small, { ...small, value: (r, bits) => 1 - 4 ** -bits * r() }, STYLES[3], STYLES[4]];
  for (const style of cases) {
    const items = makeItems(style, 60, random);
    const program = makeProgram(items);
    const best = bestByCost(items, program.maxCost);
    const upTo = (budget: number): number => best.subarray(0, budget + 1).reduce((a, b) => Math.max(a, b), -Infinity);
    for (let i = 0; i <= 25; i++) {
      const budget = Math.round(program.minCost + ((program.maxCost - program.minCost) * i) / 25);
      const found = await program.solve(budget);
      expectSound(items, budget, found);
      expect(found.gap).toBe(0);
      expect(found.objective).toBeCloseTo(upTo(budget), 8);
    }
  }
});

test("HiGHS finds the same optimum without help, and says so", async () => {
  const random = makeRandom(3);
  for (const style of STYLES.slice(0, 3)) {
    const items = makeItems(style, 80, random);
    const program = makeProgram(items);
    const budget = Math.round(0.55 * program.maxCost + 0.45 * program.minCost);
    const found = await program.solve(budget);
    expect(await program.certify(budget, found)).toMatch(/^HiGHS \d+\.\d+\.\d+$/);
    const cheapest = new Map(items.map(({ path, options }) => [path, options[0].bits]));
    const worse = await program.solve(program.minCost);
    await expect(program.certify(budget, { ...worse, bits: cheapest })).rejects.toThrow("fault in mixdq");
  }
});

test("a bigger budget never gives a worse sum", async () => {
  const random = makeRandom(4);
  for (const style of STYLES) {
    const items = makeItems(style, 40, random);
    const program = makeProgram(items);
    let before = -Infinity;
    for (let i = 0; i <= 120; i++) {
      const { objective } = await program.solve(
        Math.floor(program.minCost + ((program.maxCost - program.minCost) * i) / 120),
      );
      expect(objective).toBeGreaterThanOrEqual(before - 1e-9);
      before = objective;
    }
    expect((await program.solve(1e15)).objective).toBeCloseTo(before, 9);
  }
});

test("neither the order of layers nor of options changes anything", async () => {
  const random = makeRandom(5);
  for (const style of STYLES) {
    const items = makeItems(style, 30, random);
    const { minCost, maxCost } = makeProgram(items);
    for (let round = 0; round < 5; round++) {
      const budget = Math.floor(minCost + (maxCost - minCost) * random());
      const expected = await makeProgram(items).solve(budget);
      const shuffled = shuffle(items, random).map(({ path, options }) => ({ path, options: shuffle(options, random) }));
      const found = await makeProgram(shuffled).solve(budget);
      expect([...found.bits]).toEqual([...expected.bits]);
      expect(found).toEqual(expected);
    }
  }
});

test("ties: least cost, then more bits for the layer that comes first", async () => {
  const random = makeRandom(6);
  for (let round = 0; round < 60; round++) {
    const items = makeItems(STYLES[3], 6, random);
    const [least, most] = [costRange(items, Math.min), costRange(items, Math.max)];
    const budget = Math.floor(least + (most - least) * random());
    const [first] = [...everyAllocation(items)]
      .filter(({ cost }) => cost <= budget)
      .sort(
        (a, b) =>
          b.value - a.value || a.cost - b.cost || a.bits.reduce((order, bits, i) => order || b.bits[i] - bits, 0),
      );
    const { bits } = await makeProgram(shuffle(items, random)).solve(budget);
    expect([...bits.values()]).toEqual(first!.bits);
  }
  const twins = ["b", "a", "d", "c"].map((path) => ({
    path,
    options: [4, 8].map((width) => ({ bits: width, cost: width, value: width })),
  }));
  expect([...(await makeProgram(twins).solve(27)).bits]).toEqual([
    ["a", 8],
    ["b", 8],
    ["c", 4],
    ["d", 4],
  ]);
});

test("more bits that are worth no more are not spent", async () => {
  const options = [
    { bits: 2, cost: 2, value: 5 },
    { bits: 4, cost: 4, value: 7 },
    { bits: 8, cost: 8, value: 6.9 },
  ];
  const { bits, objective } = await makeProgram([{ path: "noisy", options }]).solve(100);
  expect(bits.get("noisy")).toBe(4);
  expect(objective).toBe(7);
});

test("a budget that cannot be met is refused", async () => {
  const program = makeProgram(makeItems(STYLES[0], 5, makeRandom(7)));
  await expect(program.solve(program.minCost - 1)).rejects.toThrow(`at least the ${program.minCost}`);
  await expect(program.solve(Number.NaN)).rejects.toThrow("budget of NaN");
  expect((await program.solve(program.minCost)).cost).toBe(program.minCost);
});
