import { expect, test } from "vitest";
import golden from "./golden/scheduler.json" with { type: "json" };
import { createGenerator } from "./noise.ts";
import { createScheduler, SCHEDULER_CLASSES } from "./scheduler.ts";

/** float32 rounds to 6e-8; a chain of up to 50 steps stays within this, relative to its largest value. */
const TOLERANCE = 2e-6;
/**
 * Where the last bit of a root or logarithm counts more, which differs between PyTorch's vector library, NumPy and
 * JavaScript: DEIS takes differences of integrals of logarithms, and from a sigma of 4096 an ancestral step ends 1000 times
 * lower, at the root of a difference of squares.
 */
const CANCELLING_TOLERANCE = 1e-5;
const cancels = ({ _class_name, rescale_betas_zero_snr }: Config): boolean =>
  _class_name.startsWith("DEIS") || (_class_name.startsWith("EulerAncestral") && rescale_betas_zero_snr === true);

function expectClose(got: ArrayLike<number>, expected: readonly number[], what: string, tolerance = TOLERANCE): void {
  expect(got.length, what).toBe(expected.length);
  const largest = Math.max(1, ...expected.map(Math.abs));
  expected.forEach((value, i) => {
    expect(Math.abs(got[i] - value) / largest, `${what}[${i}]: got ${got[i]}, expected ${value}`).toBeLessThan(
      tolerance,
    );
  });
}

interface Config {
  readonly _class_name: string;
  readonly rescale_betas_zero_snr?: boolean;
}
interface Chain {
  readonly steps?: number;
  /** Timesteps instead of steps. */
  readonly given?: readonly number[];
  readonly eta?: number;
  readonly timesteps: readonly number[];
  readonly initNoiseSigma: number;
  readonly inputs: readonly number[];
  readonly last: readonly number[];
  readonly next: number;
}
const cases = golden as readonly { config: Config; runs: readonly Chain[] }[];
const chains = cases.flatMap(({ config, runs }, i) => runs.map((run) => ({ i, config, ...run })));

test.each(chains)("$config._class_name, case $i, runs $steps $given eta $eta as in diffusers", (expected) => {
  const { steps = 0, given, eta = 0 } = expected;
  const request = { steps, timesteps: given, eta };
  const scheduler = createScheduler(expected.config, "scheduler_config.json")(request);
  const generator = createGenerator(3);
  expectClose(scheduler.timesteps, expected.timesteps, "timesteps");
  expectClose([scheduler.initNoiseSigma], [expected.initNoiseSigma], "initNoiseSigma");
  // As in the golden file's maker, so that the last bits of a processor's logarithms and sines do not count.
  const rounded = (value: number): number => Math.round(value * 1024) / 1024;
  const noise = (): Float32Array => generator.randn(4).map(rounded);
  let sample: Float32Array = noise().map((value) => value * scheduler.initNoiseSigma);
  const inputs: number[] = [];
  const isSmooth = request.steps >= 20;
  for (let k = 0; k < scheduler.timesteps.length; k++) {
    inputs.push(scheduler.scaleModelInput(sample, k)[0]);
    const output = Float32Array.from({ length: 4 }, (_, i) => rounded(Math.sin((isSmooth ? k / 5 : 4 * k) + i)));
    sample = scheduler.step(output, k, sample, noise);
  }
  const tolerance = cancels(expected.config) ? CANCELLING_TOLERANCE : TOLERANCE;
  expectClose(inputs, expected.inputs, "scaled inputs", tolerance);
  expectClose(sample, expected.last, "last sample", tolerance);
  expect(generator.randn(1)[0]).toBeCloseTo(expected.next, 6);
});

