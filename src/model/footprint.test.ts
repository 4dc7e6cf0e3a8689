import { expect, test } from "vitest";
import { buildUNet } from "../diffusion/unet.ts";
import { TILED } from "../kernels/choices.ts";
import { quantizableLayers } from "../mixdq/calibration/layers.ts";
import { uniformConfig } from "../mixdq/calibration/preset.ts";
import type { Precision } from "../base/types.ts";
import { footprintOf, type Footprint } from "./footprint.ts";
import { describeSdxlTurbo } from "./known/sdxlTurbo.ts";

const turbo = describeSdxlTurbo();
const unet = buildUNet(turbo.unet, { batch: 1, height: 64, width: 64, tokens: 77 }, "unet", "f32");

function footprint(precision: Precision, { pixels = 512, isGuided = false } = {}): Footprint {
  return footprintOf(turbo, {
    precision,
    config:
      precision === "w8a8" || precision === "w4a8" ? uniformConfig(quantizableLayers(unet), precision) : undefined,
    width: pixels,
    height: pixels,
    isGuided,
    caps: { shaderF16: true, packedDot: true, maxWorkgroupsPerDimension: 65_535, ...TILED },
    limits: { maxBindingBytes: 2 ** 32, maxBufferBytes: 2 ** 32 },
  });
}

test("SDXL-Turbo's multiply-accumulates are its published ones, whatever numbers they are of", () => {
  for (const precision of ["fp32", "fp16", "w8a8", "w4a8"] as const) {
    const { int8, f16, f32 } = footprint(precision).components["unet"].macs;
    expect(int8 + f16 + f32, precision).toBe(794_389_381_120);
  }
  const { int8, f16, f32 } = footprint("w4a8").components["unet"].macs;
  expect([f16, int8 > 0.96 * (int8 + f32)]).toEqual([0, true]); // what is left is attention
});

test("fewer bits are fewer bytes, of the UNet alone", () => {
  const [half, eight, four] = (["fp16", "w8a8", "w4a8"] as const).map((precision) => footprint(precision).components);
  expect(eight!["unet"].weightBytes).toBeLessThan(0.51 * half!["unet"].weightBytes);
  expect(four!["unet"].downloadBytes).toBeLessThan(0.26 * half!["unet"].downloadBytes);
  for (const component of ["text_encoder", "text_encoder_2", "vae"]) expect(four![component]).toEqual(half![component]);
});

test("parameters at two bytes each are the download in fp16, at four in fp32", () => {
  expect(footprint("fp16").components["unet"].downloadBytes).toBe(2 * 2_567_463_684);
  expect(footprint("fp32").components["unet"].downloadBytes).toBe(4 * 2_567_463_684);
});

test("stages only grow, the peak is the largest; guidance and size cost activations", () => {
  const { stages, peakBytes } = footprint("w4a8");
  expect(stages.denoise).toBeGreaterThan(stages.encode);
  expect(peakBytes).toBe(Math.max(...Object.values(stages)));
  expect(footprint("w4a8", { isGuided: true }).stages.denoise).toBeGreaterThan(stages.denoise);
  expect(footprint("w4a8", { pixels: 1024 }).peakBytes).toBeGreaterThan(peakBytes);
});

test("what depends on the text alone is left out of a warm step", () => {
  const { dispatches, warmDispatches, pipelines, components } = footprint("w4a8");
  expect(dispatches).toBe(components["unet"].dispatches);
  expect(warmDispatches).toBeLessThan(dispatches - 100);
  const parts = Object.values(components).map((component) => component.pipelines);
  expect(pipelines).toBeLessThanOrEqual(parts.reduce((sum, count) => sum + count, 0));
  expect(pipelines).toBeGreaterThanOrEqual(Math.max(...parts));
});
