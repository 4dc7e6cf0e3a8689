/** The number formats of weights, and how a layer's configuration picks one. */

export type WeightBits = 2 | 3 | 4 | 8;

/** How a layer's weights become integers; bit-widths differ by layer, the rest is one choice for a whole model. */
export interface WeightQuant {
  readonly bits: WeightBits;
  readonly symmetric: boolean;
  /** minmax: from the least to the largest weight. mse: the clipped range with the least squared error. */
  readonly range: "minmax" | "mse";
  /** Input channels that share a scale; null: the whole output channel. */
  readonly group: null | 64;
}

/** What codes of one row or group stand for: w ~ scale * (code - zeroPoint). */
export interface CodeScale {
  /** f32, > 0. */
  readonly scale: number;
  /** f32. */
  readonly zeroPoint: number;
}

/** The least and the largest stored code: as integer dot products take them, 8 bits signed, fewer bits unsigned. */
export const codeRange = (bits: WeightBits): readonly [first: number, last: number] =>
  bits === 8 ? [-128, 127] : [0, 2 ** bits - 1];
