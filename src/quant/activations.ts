/**
 * 8-bit (or 4-bit) activations: one scale and one zero point per tensor, from a calibrated range.
 * q = clamp(round(x / scale) + zeroPoint, 0, 2^bits - 1), stored signed as q - 128 whatever the bits.
 * Source: MixDQ (arXiv 2405.17873) section 3; rounding as PyTorch in float32.
 */
import { MixdqError } from "../base/errors.ts";
import { roundHalfEven, scaleOfRange } from "./rounding.ts";

/** What a tensor's integers mean: x ~ scale * (code - zeroPoint), with the unsigned code. */
export interface ActivationQuant {
  /** f32, > 0. */
  readonly scale: number;
  /** An integer of 0 .. 2^bits - 1. */
  readonly zeroPoint: number;
}

/** Unsigned codes are stored less this, so that 0..255 fit a signed byte. */
export const CODE_OFFSET = 128;

/**
 * The scale and zero point of values between `min` and `max`; the range is widened to contain 0, which so has a code of
 * its own. Throws `invalid-input` where the range is not one; `where` is the layer, for messages.
 */
export function activationQuant(min: number, max: number, bits = 8, where = "activations"): ActivationQuant {
  if (!Number.isFinite(min) || !Number.isFinite(max) || min > max) {
    const advice = "Calibrate again, and look for NaN in the model's activations.";
    throw new MixdqError("invalid-input", `${where}: got the range ${min} to ${max}, expected min <= max. ${advice}`);
  }
  const low = Math.fround(Math.min(min, 0));
  const scale = scaleOfRange(low, Math.fround(Math.max(max, 0)), 2 ** bits - 1);
  return { scale, zeroPoint: roundHalfEven(Math.fround(-low / scale)) };
}

/** Stored codes (unsigned code - 128) of `values`; what lies outside the range is clamped. */
export function quantizeActivations(
  values: Float32Array,
  { scale, zeroPoint }: ActivationQuant,
  bits = 8,
): Int8Array<ArrayBuffer> {
  const top = 2 ** bits - 1;
  const codes = new Int8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const code = roundHalfEven(Math.fround(values[i] / scale)) + zeroPoint;
    codes[i] = Math.min(Math.max(code, 0), top) - CODE_OFFSET;
  }
  return codes;
}

/** What stored codes stand for, in f32. */
export function dequantizeActivations(
  codes: Int8Array,
  { scale, zeroPoint }: ActivationQuant,
): Float32Array<ArrayBuffer> {
  const stored = zeroPoint - CODE_OFFSET;
  return Float32Array.from(codes, (code) => scale * (code - stored));
}
