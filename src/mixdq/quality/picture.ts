/** What the measures of this room read: 8-bit pictures, as the engine returns them. */
import { MixdqError } from "../../base/errors.ts";
import type { RawImage } from "../../base/types.ts";

/** `data` is RGBA, row by row from the top; alpha is not looked at. */
export type Picture = Pick<RawImage, "width" | "height" | "data">;

export const COLOR_CHANNELS = 3;

/** Throws `invalid-input`: two pictures are compared pixel by pixel. */
export function assertSameSize(a: Picture, b: Picture, measure: string): void {
  if (a.width === b.width && a.height === b.height) return;
  throw new MixdqError(
    "invalid-input",
    `${measure}: got pictures of ${a.width}x${a.height} and ${b.width}x${b.height} pixels, expected one size. ` +
      `Make both with the same width and height.`,
  );
}

/** One colour of a picture, [height * width], 0..255. */
export function colorPlane({ width, height, data }: Picture, channel: number): Float64Array {
  return Float64Array.from({ length: width * height }, (_, i) => data[4 * i + channel]);
}