test("a step changes none of its arguments", () => {
  for (const name of SCHEDULER_CLASSES) {
    const scheduler = createScheduler({ _class_name: name }, "s")({ steps: 4, eta: 0.5 });
    const output = Float32Array.of(1, 2);
    const sample = Float32Array.of(3, 4);
    const noise = Float32Array.of(5, 6);
    for (let call = 0; call < scheduler.timesteps.length; call++) {
      scheduler.scaleModelInput(sample, call);
      scheduler.denoised(output, call, sample);
      expect(scheduler.step(output, call, sample, () => noise)).not.toBe(sample);
      expect([output, sample, noise]).toEqual([Float32Array.of(1, 2), Float32Array.of(3, 4), Float32Array.of(5, 6)]);
    }
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
  expect(() => createScheduler({ _class_name: "DDPMScheduler" }, "scheduler/scheduler_config.json")).toThrow(
    'scheduler/scheduler_config.json: got "_class_name" "DDPMScheduler", expected one of DDIMScheduler, DEISMulti',
  );
  expect(() => createScheduler({ _class_name: "DDIMScheduler" }, "s", "constructor")).toThrow(
    's: got "_class_name" "constructor", expected one of',
  );
  expect(() => createScheduler({}, "s")).toThrow(expect.objectContaining({ code: "unsupported" }));
  expect(() => createScheduler([], "s")).toThrow(expect.objectContaining({ code: "invalid-model" }));
});

test.each([
  ["EulerDiscreteScheduler", { interpolation_type: "cubic" }, "unsupported"],
  ["PNDMScheduler", { prediction_type: "sample" }, "unsupported"],
  ["DDIMScheduler", { prediction_type: "flow_prediction" }, "unsupported"],
  ["DPMSolverMultistepScheduler", { final_sigmas_type: "zero", algorithm_type: "dpmsolver" }, "unsupported"],
  ["DPMSolverMultistepScheduler", { final_sigmas_type: "zero", algorithm_type: "deis" }, "unsupported"],
  [
    "DPMSolverMultistepScheduler",
    { solver_order: 3, algorithm_type: "sde-dpmsolver", final_sigmas_type: "sigma_min" },
    "unsupported",
  ],
  ["DPMSolverMultistepScheduler", { variance_type: "learned" }, "unsupported"],
  ["DEISMultistepScheduler", { solver_type: "euler" }, "unsupported"],
  ["UniPCMultistepScheduler", { shift_terminal: 0.1 }, "unsupported"],
  ["UniPCMultistepScheduler", { use_dynamic_shifting: true }, "unsupported"],
  ["UniPCMultistepScheduler", { solver_order: 4 }, "invalid-model"],
  ["PeRFlowScheduler", { prediction_type: "epsilon" }, "unsupported"],
  ["EulerDiscreteScheduler", { timestep_spacing: "sideways" }, "unsupported"],
  ["EulerAncestralDiscreteScheduler", { prediction_type: "sample" }, "unsupported"],
  ["EulerDiscreteScheduler", { beta_schedule: "sigmoid" }, "unsupported"],
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

test("noise is not predicted where there is no signal", () => {
  for (const name of ["LCMScheduler", "TCDScheduler"]) {
    const make = createScheduler({ _class_name: name, rescale_betas_zero_snr: true }, "s");
    expect(() => make(4)).toThrow(/s: got \w+'s "rescale_betas_zero_snr" true, expected false for .* at timestep 999/);
    expect(make({ steps: 0, timesteps: [900] }).timesteps).toEqual(Float32Array.of(900));
  }
});

test.each([
  ["DDIMScheduler", {}, [999, 500], "timesteps: got a list for DDIMScheduler, expected none: only DPMSolverMulti"],
  [
    "LCMScheduler",
    {},
    [999, 999],
    "timesteps: got 999 at 1, expected whole numbers in descending order from at most 999",
  ],
  ["TCDScheduler", {}, [1000], "timesteps: got 1000 at 0"],
  ["EulerDiscreteScheduler", {}, [], "timesteps: got [], expected at least one number"],
  ["EulerDiscreteScheduler", {}, [999, -1], "timesteps: got [999, -1]"],
  ["EulerDiscreteScheduler", { use_karras_sigmas: true }, [999], "timesteps: given, but s has use_karras_sigmas"],
  ["HeunDiscreteScheduler", { use_beta_sigmas: true }, [999], "timesteps: given, but s has use_beta_sigmas"],
  [
    "DPMSolverMultistepScheduler",
    { use_lu_lambdas: true },
    [999],
    "timesteps: given, but s has noise levels of its own",
  ],
])("%s %j refuses the timesteps %j", (name, options, timesteps, message) => {
  const make = createScheduler({ _class_name: name, ...options }, "s");
  expect(() => make({ steps: 0, timesteps })).toThrow(expect.objectContaining({ code: "invalid-input" }));
  expect(() => make({ steps: 0, timesteps })).toThrow(message);
});

test("calls that belong to one step are told apart from steps", () => {
  const stepsOf = (config: object, steps: number): number[] => {
    const run = createScheduler(config, "s")(steps);
    expect(run.steps).toBe(steps);
    return [...run.timesteps].map((_, call) => run.stepOf(call));
  };
  expect(stepsOf({ _class_name: "HeunDiscreteScheduler" }, 3)).toEqual([1, 1, 2, 2, 3]);
  expect(stepsOf({ _class_name: "PNDMScheduler", skip_prk_steps: true }, 3)).toEqual([1, 1, 2, 3]);
  expect(stepsOf({ _class_name: "PNDMScheduler" }, 5)).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 5]);
  expect(stepsOf({ _class_name: "DDIMScheduler" }, 3)).toEqual([1, 2, 3]);
});

test("an eta outside 0 .. 1 is refused", () => {
  for (const eta of [-0.1, 1.1, Number.NaN])
    expect(() => createScheduler({ _class_name: "TCDScheduler" }, "s")({ steps: 4, eta })).toThrow(/eta: got/);
});

test("InstaFlow's Euler walks from noise to the picture in equal parts", () => {
  const run = createScheduler({ _class_name: "RectifiedFlowScheduler" }, "s")(4);
  expect([...run.timesteps]).toEqual([1000, 750, 500, 250]);
  const velocity = Float32Array.of(8, -4);
  expect(run.step(velocity, 1, Float32Array.of(1, 2), () => velocity)).toEqual(Float32Array.of(3, 1));
  expect(run.denoised(velocity, 1, Float32Array.of(1, 2))).toEqual(Float32Array.of(7, -1));
});

test("a number of steps that makes no schedule is refused", () => {
  const euler = createScheduler({ _class_name: "EulerDiscreteScheduler" }, "s");
  const lcm = createScheduler({ _class_name: "LCMScheduler" }, "s");
  for (const steps of [0, -1, 1.5, Number.NaN]) expect(() => euler(steps)).toThrow(/numInferenceSteps: got/);
  expect(() => euler(1001)).toThrow("expected at most the 1000");
  expect(() => lcm(51)).toThrow("expected at most the 50");
});
