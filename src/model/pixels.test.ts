/** Pictures against Pillow and diffusers' VaeImageProcessor, byte for byte (golden/make_resize_golden.py). */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { decode } from "fast-png";
import { expect, test } from "vitest";
import golden from "./golden/resize.json" with { type: "json" };
import {
  blank,
  checkPixels,
  cropRegion,
  latentMask,
  overlay,
  resizeAndFill,
  toGrey,
  toMask,
  toTensor,
  type Region,
} from "./pixels.ts";
import { BICUBIC, crop, LANCZOS, resize, type Bitmap } from "./resize.ts";

const EDITING = path.join(import.meta.dirname, "../../e2e/golden/editing");
const read = (name: string): Bitmap => {
  const { width, height, channels, data } = decode(readFileSync(path.join(EDITING, name)));
  return { width, height, channels, data: Uint8Array.from(data) };
};
const [picture, mask] = [read("picture.png"), read("mask.png")];
const sha256 = ({ data }: Bitmap): string => createHash("sha256").update(data).digest("hex");

test.each(golden.resized)(
  "$width x $height by $filter of $box is Pillow's",
  ({ width, height, filter, box, ...digests }) => {
    const options = { filter: filter === "lanczos" ? LANCZOS : BICUBIC, ...(box && { box: box as unknown as Region }) };
    const resized = resize(picture, width, height, options);
    expect([resized.width, resized.height]).toEqual([width, height]);
    expect(sha256(resized)).toBe(digests.sha256);
    expect(sha256(toGrey(resized))).toBe(digests.grey);
  },
);

test.each(golden.regions)(
  "the surroundings of the mask for $width x $height, $pad wider",
  ({ pad, region, fill, ...size }) => {
    const found = cropRegion(mask, size, pad);
    expect(found).toEqual(region);
    expect(sha256(resizeAndFill(crop(picture, ...found), size))).toBe(fill);
  },
);

test("a byte becomes -1..1, a mask 0 or 1, and that of latents is the one of their top left pixel", () => {
  const grey = { width: 4, height: 2, channels: 1, data: Uint8Array.of(0, 127, 128, 255, 255, 255, 0, 0) };
  expect([...toTensor(grey).subarray(0, 4)]).toEqual(
    [-1, 2 * Math.fround(127 / 255) - 1, 2 * Math.fround(128 / 255) - 1, 1].map(Math.fround),
  );
  expect([...toMask(grey)]).toEqual([0, 0, 1, 1, 1, 1, 0, 0]);
  expect([...latentMask(toMask(grey), grey, 2)]).toEqual([0, 1]);
});

test("what is black in the mask is the original, what is white the result", () => {
  const grey = { width: 3, height: 1, channels: 1, data: Uint8Array.of(0, 255, 128) };
  const original = { width: 3, height: 1, channels: 3, data: Uint8Array.of(7, 77, 177, 7, 77, 177, 0, 100, 200) };
  const result = { width: 3, height: 1, channels: 3, data: Uint8Array.of(1, 2, 3, 1, 2, 3, 255, 100, 0) };
  expect([...overlay(grey, original, result).data]).toEqual([7, 77, 177, 1, 2, 3, 128, 100, 100]);
});

test.each([
  [{ width: 0, height: 1 }, "image: got 0x1 pixels, expected whole numbers"],
  [{ width: 10_000, height: 10_000 }, "image: got 10000x10000 pixels (100 megapixels), expected at most 67 megapixels"],
  [{ width: 2, height: 2, data: new Uint8Array(12) }, "image: got 12 bytes for 2x2 pixels, expected 16 bytes"],
  [{ width: 2, height: 2, data: "text" }, "image: got string for 2x2"],
])("%j is refused", (picture, message) => {
  expect(() => checkPixels("image", picture as never)).toThrow(expect.objectContaining({ code: "invalid-input" }));
  expect(() => checkPixels("image", picture as never)).toThrow(message);
});

test("a mask of black alone has no surroundings", () => {
  expect(() => cropRegion(blank(4, 4, 1), { width: 8, height: 8 }, 2)).toThrow("mask: every pixel is black");
});
