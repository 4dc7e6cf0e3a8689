/**
 * Seeded Gaussian noise, number for number what PyTorch's CPU generator draws, so that a seed means the same picture
 * here and in diffusers. Mersenne Twister: Matsumoto & Nishimura 1998; the draws: ATen/core/MT19937RNGEngine.h,
 * ATen/core/DistributionsHelper.h and ATen/native/cpu/DistributionTemplates.h (PyTorch 2.13).
 */
import { MixdqError } from "../base/errors.ts";
import { parseSeed, twisterSeed, type Seed } from "../base/seed.ts";

/** A stream of normal deviates; drawing advances it. */
export interface NoiseGenerator {
  /**
   * The next `count` values of N(0, 1), as `torch.randn(count, generator=g)` in float32. Up to 2e-6 from PyTorch,
   * whose vectorised log and cosine differ by that much between processors.
   */
  randn(count: number): Float32Array;
}

/** PyTorch draws fewer values than this one by one in double precision, and more in blocks of this size. */
const BLOCK = 16;
const TWO_PI = Math.fround(2 * Math.PI);

/**
 * The generator that `torch.Generator("cpu").manual_seed(seed)` makes; of the seed's 64 bits the twister
 * takes the low 32, as in PyTorch. Throws `invalid-input` for what is no seed.
 */
export function createGenerator(seed: Seed): NoiseGenerator {
  const random32 = createTwister(twisterSeed(parseSeed(seed)));
  // The second value of the last pair drawn by the scalar path. Block draws neither use nor clear it, as in PyTorch.
  let spare: number | undefined;

  const uniform24 = () => (random32() & 0xffffff) / 2 ** 24;
  const uniform53 = () => {
    const high = random32() & 0x1fffff;
    return (high * 2 ** 32 + random32()) / 2 ** 53;
  };

  function scalarNormal(): number {
    if (spare !== undefined) {
      const value = spare;
      spare = undefined;
      return value;
    }
    const theta = 2 * Math.PI * uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-uniform53()));
    spare = radius * Math.sin(theta);
    return radius * Math.cos(theta);
  }

  return {
    randn(count) {
      if (!Number.isSafeInteger(count) || count < 0) {
        throw new MixdqError("invalid-input", `randn: got a count of ${count}, expected a whole number of values.`);
      }
      const values = new Float32Array(count);
      if (count < BLOCK) {
        for (let i = 0; i < count; i++) values[i] = scalarNormal();
        return values;
      }
      for (let i = 0; i < count; i++) values[i] = uniform24();
      for (let i = 0; i + BLOCK <= count; i += BLOCK) transformBlock(values, i);
      if (count % BLOCK !== 0) {
        // PyTorch draws the last sixteen values afresh rather than finish a part of a block.
        for (let i = count - BLOCK; i < count; i++) values[i] = uniform24();
        transformBlock(values, count - BLOCK);
      }
      return values;
    },
  };
}

/** Sixteen uniform values to sixteen normal ones, in place (Box & Muller 1958), rounded to f32 where PyTorch rounds. */
function transformBlock(values: Float32Array, start: number): void {
  const half = BLOCK / 2;
  for (let i = start; i < start + half; i++) {
    const radius = Math.fround(Math.sqrt(Math.fround(-2 * Math.fround(Math.log(1 - values[i])))));
    const theta = Math.fround(TWO_PI * values[i + half]);
    values[i] = radius * Math.fround(Math.cos(theta));
    values[i + half] = radius * Math.fround(Math.sin(theta));
  }
}

/** mt19937: a function that returns the next 32-bit output, unsigned. */
function createTwister(seed: number): () => number {
  const SIZE = 624;
  const SHIFT = 397;
  const state = new Uint32Array(SIZE);
  state[0] = seed;
  for (let i = 1; i < SIZE; i++) {
    const previous = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(1812433253, previous) + i;
  }
  let next = SIZE;

  function twist(): void {
    for (let i = 0; i < SIZE; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    next = 0;
  }

  return () => {
    if (next === SIZE) twist();
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  };
}
