import { expect, test } from "vitest";
import golden from "./golden/timestep.json" with { type: "json" };
import { guidanceScaleEmbedding, timestepEmbedding } from "./timestep.ts";

/** An ulp of a frequency near 1 (6e-8) times the largest angle, plus the rounding of the angle itself. */
function tolerance(largestAngle: number): number {
  return 1e-6 + 1.2e-7 * largestAngle;
}

function worst(got: Float32Array, expected: readonly number[]): number {
  return expected.reduce((worst, value, i) => Math.max(worst, Math.abs(got[i] - value)), 0);
}

test.each(golden.timesteps)("timesteps $timesteps embed into $dim values as in diffusers", (c) => {
  const got = timestepEmbedding(c.timesteps, c.dim, c);
  expect(got.length).toBe(c.timesteps.length * c.dim);
  expect(worst(got, c.values)).toBeLessThan(tolerance(Math.max(...c.timesteps) * c.scale));
});

test.each(golden.guidance)("a guidance scale of $w + 1 embeds into $dim values as in diffusers", (c) => {
  const got = guidanceScaleEmbedding(c.w, c.dim);
  expect(got.length).toBe(c.dim);
  expect(worst(got, c.values)).toBeLessThan(tolerance(c.w * 1000));
});
