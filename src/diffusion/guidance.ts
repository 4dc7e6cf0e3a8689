/** Classifier-free guidance in float32, as diffusers' pipelines compute it. Ho & Salimans 2022, arXiv 2207.12598. */
import { combine, f32 } from "./float32.ts";

/** negative + scale (positive - negative). */
export function guide(negative: Float32Array, positive: Float32Array, scale: number): Float32Array {
  const difference = positive.map((value, i) => value - negative[i]);
  return combine([1, negative], [scale, difference]);
}

/**
 * InstructPix2Pix's two guidances (Brooks et al. 2023, arXiv 2211.09800, eq. 3) of the predictions with prompt and picture, with
 * the picture alone, and with neither.
 */
export function guideEdit(predictions: readonly Float32Array[], scale: number, imageScale: number): Float32Array {
  const [text, image, neither] = predictions as [Float32Array, Float32Array, Float32Array];
  const ofText = text.map((value, i) => value - image[i]);
  const ofImage = image.map((value, i) => value - neither[i]);
  return combine([1, neither], [scale, ofText], [imageScale, ofImage]);
}

/**
 * Brings a guided prediction's deviation towards that of the positive one, by the part `rescale` (0 .. 1): section 3.4 of Lin
 * et al. 2023, arXiv 2305.08891.
 */
export function rescaleGuidance(guided: Float32Array, positive: Float32Array, rescale: number): Float32Array {
  const ratio = f32(deviation(positive) / deviation(guided));
  const rescaled = guided.map((value) => value * ratio);
  return combine([rescale, rescaled], [1 - rescale, guided]);
}

/** torch.std: of a sample, with n - 1. */
function deviation(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return f32(Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1)));
}
