import { expect, test } from "vitest";
import { Config } from "../base/config.ts";
import { readSchedulers, type SchedulerSource } from "./schedulers.ts";

const BETAS = { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear" };

function source(values: Record<string, unknown>, more: Partial<SchedulerSource> = {}): SchedulerSource {
  const config = new Config("scheduler/scheduler_config.json", { ...BETAS, ...values });
  return { config, named: undefined, pipeline: "StableDiffusionPipeline", isXl: false, embedsGuidance: false, ...more };
}

const XL = { pipeline: "StableDiffusionXLPipeline", isXl: true } as const;
const EULER = { _class_name: "EulerDiscreteScheduler" };
const timesteps = (of: SchedulerSource, className?: string): number[] => [
  ...readSchedulers(of)(className).create(4).timesteps,
];

test("model_index.json's class goes before scheduler_config.json's", () => {
  const scheduler = readSchedulers(source({ ...EULER, timestep_spacing: "trailing" }, { named: "LCMScheduler" }))();
  expect(scheduler.name).toBe("LCMScheduler");
  expect([...scheduler.create(4).timesteps]).toEqual([999, 759, 499, 259]);
});

test.each([
  [EULER, {}, [50, 7.5]],
  [EULER, XL, [50, 5]],
  [{ ...EULER, timestep_spacing: "leading" }, XL, [50, 5]],
  [{ ...EULER, timestep_spacing: "trailing" }, XL, [1, 0]],
  [{ ...EULER, timestep_spacing: "trailing", prediction_type: "v_prediction" }, {}, [1, 0]],
  [{ ...EULER, timestep_spacing: "trailing", rescale_betas_zero_snr: true }, {}, [50, 7.5]],
  [{ _class_name: "PNDMScheduler" }, {}, [50, 7.5]],
  [{ _class_name: "LCMScheduler" }, {}, [4, 0]],
  [{ _class_name: "LCMScheduler" }, { embedsGuidance: true }, [4, 8.5]],
  [{ _class_name: "LCMScheduler" }, { pipeline: "LatentConsistencyModelPipeline", embedsGuidance: true }, [4, 8.5]],
  [{ _class_name: "TCDScheduler" }, XL, [4, 0]],
  [{ _class_name: "PeRFlowScheduler", prediction_type: "diff_eps" }, {}, [4, 7.5]],
  [{ _class_name: "PNDMScheduler" }, { pipeline: "RectifiedFlowPipeline" }, [1, 0]],
])("%j with %j has by default these steps and guidance: %j", (config, more, expected) => {
  const { defaultSteps, defaultGuidanceScale } = readSchedulers(source(config, more))();
  expect([defaultSteps, defaultGuidanceScale]).toEqual(expected);
});

test("another class keeps the model's defaults unless it is a sampler of distilled models", () => {
  const defaults = (of: SchedulerSource, name: string): number[] => {
    const { defaultSteps, defaultGuidanceScale } = readSchedulers(of)(name);
    return [defaultSteps, defaultGuidanceScale];
  };
  expect(defaults(source({ ...EULER, timestep_spacing: "trailing" }), "DDIMScheduler")).toEqual([1, 0]);
  expect(defaults(source(EULER, XL), "DDIMScheduler")).toEqual([50, 5]);
  expect(defaults(source(EULER, XL), "LCMScheduler")).toEqual([4, 0]);
});

test("StableDiffusionPipeline overrules steps_offset and clip_sample, SDXL's pipeline neither", () => {
  const config = { _class_name: "DDIMScheduler", steps_offset: 0 };
  expect(timesteps(source(config))).toEqual([751, 501, 251, 1]);
  expect(timesteps(source(config, XL))).toEqual([750, 500, 250, 0]);
  const clean = (more: Partial<SchedulerSource>): number =>
    readSchedulers(source({ ...config, prediction_type: "sample" }, more))()
      .create(4)
      .denoised(Float32Array.of(3), 0, Float32Array.of(0))[0];
  expect([clean({}), clean(XL)]).toEqual([3, 1]);
});

test("from_config keeps what the file says in so many words, as overruled, and nothing of the old class's defaults", () => {
  // diffusers: DDIMScheduler.from_config(pipe.scheduler.config) of an EulerDiscreteScheduler in StableDiffusionPipeline.
  expect(timesteps(source(EULER), "DDIMScheduler")).toEqual([750, 500, 250, 0]);
  expect(timesteps(source({ ...EULER, steps_offset: 0 }), "DDIMScheduler")).toEqual([751, 501, 251, 1]);
  expect(timesteps(source({ ...EULER, timestep_spacing: "trailing" }), "DDIMScheduler")).toEqual([999, 749, 499, 249]);
});

test("PeRFlow's words for what a model predicts are its published scripts'", () => {
  const output = Float32Array.of(1);
  const velocity = (of: SchedulerSource): number =>
    readSchedulers(of)("PeRFlowScheduler")
      .create(4)
      .step(output, 0, Float32Array.of(0), () => output)[0];
  expect(velocity(source({ ...EULER, prediction_type: "v_prediction" }))).toBe(-0.25);
  expect(velocity(source({ ...EULER, prediction_type: "epsilon" }))).not.toBe(
    velocity(source({ ...EULER, prediction_type: "epsilon" }, XL)),
  );
});

test("a class that is not known is refused with those that are, and LCM's pipeline runs with LCM only", () => {
  const choose = (name: string, more: Partial<SchedulerSource> = {}) => readSchedulers(source(EULER, more))(name);
  expect(() => choose("DDPMScheduler")).toThrow(expect.objectContaining({ code: "invalid-input" }));
  expect(() => choose("DDPMScheduler")).toThrow("scheduler: got DDPMScheduler, expected one of DDIMScheduler, DEIS");
  expect(() => choose("DDIMScheduler", { pipeline: "LatentConsistencyModelPipeline" })).toThrow(
    "scheduler: got DDIMScheduler, expected LCMScheduler: LatentConsistencyModelPipeline runs with no other.",
  );
});
