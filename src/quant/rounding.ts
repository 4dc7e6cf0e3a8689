/** Rounding as PyTorch, WGSL and the paper's code have it, and the smallest scale that a GPU keeps. */

/** Adding it to a double of at most 2^51 leaves no room for a fraction: the processor rounds, halves to even. */
export const ROUNDER = 1.5 * 2 ** 52;

/** The smallest normal f32. A GPU may read anything smaller as zero, and a scale of zero divides. */
export const SMALLEST_SCALE = 2 ** -126;

/** To the nearest integer, halves to the even one: `torch.round`. Beyond 2^51 a value is returned almost unchanged. */
export function roundHalfEven(value: number): number {
  return value + ROUNDER - ROUNDER;
}

/**
 * (max - min) / steps, rounded where float32 arithmetic rounds, and kept usable: 1 for an empty range, never below
 * SMALLEST_SCALE, finite for every finite range.
 */
export function scaleOfRange(min: number, max: number, steps: number): number {
  if (max === min) return 1;
  const range = Math.fround(max - min);
  const scale = Math.fround((Number.isFinite(range) ? range : max - min) / steps);
  return Math.max(scale, SMALLEST_SCALE);
}
