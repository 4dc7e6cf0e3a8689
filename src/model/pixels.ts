/** Pictures that a request brings along, as diffusers' VaeImageProcessor makes tensors of them, and as it lays them over a result. */
import { invalidInput } from "../base/errors.ts";
import { checkPixelCount } from "../base/pixels.ts";
import type { PixelData } from "../base/types.ts";
import { BICUBIC, crop, resize, type Bitmap } from "./resize.ts";

/** Pixels along both sides, [left, top, right, bottom]. */
export type Region = readonly [left: number, top: number, right: number, bottom: number];

interface Size {
  readonly width: number;
  readonly height: number;
}

/** Throws `invalid-input` for what is no picture of RGBA bytes; `name` is the option. */
export function checkPixels(name: string, picture: PixelData): PixelData {
  const { width, height, data } = picture;
  const isSide = (side: unknown): boolean => Number.isInteger(side) && (side as number) >= 1;
  if (!isSide(width) || !isSide(height))
    throw invalidInput(`${name}: got ${String(width)}x${String(height)} pixels, expected whole numbers from 1 on.`);
  checkPixelCount(name, width, height);
  const isBytes = data instanceof Uint8ClampedArray || data instanceof Uint8Array;
  if (!isBytes || data.length !== width * height * 4)
    throw invalidInput(
      `${name}: got ${isBytes ? `${data.length} bytes` : typeof data} for ${width}x${height} pixels, expected ` +
        `${width * height * 4} bytes: red, green, blue and alpha of each, as ImageData has them.`,
    );
  return picture;
}

/** Red, green and blue; alpha is dropped, as diffusers' load_image does (Pillow's convert("RGB")). */
export function toRgb({ width, height, data }: PixelData): Bitmap {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c];
  return { width, height, channels: 3, data: rgb };
}

/** Red, green, blue, and an alpha of 255. */
export function withAlpha({ width, height, data }: Bitmap) {
  const rgba = new Uint8ClampedArray(width * height * 4).fill(255);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgba[4 * i + c] = data[3 * i + c];
  return { width, height, data: rgba };
}

/** Luma, ITU-R 601-2, in 16-bit fixed point as Pillow's convert("L"). */
export function toGrey({ width, height, data }: Bitmap): Bitmap {
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++)
    grey[i] = (data[3 * i] * 19595 + data[3 * i + 1] * 38470 + data[3 * i + 2] * 7471 + 0x8000) >> 16;
  return { width, height, channels: 1, data: grey };
}

/** The picture at another size, or a part of it that is fitted into that size. */
export const fitted = (picture: Bitmap, { width, height }: Size, region: Region | undefined): Bitmap =>
  region ? resizeAndFill(crop(picture, ...region), { width, height }) : resize(picture, width, height);

/** [3, H, W] in -1..1. */
export function toTensor({ width, height, channels, data }: Bitmap): Float32Array {
  const plane = width * height;
  const out = new Float32Array(channels * plane);
  for (let i = 0; i < plane; i++)
    for (let c = 0; c < channels; c++) out[c * plane + i] = 2 * Math.fround(data[channels * i + c] / 255) - 1;
  return out;
}

/** 1 where a pixel is repainted, white or nearer to it than to black, else 0. [H, W] */
export const toMask = ({ data }: Bitmap): Float32Array => Float32Array.from(data, (value) => (value >= 128 ? 1 : 0));

/** The mask of latents: that of their top left pixel (nearest neighbour). [h, w] */
export function latentMask(mask: Float32Array, { width, height }: Size, scale: number): Float32Array {
  const columns = width / scale;
  return Float32Array.from({ length: columns * (height / scale) }, (_, i) => {
    const [y, x] = [Math.floor(i / columns), i % columns];
    return mask[y * scale * width + x * scale];
  });
}

/**
 * The part of a picture around what is repainted, `pad` pixels wider on every side and then as wide to its height as `size`
 * (diffusers' get_crop_region). `mask` is grey; whatever is not black counts. Throws `invalid-input` for a mask of black alone.
 */
export function cropRegion(mask: Bitmap, size: Size, pad: number): Region {
  const { width, height, data } = mask;
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      if (data[y * width + x] === 0) continue;
      [left, top, right, bottom] = [
        Math.min(left, x),
        Math.min(top, y),
        Math.max(right, x + 1),
        Math.max(bottom, y + 1),
      ];
    }
  if (right === 0) throw invalidInput("mask: every pixel is black, expected some white: that is what is repainted.");
  [left, top] = [Math.max(left - pad, 0), Math.max(top - pad, 0)];
  [right, bottom] = [Math.min(right + pad, width), Math.min(bottom + pad, height)];
  const wanted = size.width / size.height;
  if ((right - left) / (bottom - top) > wanted)
    [top, bottom] = widened(top, bottom, Math.trunc((right - left) / wanted - (bottom - top)), height);
  else [left, right] = widened(left, right, Math.trunc((bottom - top) * wanted - (right - left)), width);
  return [left, top, right, bottom];
}

