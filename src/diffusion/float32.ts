/** Arithmetic in float32 as PyTorch does it, where every operation rounds once. */

export const f32 = Math.fround;

export const sqrt32 = (x: number): number => f32(Math.sqrt(x));
export const exp32 = (x: number): number => f32(Math.exp(x));
export const log32 = (x: number): number => f32(Math.log(x));

/** A tensor and what it is multiplied by. */
export type Term = readonly [factor: number, values: Float32Array];

/** factor * values + factor * values + ..., elementwise; every product and every sum is rounded, from left to right. */
export function combine(first: Term, ...rest: readonly Term[]): Float32Array {
  const start = f32(first[0]);
  const out = first[1].map((value) => start * value);
  for (const [factor, values] of rest) {
    const rounded = f32(factor);
    for (let i = 0; i < out.length; i++) out[i] = out[i] + f32(rounded * values[i]);
  }
  return out;
}
