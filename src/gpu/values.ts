/** A tensor's values as GPU memory holds them: in its storage type, float channels and codes padded to whole quads. */
import { elementCount, type Tensor } from "../graph/ops.ts";
import { pixels, quads } from "../kernels/kernel.ts";
import { fromHalf, toHalf } from "../quant/half.ts";

/** Channels-last values -> what memory holds. An i8 tensor's values are its codes. */
export function encodeValues(
  values: Float32Array | Uint32Array,
  tensor: Tensor,
): Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Int8Array<ArrayBuffer> {
  const { dtype, shape } = tensor;
  if (dtype === "u32") return Uint32Array.from(values);
  const padded = withChannels(values as Float32Array<ArrayBuffer>, pixels(tensor), shape[3], quads(shape[3]) * 4);
  if (dtype === "i8") return Int8Array.from(padded);
  return dtype === "f16" ? toHalf(padded) : padded;
}

/** The inverse; as numbers, whatever the storage type. */
export function decodeValues(bytes: ArrayBuffer, tensor: Tensor): Float32Array<ArrayBuffer> {
  const { dtype, shape } = tensor;
  if (dtype === "u32") return Float32Array.from(new Uint32Array(bytes, 0, elementCount(shape)));
  const padded =
    dtype === "f16"
      ? fromHalf(new Uint16Array(bytes))
      : dtype === "i8"
        ? Float32Array.from(new Int8Array(bytes))
        : new Float32Array(bytes);
  return withChannels(padded, pixels(tensor), quads(shape[3]) * 4, shape[3]);
}

/** The first `count` pixels of `from` channels, with `to` channels each: cut off, or filled up with zeros. */
function withChannels(
  values: Float32Array<ArrayBuffer>,
  count: number,
  from: number,
  to: number,
): Float32Array<ArrayBuffer> {
  if (from === to) return values.subarray(0, count * to);
  const out = new Float32Array(count * to);
  for (let pixel = 0; pixel < count; pixel++)
    out.set(values.subarray(pixel * from, pixel * from + Math.min(from, to)), pixel * to);
  return out;
}
