/** Peak signal-to-noise ratio over 8-bit colours. */
import { assertSameSize, COLOR_CHANNELS, type Picture } from "./picture.ts";

const PEAK = 255;

/**
 * 10 log10(255^2 / mean squared error) in dB over all pixels and colours. Equal pictures get `psnrCeiling`, not
 * infinity, which would swallow every mean it enters and which JSON cannot write. Throws `invalid-input`.
 */
export function psnr(a: Picture, b: Picture): number {
  assertSameSize(a, b, "PSNR");
  let squares = 0;
  for (let i = 0; i < a.data.length; i++) if (i % 4 !== COLOR_CHANNELS) squares += (a.data[i] - b.data[i]) ** 2;
  return squares === 0 ? psnrCeiling(a) : 10 * Math.log10((PEAK ** 2 * valueCount(a)) / squares);
}

/** The PSNR in dB of a picture in which a single colour of a single pixel is off by one: the largest that is finite. */
export function psnrCeiling(picture: Pick<Picture, "width" | "height">): number {
  return 10 * Math.log10(PEAK ** 2 * valueCount(picture));
}

function valueCount({ width, height }: Pick<Picture, "width" | "height">): number {
  return width * height * COLOR_CHANNELS;
}
