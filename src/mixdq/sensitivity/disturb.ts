/** What integers would make of a layer's weights or of its input, as floats: fake quantization. */
import type { Conv2dOp, LinearOp } from "../../graph/ops.ts";
import { configuredRounding, quantizationOf, quantizeLayer } from "../../kernels/quantized.ts";
import { dequantizeActivations, quantizeActivations, type ActivationQuant } from "../../quant/activations.ts";
import type { WeightQuant } from "../../quant/formats.ts";
import { dequantizeMatrix, heldRows } from "../../quant/matrix.ts";
import type { Site } from "./sites.ts";

/**
 * A layer's weights [rows, channels, taps] as their codes stand for them, rounded as the configuration says; the halves of
 * a concatenation have scales of their own. Throws as `quantizeMatrix`.
 */
export function disturbedWeights(values: Float32Array, { path, op, weight }: Site, quant: WeightQuant): Float32Array {
  const quantization = quantizationOf(quant, { ...inputOf(op), split: true });
  const layer = { path, weight, quantization, gated: false };
  return dequantizeMatrix(quantizeLayer(layer, heldRows(values, weight.shape[0]), configuredRounding(layer)));
}

function inputOf(op: LinearOp | Conv2dOp) {
  if (op.kind === "linear") return { x: op.x, taps: 1 };
  return { x: op.x, x2: op.x2, taps: op.kernel * op.kernel };
}

/**
 * Values [batch, tokens, channels] as their codes stand for them. `kept` is how many values at the beginning of every
 * image stay as they are: the channels of the text's first token, which a BOS cache serves.
 */
export function disturbedInput(
  values: Float32Array,
  quant: ActivationQuant,
  bits: number,
  { images = 1, kept = 0 }: { images?: number; kept?: number } = {},
): Float32Array {
  const out = dequantizeActivations(quantizeActivations(values, quant, bits), quant);
  const perImage = values.length / images;
  for (let image = 0; image < images; image++)
    out.set(values.subarray(image * perImage, image * perImage + kept), image * perImage);
  return out;
}

/**
 * The op's result of which only one layer's channels (and, with `keepsFirst`, not those of each image's first token) come
 * from the disturbed run: `before` and `after` are [batch, height, width, channels] of op.y.
 */
export function merged(before: Float32Array, after: Float32Array, site: Site, keepsFirst: boolean): Float32Array {
  const [batch, height, width, channels] = site.op.y.shape;
  const { firstColumn, columns } = site;
  const out = before.slice();
  for (let pixel = 0; pixel < batch * height * width; pixel++) {
    if (keepsFirst && pixel % (height * width) === 0) continue;
    const from = pixel * channels + firstColumn;
    out.set(after.subarray(from, from + columns), from);
  }
  return out;
}
