import { expect, test } from "vitest";
import golden from "./golden/scheduler.json" with { type: "json" };
import { createGenerator } from "./noise.ts";
import { createScheduler } from "./scheduler.ts";

/** float32 rounds to 6e-8; a chain of up to 50 steps stays within this, relative to its largest value. */
const TOLERANCE = 2e-6;

function expectClose(got: ArrayLike<number>, expected: readonly number[], what: string): void {
  expect(got.length, what).toBe(expected.length);
  const largest = Math.max(1, ...expected.map(Math.abs));
  expected.forEach((value, i) => {
    expect(Math.abs(got[i] - value) / largest, `${what}[${i}]: got ${got[i]}, expected ${value}`).toBeLessThan(
      TOLERANCE,
    );
  });
}

const chains = golden.flatMap(({ config, runs }, i) => runs.map((run) => ({ i, config, ...run })));

test.each(chains)("$config._class_name, case $i, runs $steps steps as in diffusers", (expected) => {
  const scheduler = createScheduler(expected.config, "scheduler_config.json")(expected.steps);
  const generator = createGenerator(3);
  expectClose(scheduler.timesteps, expected.timesteps, "timesteps");
  expectClose([scheduler.initNoiseSigma], [expected.initNoiseSigma], "initNoiseSigma");
  let sample: Float32Array = generator.randn(4).map((value) => value * scheduler.initNoiseSigma);
  let denoised: Float32Array = sample;
  const inputs: number[] = [];
  for (let k = 0; k < expected.steps; k++) {
    inputs.push(scheduler.scaleModelInput(sample, k)[0]);
    const output = Float32Array.from({ length: 4 }, (_, i) => Math.sin(4 * k + i));
    ({ prev: sample, denoised } = scheduler.step(output, k, sample, () => generator.randn(4)));
  }
  expectClose(inputs, expected.inputs, "scaled inputs");
  expectClose(sample, expected.last, "last sample");
  expectClose(denoised, expected.denoised, "last estimate");
  expect(generator.randn(1)[0]).toBeCloseTo(expected.next, 6);
});

test("a step changes none of its arguments", () => {
  for (const name of ["EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "LCMScheduler"]) {
    const scheduler = createScheduler({ _class_name: name }, "s")(2);
    const output = Float32Array.of(1, 2);
    const sample = Float32Array.of(3, 4);
    const noise = Float32Array.of(5, 6);
    scheduler.scaleModelInput(sample, 0);
    scheduler.step(output, 0, sample, () => noise);
    expect([output, sample, noise]).toEqual([Float32Array.of(1, 2), Float32Array.of(3, 4), Float32Array.of(5, 6)]);
  }
});

test("there are as many timesteps as steps, for every count and spacing", () => {
  for (const spacing of ["linspace", "leading", "trailing"]) {
    const make = createScheduler({ _class_name: "EulerDiscreteScheduler", timestep_spacing: spacing }, "s");
    for (let steps = 1; steps <= 1000; steps += steps < 130 ? 1 : 29) {
      const { timesteps } = make(steps);
      expect(timesteps.length).toBe(steps);
      expect(timesteps.every((t, i) => i === 0 || t < timesteps[i - 1])).toBe(true);
    }
  }
});

test("a scheduler we do not compute is refused with those we do", () => {
  expect(() => createScheduler({ _class_name: "DDIMScheduler" }, "scheduler/scheduler_config.json")).toThrow(
    'scheduler/scheduler_config.json: got "_class_name" "DDIMScheduler", expected one of ' +
      "EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, LCMScheduler.",
  );
  expect(() => createScheduler({}, "s")).toThrow(expect.objectContaining({ code: "unsupported" }));
  expect(() => createScheduler([], "s")).toThrow(expect.objectContaining({ code: "invalid-model" }));
});

test.each([
  ["EulerDiscreteScheduler", { use_beta_sigmas: true }, "unsupported"],
  ["EulerDiscreteScheduler", { interpolation_type: "log_linear" }, "unsupported"],
  ["EulerDiscreteScheduler", { timestep_spacing: "sideways" }, "unsupported"],
  ["EulerAncestralDiscreteScheduler", { prediction_type: "sample" }, "unsupported"],
  ["EulerDiscreteScheduler", { beta_schedule: "sigmoid" }, "unsupported"],
  ["LCMScheduler", { thresholding: true }, "unsupported"],
  ["LCMScheduler", { rescale_betas_zero_snr: true }, "unsupported"],
  ["EulerDiscreteScheduler", { beta_end: "large" }, "invalid-model"],
  ["EulerDiscreteScheduler", { beta_end: 2 }, "invalid-model"],
  ["EulerDiscreteScheduler", { num_train_timesteps: 0 }, "invalid-model"],
  ["EulerDiscreteScheduler", { trained_betas: [0.1] }, "invalid-model"],
  ["EulerDiscreteScheduler", { use_karras_sigmas: true, use_exponential_sigmas: true }, "invalid-model"],
  ["LCMScheduler", { original_inference_steps: 2000 }, "invalid-model"],
])("%s refuses %j", (name, options, code) => {
  const key = Object.keys(options)[0];
  const make = () => createScheduler({ _class_name: name, ...options }, "s");
  expect(make).toThrow(expect.objectContaining({ code }));
  expect(make).toThrow(key);
});

test("a number of steps that makes no schedule is refused", () => {
  const euler = createScheduler({ _class_name: "EulerDiscreteScheduler" }, "s");
  const lcm = createScheduler({ _class_name: "LCMScheduler" }, "s");
  for (const steps of [0, -1, 1.5, Number.NaN]) expect(() => euler(steps)).toThrow(/numInferenceSteps: got/);
  expect(() => euler(1001)).toThrow("expected at most the 1000");
  expect(() => lcm(51)).toThrow("expected at most the 50");
});
