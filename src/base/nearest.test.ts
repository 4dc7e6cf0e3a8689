import { expect, test } from "vitest";
import { nearest } from "./nearest.ts";

const NAMES = ["prompt", "negativePrompt", "seed", "numInferenceSteps", "guidanceScale", "width", "height", "model"];

test.each([
  ["negative_prompt", "negativePrompt"],
  ["GUIDANCE-SCALE", "guidanceScale"],
  ["num_inference_steps", "numInferenceSteps"],
  ["promt", "prompt"],
  ["widht", "width"],
  ["hieght", "height"],
  ["height_px", "height"],
  ["sed", "seed"],
])("%s is near %s", (word, name) => expect(nearest(word, NAMES)).toBe(name));

test.each(["callback", "", "_", "x", "__proto__", "prom".repeat(1000)])("nothing is near %j", (word) =>
  expect(
    nearest(
      word,
      NAMES.filter((name) => name !== "prompt"),
    ),
  ).toBeUndefined(),
);
