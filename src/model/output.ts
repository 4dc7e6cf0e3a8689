/** From a decoder's numbers to pixels, and the guard against numbers that are none. */
import { MixdqError } from "../base/errors.ts";
import type { Precision } from "../base/types.ts";

/** Said by the stage where it happened: a decoder with ReLU can turn NaN into a picture that looks merely odd. */
export function assertFinite(values: ArrayLike<number>, stage: string, precision: Precision): void {
  for (let i = 0; i < values.length; i++)
    if (!Number.isFinite(values[i]))
      throw new MixdqError(
        "invalid-output",
        `The ${stage}'s output holds ${values[i]} at ${i}: its numbers left the range of ${precision}. ${adviceFor(precision)}`,
      );
}

function adviceFor(precision: Precision): string {
  return precision === "fp16"
    ? "Use precision fp32; if it stays, the weights are damaged: download them again."
    : "The weights are damaged: download them again.";
}

/** [1, 3, H, W] in -1..1 -> RGBA bytes. */
export function toRgba(
  image: Float32Array,
  width: number,
  height: number,
  precision: Precision,
): Uint8ClampedArray<ArrayBuffer> {
  const plane = width * height;
  const out = new Uint8ClampedArray(plane * 4);
  for (let i = 0; i < plane; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = image[channel * plane + i]!;
      if (!Number.isFinite(value))
        throw new MixdqError(
          "invalid-output",
          `The picture holds ${value} at pixel (${i % width}, ${Math.floor(i / width)}): the model's numbers left the ` +
            `range of ${precision}. ${adviceFor(precision)}`,
        );
      out[4 * i + channel] = (value / 2 + 0.5) * 255; // rounds and clamps
    }
    out[4 * i + 3] = 255;
  }
  return out;
}
