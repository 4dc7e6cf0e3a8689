import { expect, test } from "vitest";
import { activationQuant, dequantizeActivations, quantizeActivations } from "./activations.ts";
import golden from "./golden/quantizer.json" with { type: "json" };
import { roundHalfEven } from "./rounding.ts";

test("halves go to the even integer, as in PyTorch", () => {
  const values = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 254.5, 0.49999999999999994, -7.2, 1e9 + 0.5, 3];
  expect(values.map(roundHalfEven)).toEqual([-2, -2, 0, 0, 2, 2, 254, 0, -7, 1e9, 3]);
});

test("scales, zero points and codes are PyTorch's, stored less 128", () => {
  let tensors = 0;
  for (const { name, values, cases } of golden)
    for (const { bits, symmetric, scale, zeroPoint, codes } of cases) {
      if (symmetric || (bits !== 8 && bits !== 4)) continue;
      const quant = activationQuant(Math.min(...values), Math.max(...values), bits);
      expect(quant, `${name}, ${bits} bits`).toEqual({ scale: Math.fround(scale), zeroPoint });
      const stored = quantizeActivations(Float32Array.from(values), quant, bits);
      expect(Array.from(stored), `${name}, ${bits} bits`).toEqual(codes.map((code) => code - 128));
      tensors++;
    }
  expect(tensors).toBe(2 * golden.length);
});

test("ranges contain 0, which comes back as 0", () => {
  for (const [min, max, zeroPoint] of [
    [1, 3, 0],
    [-3, -1, 255],
    [-100, 155, 100],
    [-1, 3, 64],
    [0, 0, 0],
  ] as const) {
    const quant = activationQuant(min, max);
    expect(quant.zeroPoint, `${min} .. ${max}`).toBe(zeroPoint);
    expect(quant.scale).toBeGreaterThan(0);
    expect(dequantizeActivations(quantizeActivations(Float32Array.of(0), quant), quant)[0]).toBe(0);
  }
});

test("what lies in the range comes back within half a step, what lies outside at its ends", () => {
  for (const bits of [4, 8]) {
    const quant = activationQuant(-1.3, 2.9, bits);
    const inside = Float32Array.from({ length: 421 }, (_, i) => -1.3 + i / 100);
    const back = dequantizeActivations(quantizeActivations(inside, quant, bits), quant);
    // Rounding the zero point moves the range by up to half a step.
    const steps = inside.map((value, i) => Math.abs(value - back[i]) / quant.scale);
    expect(Math.max(...steps.subarray(20, -20))).toBeLessThan(0.501);
    expect(Math.max(...steps)).toBeLessThan(1.001);
    const outside = quantizeActivations(Float32Array.of(-1e30, 1e30, -Infinity, Infinity), quant, bits);
    expect(Array.from(outside)).toEqual([-128, 2 ** bits - 129, -128, 2 ** bits - 129]);
  }
});

test("the smallest and the largest ranges keep a usable scale", () => {
  expect(activationQuant(-1e-45, 1e-44).scale).toBe(2 ** -126);
  const widest = activationQuant(-3.4e38, 3.4e38);
  expect(Number.isFinite(widest.scale)).toBe(true);
  expect(widest.zeroPoint).toBe(128);
});

test("what is not a range is refused, naming the layer", () => {
  for (const [min, max] of [
    [1, -1],
    [Number.NaN, 1],
    [0, Infinity],
  ] as const)
    expect(() => activationQuant(min, max, 8, "conv_out")).toThrow(
      expect.objectContaining({ code: "invalid-input", message: expect.stringMatching(/^conv_out: got the range /) }),
    );
});
