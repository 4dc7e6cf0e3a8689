import { expect, test } from "vitest";
import { float8ToHalf, type Float8 } from "./float8.ts";
import { fromHalf } from "./half.ts";

/** By the definition: sign, exponent, fraction. */
function valueOf(code: number, format: Float8): number {
  const fractionBits = format === "F8_E4M3" ? 3 : 2;
  const bias = format === "F8_E4M3" ? 7 : 15;
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code & 0x7f) >> fractionBits;
  const fraction = (code & ((1 << fractionBits) - 1)) / (1 << fractionBits);
  if (format === "F8_E4M3" && (code & 0x7f) === 0x7f) return NaN;
  if (format === "F8_E5M2" && exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

test.each(["F8_E4M3", "F8_E5M2"] as const)("every code of %s is the half of the same value", (format) => {
  const codes = Uint8Array.from({ length: 256 }, (_, code) => code);
  const values = fromHalf(float8ToHalf(codes, format));
  expect([...values]).toEqual([...codes].map((code) => valueOf(code, format)));
});
