/** Arrays as diffusers has them (channels first) and as the networks have them (channels last). */

/** Of one image, in latents or pixels. */
export interface ImageShape {
  readonly channels: number;
  readonly height: number;
  readonly width: number;
}

export const sizeOf = ({ channels, height, width }: ImageShape): number => channels * height * width;

/** [C, H, W] -> [H, W, C]. */
export function toChannelsLast(values: Float32Array, { channels, height, width }: ImageShape): Float32Array {
  const plane = height * width;
  const out = new Float32Array(values.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < plane; i++) out[i * channels + c] = values[c * plane + i];
  return out;
}

/** [H, W, C] -> [C, H, W]. */
export function toChannelsFirst(values: Float32Array, { channels, height, width }: ImageShape): Float32Array {
  const plane = height * width;
  const out = new Float32Array(values.length);
  for (let c = 0; c < channels; c++) for (let i = 0; i < plane; i++) out[c * plane + i] = values[i * channels + c];
  return out;
}

/** [rows, a], [rows, b], ... -> [rows, a + b + ...]. */
export function sideBySide(parts: readonly Float32Array[], rows: number): Float32Array {
  const widths = parts.map(({ length }) => length / rows);
  const width = widths.reduce((a, b) => a + b, 0);
  const out = new Float32Array(rows * width);
  let offset = 0;
  for (const [i, part] of parts.entries()) {
    for (let row = 0; row < rows; row++)
      out.set(part.subarray(row * widths[i], (row + 1) * widths[i]), row * width + offset);
    offset += widths[i];
  }
  return out;
}

/** One after the other; a single one as it is. */
export function joined(parts: readonly Float32Array[]): Float32Array {
  if (parts.length === 1) return parts[0];
  const out = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** `count` pieces of the same length. */
export function split(values: Float32Array, count: number): Float32Array[] {
  const length = values.length / count;
  return Array.from({ length: count }, (_, i) => values.subarray(i * length, (i + 1) * length));
}
