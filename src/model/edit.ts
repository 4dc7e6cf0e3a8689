/** What a request does with a picture: begins with it, repaints a part of it, or edits it as told. Pixels only, no network. */
import { invalidInput } from "../base/errors.ts";
import type { GenerateRequest, PixelData } from "../base/types.ts";
import {
  blank,
  checkPixels,
  cropRegion,
  fitted,
  overlay,
  paste,
  resizeAndCrop,
  toGrey,
  toMask,
  toRgb,
  toTensor,
  type Region,
} from "./pixels.ts";
import { resize, type Bitmap } from "./resize.ts";
import type { ModelDescription } from "./description.ts";

interface Size {
  readonly width: number;
  readonly height: number;
}

/** diffusers' image_guidance_scale, of InstructPix2Pix. */
const DEFAULT_IMAGE_GUIDANCE = 1.5;

export interface EditOptions {
  readonly image: PixelData;
  readonly mask: PixelData | undefined;
  /** Of the picture that is drawn. */
  readonly size: Size;
  /** undefined for models that edit as told: they begin with noise. */
  readonly strength: number | undefined;
  readonly keepUnmasked: boolean;
  readonly maskPadding: number | undefined;
  readonly imageGuidanceScale: number;
}

export class Edit {
  readonly strength: number | undefined;
  readonly imageGuidanceScale: number;
  readonly keepUnmasked: boolean;
  readonly maskPadding: number | undefined;
  readonly isMasked: boolean;
  readonly #options: EditOptions;
  #drawn: { readonly pixels: Float32Array; readonly mask: Float32Array | undefined } | undefined;
  #region: Region | undefined;

  constructor(options: EditOptions) {
    this.#options = options;
    this.strength = options.strength;
    this.imageGuidanceScale = options.imageGuidanceScale;
    this.keepUnmasked = options.keepUnmasked;
    this.maskPadding = options.maskPadding;
    this.isMasked = options.mask !== undefined;
  }

  /** As a PNG says it. The picture itself is not in it. */
  get parameters(): Readonly<Record<string, string>> {
    const { mask, maskPadding } = this.#options;
    return {
      ...(this.strength !== undefined && { strength: String(this.strength) }),
      ...(this.strength === undefined && { imageGuidanceScale: String(this.imageGuidanceScale) }),
      ...(mask && { masked: "true" }),
      ...(this.keepUnmasked && { keepUnmasked: "true" }),
      ...(maskPadding !== undefined && { maskPadding: String(maskPadding) }),
    };
  }

  /** The picture as the encoder reads it, [3, H, W] in -1..1, and 1 where it is repainted, [H, W]. Throws `invalid-input`. */
  get drawn(): { readonly pixels: Float32Array; readonly mask: Float32Array | undefined } {
    return (this.#drawn ??= this.#draw());
  }

  #draw(): { readonly pixels: Float32Array; readonly mask: Float32Array | undefined } {
    const { image, mask, size, maskPadding } = this.#options;
    if (mask && maskPadding !== undefined) this.#region = cropRegion(toGrey(toRgb(mask)), size, maskPadding);
    const fit = (picture: PixelData): Bitmap => fitted(toRgb(picture), size, this.#region);
    return { pixels: toTensor(fit(image)), mask: mask && toMask(toGrey(fit(mask))) };
  }

  /** What is drawn (`size`) with the original over it, where that was asked for; of the original's size if only a part was drawn. */
  finish(drawn: Bitmap): Bitmap {
    const { image, mask, size, keepUnmasked } = this.#options;
    if (!mask || (!keepUnmasked && this.maskPadding === undefined)) return drawn;
    if (this.maskPadding === undefined) {
      const at = (picture: PixelData): Bitmap => resize(toRgb(picture), size.width, size.height);
      return overlay(toGrey(at(mask)), at(image), drawn);
    }
    const [left, top, right, bottom] = this.#region!;
    const placed = blank(image.width, image.height, 3);
    paste(placed, resizeAndCrop(drawn, { width: right - left, height: bottom - top }), left, top);
    return overlay(toGrey(toRgb(mask)), toRgb(image), placed);
  }
}

/** What of a picture's request is wrong for a model; undefined where it is none. Throws `invalid-input`. */
export function readEdit(
  request: GenerateRequest,
  { unetReads, isXl, requiresAestheticsScore, location }: EditedModel,
  size: Size,
): Edit | undefined {
  const { image, mask, keepUnmasked = false, maskPadding, imageGuidanceScale = DEFAULT_IMAGE_GUIDANCE } = request;
  const refuse = (name: string, got: unknown, expected: string): never => {
    throw invalidInput(`${name}: got ${String(got)}, expected ${expected}.`);
  };
  if (unetReads === "masked" && (!image || !mask))
    refuse(image ? "mask" : "image", "none", `one: ${location} repaints a part of a picture. Give image and mask`);
  if (unetReads === "edited" && !image) refuse("image", "none", `one: ${location} edits a picture as the prompt says`);
  if (requiresAestheticsScore && !image) refuse("image", "none", `one: ${location} refines a picture`);
  if (unetReads === "edited")
    for (const name of ["mask", "strength"] as const)
      if (request[name] !== undefined) refuse(name, "one", `none: ${location} edits whole pictures as the prompt says`);
  if (!image)
    for (const name of ["mask", "strength"] as const)
      if (request[name] !== undefined)
        refuse(name, "one without an image", "an image too. Give the picture to begin with");
  if (!mask && (keepUnmasked || maskPadding !== undefined))
    refuse(keepUnmasked ? "keepUnmasked" : "maskPadding", "one without a mask", "a mask too");
  if (maskPadding !== undefined && (!Number.isInteger(maskPadding) || maskPadding < 0 || maskPadding > 4096))
    refuse("maskPadding", maskPadding, "a whole number of pixels from 0 to 4096");
  if (!(imageGuidanceScale >= 0 && imageGuidanceScale < Infinity))
    refuse("imageGuidanceScale", imageGuidanceScale, "a number from 0 on");
  if (!image) return undefined;
  checkPixels("image", image);
  if (mask) checkPixels("mask", mask);
  if (mask && (mask.width !== image.width || mask.height !== image.height))
    refuse("mask", `${mask.width}x${mask.height} pixels`, `${image.width}x${image.height} as the picture`);
  const strength = unetReads === "edited" ? undefined : strengthOf(request, { isXl });
  return new Edit({ image, mask, size, strength, keepUnmasked, maskPadding, imageGuidanceScale });
}

export type EditedModel = Pick<ModelDescription, "unetReads" | "requiresAestheticsScore" | "location"> & {
  readonly isXl: boolean;
};

/** Those of diffusers' pipelines. */
export function strengthOf({ strength, mask }: GenerateRequest, { isXl }: Pick<EditedModel, "isXl">): number {
  return strength ?? (mask ? (isXl ? 0.9999 : 1) : isXl ? 0.3 : 0.8);
}
