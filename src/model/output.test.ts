import { expect, test } from "vitest";
import { toRgba, warnOfOneColour } from "./output.ts";

const picture = (image: Float32Array): Uint8ClampedArray => toRgba(image, 2, 2, "fp32");

test("a picture of one colour is reported with it, black or not, also where the floats differ", () => {
  expect(warnOfOneColour(picture(new Float32Array(12).fill(-1)))).toContain("same colour, rgb(0, 0, 0)");
  const grey = Float32Array.from({ length: 12 }, (_, i) => 1e-4 * (i % 4));
  expect(warnOfOneColour(picture(grey))).toContain("rgb(128, 128, 128)");
});

test("one pixel of another colour is a picture", () => {
  for (let i = 0; i < 12; i++) {
    const image = new Float32Array(12).fill(-1);
    image[i] = 1;
    expect(warnOfOneColour(picture(image))).toBeUndefined();
  }
});
