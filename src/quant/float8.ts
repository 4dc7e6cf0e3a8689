/** The two 8-bit floats of machine learning (OCP 8-bit floating point 1.0), which every half holds exactly. */

export type Float8 = "F8_E4M3" | "F8_E5M2";

/** f8 bits [n] -> f16 bits [n], exact: E5M2 is the upper half of a half, E4M3 goes by a table. */
export function float8ToHalf(codes: Uint8Array, format: Float8): Uint16Array<ArrayBuffer> {
  if (format === "F8_E5M2") return Uint16Array.from(codes, (code) => code << 8);
  const table = (halfOfE4M3 ??= Uint16Array.from({ length: 256 }, (_, code) => e4m3ToHalf(code)));
  return Uint16Array.from(codes, (code) => table[code]);
}

/** Made on first use: importing does no work. */
let halfOfE4M3: Uint16Array | undefined;

/** Bias 7, no infinities; of the exponent 15, only the fraction 7 is NaN. A half's bias is 15. */
function e4m3ToHalf(code: number): number {
  const sign = (code & 0x80) << 8;
  const exponent = (code >> 3) & 15;
  const fraction = code & 7;
  if (exponent === 15 && fraction === 7) return sign | 0x7e00;
  if (exponent > 0) return sign | ((exponent + 8) << 10) | (fraction << 7);
  if (fraction === 0) return sign;
  // Subnormal: fraction * 2^-9, normal in a half.
  const shift = Math.clz32(fraction) - 28;
  return sign | ((9 - shift) << 10) | (((fraction << shift) & 7) << 7);
}
