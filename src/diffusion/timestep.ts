/**
 * Sinusoidal embeddings of the timestep (and of SDXL's sizes and LCM's guidance scale), [n, dim], float32. They are
 * computed on the CPU because WGSL promises accurate sin and cos only within [-pi, pi] while arguments here reach 1000,
 * and because there are only a few hundred of them. Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
 */

const f32 = Math.fround;
const MAX_PERIOD = 10000;

export interface TimestepEmbeddingOptions {
  /** Cosines before sines (flip_sin_to_cos in the UNet's config). Default false, as diffusers' function. */
  readonly flipSinToCos?: boolean;
  /** downscale_freq_shift: the last frequency is 1 / maxPeriod when 1, and just short of it when 0. Default 1. */
  readonly freqShift?: number;
  /** Multiplies the arguments. Default 1. */
  readonly scale?: number;
  /** Default 10000. */
  readonly maxPeriod?: number;
}

/**
 * timesteps [n] (may be fractional) to [n, dim], row by row; the last column is 0 where dim is odd. As diffusers'
 * get_timestep_embedding, rounded to float32 where that is; up to 6e-5 apart at t = 1000, where one rounding of a
 * frequency moves the angle that far.
 */
export function timestepEmbedding(
  timesteps: ArrayLike<number>,
  dim: number,
  { flipSinToCos = false, freqShift = 1, scale = 1, maxPeriod = MAX_PERIOD }: TimestepEmbeddingOptions = {},
): Float32Array {
  const half = Math.floor(dim / 2);
  const logPeriod = f32(-Math.log(maxPeriod));
  const frequencies = Float32Array.from({ length: half }, (_, i) =>
    Math.exp(f32(f32(logPeriod * i) / f32(half - freqShift))),
  );
  const [sines, cosines] = flipSinToCos ? [half, 0] : [0, half];
  return embed(timesteps, dim, frequencies, scale, sines, cosines);
}

/**
 * The guidance scale as the UNet of a latent consistency model takes it (`timestep_cond`): [dim], sines first. `w` is
 * the guidance scale less one. As diffusers' get_guidance_scale_embedding in float32.
 */
export function guidanceScaleEmbedding(w: number, dim: number): Float32Array {
  const half = Math.floor(dim / 2);
  const decay = f32(-f32(f32(Math.log(MAX_PERIOD)) / (half - 1)));
  const frequencies = Float32Array.from({ length: half }, (_, i) => Math.exp(f32(i * decay)));
  return embed([f32(w * 1000)], dim, frequencies, 1, 0, half);
}

function embed(
  positions: ArrayLike<number>,
  dim: number,
  frequencies: Float32Array,
  scale: number,
  sines: number,
  cosines: number,
): Float32Array {
  const out = new Float32Array(positions.length * dim);
  for (let row = 0; row < positions.length; row++) {
    frequencies.forEach((frequency, i) => {
      const angle = f32(scale * f32(f32(positions[row]) * frequency));
      out[row * dim + sines + i] = Math.sin(angle);
      out[row * dim + cosines + i] = Math.cos(angle);
    });
  }
  return out;
}
