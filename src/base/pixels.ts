/** How large a picture may be that somebody gives: more would need gigabytes before the first pixel of it is used. */
import { invalidInput } from "./errors.ts";

export const MAX_PIXELS = 2 ** 26;

/** Throws `invalid-input`; `name` is the option. */
export function checkPixelCount(name: string, width: number, height: number): void {
  if (width * height <= MAX_PIXELS) return;
  const got = `${width}x${height} pixels (${((width * height) / 1e6).toFixed(0)} megapixels)`;
  throw invalidInput(
    `${name}: got ${got}, expected at most ${Math.floor(MAX_PIXELS / 1e6)} megapixels. Make the picture smaller first.`,
  );
}
