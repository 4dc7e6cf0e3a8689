/** Runs that begin with a picture, against diffusers (golden/make_strength_golden.py): where they begin, noise, every step. */
import { expect, test } from "vitest";
import golden from "./golden/strength.json" with { type: "json" };
import { createGenerator } from "./noise.ts";
import { createScheduler, SCHEDULER_CLASSES, stepsFor } from "./scheduler.ts";

interface Run {
  readonly config: { readonly _class_name: string };
  readonly strength: number;
  readonly steps?: number;
  readonly given?: readonly number[];
  readonly eta?: number;
  readonly distilled?: boolean;
  readonly timesteps: readonly number[];
  readonly first: readonly number[];
  readonly last: readonly number[];
}
const runs = golden as readonly Run[];

/** As in scheduler.test.ts: chains in float32, and those whose last bits depend on a processor's logarithms. */
const TOLERANCE = 2e-6;
const CANCELLING_TOLERANCE = 1e-5;

function expectClose(got: ArrayLike<number>, expected: readonly number[], what: string, tolerance = TOLERANCE): void {
  expect(got.length, what).toBe(expected.length);
  const largest = Math.max(1, ...expected.map(Math.abs));
  expected.forEach((value, i) =>
    expect(Math.abs(got[i] - value) / largest, `${what}[${i}]: got ${got[i]}, expected ${value}`).toBeLessThan(
      tolerance,
    ),
  );
}

const rounded = (value: number): number => Math.round(value * 1024) / 1024;
const CLEAN = Float32Array.of(512, -768, 1280, 256).map((value) => value / 1024);
const NOISE = Float32Array.of(-640, 1100, 300, -1500).map((value) => value / 1024);
const KEPT = 2;

test.each(runs.map((run, i) => ({ i, ...run })))(
  "$config._class_name, case $i, begins at strength $strength of $steps $given as in diffusers",
  (expected) => {
    const { strength, steps = 0, given, eta = 0, distilled, config } = expected;
    const request = { steps, timesteps: given, eta, ...(distilled ? { distilledStrength: strength } : { strength }) };
    const scheduler = createScheduler(config, "scheduler_config.json")(request);
    expectClose(scheduler.timesteps, expected.timesteps, "timesteps");
    const generator = createGenerator(3);
    let sample = scheduler.addNoise(CLEAN, NOISE, 0);
    expectClose(sample, expected.first, "first sample");
    for (let k = 0; k < scheduler.timesteps.length; k++) {
      const output = Float32Array.from({ length: 4 }, (_, i) => rounded(Math.sin(4 * k + i)));
      sample = scheduler.step(output, k, sample, () => generator.randn(4).map(rounded)).slice();
      const isLast = k === scheduler.timesteps.length - 1;
      sample[KEPT] = (isLast ? CLEAN : scheduler.addNoise(CLEAN, NOISE, k + 1))[KEPT];
    }
    const tolerance = config._class_name.startsWith("DEIS") ? CANCELLING_TOLERANCE : TOLERANCE;
    expectClose(sample, expected.last, "last sample", tolerance);
    expect(scheduler.stepOf(0)).toBe(1);
    expect(scheduler.stepOf(scheduler.timesteps.length - 1)).toBe(scheduler.steps);
  },
);

test("every class takes noise and a strength", () => {
  const known = new Set(runs.map(({ config }) => config._class_name));
  expect(SCHEDULER_CLASSES.filter((name) => !known.has(name))).toEqual(["RectifiedFlowScheduler"]);
  const flow = createScheduler({ _class_name: "RectifiedFlowScheduler" }, "s")({ steps: 4, strength: 0.5 });
  expect([...flow.timesteps]).toEqual([500, 250]);
  expect(flow.addNoise(Float32Array.of(2, 0), Float32Array.of(4, 8), 1)).toEqual(Float32Array.of(2.5, 2));
});

test("a strength that leaves no step is refused with what would do", () => {
  const make = createScheduler({ _class_name: "EulerDiscreteScheduler" }, "s");
  expect(() => make({ steps: 1, strength: 0.75 })).toThrow(
    "strength: got 0.75 of 1 step(s), which leaves none to take. Choose 2 or more steps, or a strength of at least 1.",
  );
  expect(() => make({ steps: 3, strength: 0.3 })).toThrow("Choose 4 or more steps, or a strength of at least 0.3334.");
  for (const strength of [0, -0.1, 1.1, Number.NaN])
    expect(() => make({ steps: 4, strength })).toThrow(/^strength: got .* expected a number above 0, up to 1/);
  for (let strength = 0.01; strength <= 1; strength += 0.01)
    expect(make({ steps: stepsFor(strength), strength }).steps).toBeGreaterThanOrEqual(1);
});