/** A range `by` longer, moved to lie within 0 .. `most` as far as it fits. */
function widened(from: number, to: number, by: number, most: number): [number, number] {
  let [first, last] = [from - Math.floor(by / 2), to + by - Math.floor(by / 2)];
  const over = Math.max(0, last - most);
  [first, last] = [first - over, last - over];
  if (first < 0) [first, last] = [0, last - first];
  return [first, Math.min(last, most)];
}

/** Fitted into a size, in its middle; what is left beside it repeats its edge (VaeImageProcessor._resize_and_fill). */
export function resizeAndFill(picture: Bitmap, { width, height }: Size): Bitmap {
  const ratio = width / height;
  const own = picture.width / picture.height;
  const ownWidth = ratio < own ? width : Math.floor((picture.width * height) / picture.height);
  const ownHeight = ratio >= own ? height : Math.floor((picture.height * width) / picture.width);
  const resized = resize(picture, ownWidth, ownHeight);
  const out = blank(width, height, picture.channels);
  const left = Math.floor(width / 2) - Math.floor(ownWidth / 2);
  const top = Math.floor(height / 2) - Math.floor(ownHeight / 2);
  paste(out, resized, left, top);
  const edge = (w: number, h: number, box: Region): Bitmap => resize(resized, w, h, { filter: BICUBIC, box });
  if (ratio < own && top > 0) {
    paste(out, edge(width, top, [0, 0, width, 0]), 0, 0);
    paste(out, edge(width, top, [0, ownHeight, width, ownHeight]), 0, top + ownHeight);
  } else if (ratio > own && left > 0) {
    paste(out, edge(left, height, [0, 0, 0, height]), 0, 0);
    paste(out, edge(left, height, [ownWidth, 0, ownWidth, height]), left + ownWidth, 0);
  }
  return out;
}

/** Fitted over a size, its middle; what is beyond is cut off (VaeImageProcessor._resize_and_crop). */
export function resizeAndCrop(picture: Bitmap, { width, height }: Size): Bitmap {
  const ratio = width / height;
  const own = picture.width / picture.height;
  const ownWidth = ratio > own ? width : Math.floor((picture.width * height) / picture.height);
  const ownHeight = ratio <= own ? height : Math.floor((picture.height * width) / picture.width);
  const out = blank(width, height, picture.channels);
  const left = Math.floor(width / 2) - Math.floor(ownWidth / 2);
  paste(out, resize(picture, ownWidth, ownHeight), left, Math.floor(height / 2) - Math.floor(ownHeight / 2));
  return out;
}

/**
 * The original, where the mask is black exactly, over a result of the same size, where it is white; between, a mixture in
 * Pillow's integers (VaeImageProcessor.apply_overlay). `mask` is grey.
 */
export function overlay(mask: Bitmap, original: Bitmap, result: Bitmap): Bitmap {
  const out = new Uint8ClampedArray(original.data.length);
  for (let i = 0; i < mask.data.length; i++) {
    const alpha = 255 - mask.data[i];
    const own = alpha * 2 ** 7;
    for (let c = 0; c < 3; c++) {
      const at = 3 * i + c;
      const multiplied = by255(original.data[at] * alpha);
      const over = alpha === 0 ? 0 : alpha === 255 ? multiplied : Math.min(255, Math.floor((255 * multiplied) / alpha));
      const sum = over * own + result.data[at] * (255 * 2 ** 7 - own) + (0x80 << 7);
      out[at] = ((sum >> 8) + sum) >> 15;
    }
  }
  return { width: original.width, height: original.height, channels: 3, data: out };
}

/** A product of two bytes by 255, rounded. */
const by255 = (product: number): number => (((product + 128) >> 8) + product + 128) >> 8;

export const blank = (width: number, height: number, channels: number): Bitmap => ({
  ...{ width, height, channels },
  data: new Uint8Array(width * height * channels),
});

/** Copies a picture into another; what lies beyond its edges is left out. */
export function paste(into: Bitmap, picture: Bitmap, left: number, top: number): void {
  const { channels } = into;
  const visible = crop(picture, Math.max(0, -left), 0, Math.min(picture.width, into.width - left), picture.height);
  const from = Math.max(0, left);
  for (let y = Math.max(0, -top); y < Math.min(picture.height, into.height - top); y++) {
    const row = visible.data.subarray(y * visible.width * channels, (y + 1) * visible.width * channels);
    into.data.set(row, ((y + top) * into.width + from) * channels);
  }
}
