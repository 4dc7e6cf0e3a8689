/** IEEE 754 binary16 in plain JavaScript: Node 20 and older browsers have no Float16Array. */

/** f32 -> f16 bits, rounded to nearest, ties to even; beyond 65,504 becomes infinity. */
export function toHalf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const out = new Uint16Array(values.length);
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    const magnitude = word & 0x7fff_ffff;
    const sign = (word >>> 16) & 0x8000;
    if (magnitude >= 0x4780_0000) out[i] = sign | (magnitude > 0x7f80_0000 ? 0x7e00 : 0x7c00);
    // Below 2^-14 halves are multiples of 2^-24: rounding to them is an exact scaling and one rounding of the fraction.
    else if (magnitude < 0x3880_0000) out[i] = sign | roundEven(Math.abs(values[i]!) * 2 ** 24);
    else out[i] = sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - (112 << 23)) >>> 13);
  }
  return out;
}

let table: Float32Array | undefined;

/** f16 bits -> f32, exactly. */
export function fromHalf(halves: Uint16Array): Float32Array<ArrayBuffer> {
  table ??= Float32Array.from({ length: 0x1_0000 }, (_, half) => {
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    const magnitude =
      exponent === 0
        ? fraction * 2 ** -24
        : exponent === 0x1f
          ? fraction === 0
            ? Infinity
            : NaN
          : (1 + fraction / 1024) * 2 ** (exponent - 15);
    return half & 0x8000 ? -magnitude : magnitude;
  });
  const out = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) out[i] = table[halves[i]!]!;
  return out;
}

function roundEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down;
}
