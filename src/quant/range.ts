/**
 * The clipped range with the least squared error. At 2 to 4 bits: a search over both ends on a histogram with running
 * sums, where a candidate costs one look-up per level however many weights there are; at 8 bits, whose steps are as fine
 * as a histogram's, on the weights themselves. Then alternating least squares: codes given the range, range given the
 * codes (Lloyd's algorithm with equal steps). Never worse than the range it is given to begin with.
 */
import { codeRange, type CodeScale } from "./formats.ts";
import type { MatrixFormat } from "./matrix.ts";
import { SMALLEST_SCALE } from "./rounding.ts";

const MOST_BINS = 512;
/** Enough for a group of 64 weights, where bins cost more than weights. */
const FEWEST_BINS = 128;
/** From one candidate for the ends of the range to the next, and how many there are: down to 6 % of the whole range. */
const SHRINK = 0.85;
const CANDIDATES = 18;
/** Moves of a single end that follow where the ends are independent. */
const MOVES = 24;
/** Of alternating least squares on the histogram, before one on the weights. */
const ROUNDS = 3;

/**
 * Finds ranges of one format. Codes are counted from 0 here. A range's gain is what it saves of the error of zeroing
 * everything: sum w^2 - error; the sum of squares itself is never needed.
 */
export class RangeSearch {
  /** What stored codes begin with. */
  readonly #first: number;
  /** The last code, counted from 0. */
  readonly #top: number;
  readonly #searchesWeights: boolean;
  /** Of symmetric formats, to choose from; undefined: fitted. */
  readonly #zeroPoints: readonly number[] | undefined;

  /** Count and sum of the weights below each bin's lower edge; the last entry in use is of all weights. */
  readonly #countBelow = new Float64Array(MOST_BINS + 1);
  readonly #sumBelow = new Float64Array(MOST_BINS + 1);
  #bins = MOST_BINS;
  #low = 0;
  #binsPerUnit = 0;
  #count = 0;
  #sum = 0;

  /** Of the codes given last: their sum, the sum of their squares, of their products with the weights. */
  #codes = 0;
  #squares = 0;
  #products = 0;
  /** The best range so far. */
  #gain = 0;
  #scale = 1;
  #zeroPoint = 0;

  constructor({ bits, symmetric }: Pick<MatrixFormat, "bits" | "symmetric">) {
    this.#first = codeRange(bits)[0];
    this.#top = 2 ** bits - 1;
    this.#searchesWeights = bits === 8;
    const zero = 2 ** (bits - 1);
    // One level more below zero than above it, the other way round, or as many of each and none at zero: on Gaussian
    // weights worth 1 dB at 2 bits and 0.2 at 4.
    if (symmetric) this.#zeroPoints = bits === 8 ? [zero] : [zero, zero - 0.5, zero - 1];
  }

  /** The range for values[from .. to), whose extremes are `min` < `max`; `plain` is the one to beat. */
  find(values: Float32Array, from: number, to: number, min: number, max: number, plain: CodeScale): CodeScale {
    this.#count = to - from;
    const low = Math.min(min, 0);
    const high = Math.max(max, 0);
    const plainZero = plain.zeroPoint - this.#first;
    this.#gain = -Infinity;
    this.#scale = plain.scale;
    this.#zeroPoint = plainZero;
    if (this.#searchesWeights) this.#searchWeights(values, from, to, plain.scale, plainZero);
    else {
      this.#fillHistogram(values, from, to, min, max);
      if (this.#zeroPoints === undefined) this.#searchBothEnds(low, high);
      else this.#searchOneEnd(Math.max(-low, high), this.#zeroPoints);
      this.#iterate();
    }
    this.#code(values, from, to, this.#scale, this.#zeroPoint);
    this.#gain = -Infinity;
    this.#fit(this.#zeroPoint);

    const scale = Math.max(Math.fround(this.#scale), SMALLEST_SCALE);
    const zeroPoint = Math.fround(this.#zeroPoint);
    this.#code(values, from, to, scale, zeroPoint);
    const gain = this.#gainOf(scale, zeroPoint);
    this.#code(values, from, to, plain.scale, plainZero);
    return gain > this.#gainOf(plain.scale, plainZero) ? { scale, zeroPoint: zeroPoint + this.#first } : plain;
  }

  #searchOneEnd(reach: number, zeroPoints: readonly number[]): void {
    for (const zeroPoint of zeroPoints)
      for (let i = 0, shrunk = reach; i < CANDIDATES; i++, shrunk *= SHRINK) {
        this.#lookUp(shrunk / (this.#top / 2), zeroPoint);
        this.#fit(zeroPoint);
      }
  }

  #searchBothEnds(low: number, high: number): void {
    let bestLow = low;
    let bestHigh = high;
    for (let i = 0, a = low, b = high; i < CANDIDATES; i++, a *= SHRINK, b *= SHRINK) {
      if (!this.#tryEnds(a, b)) continue;
      bestLow = a;
      bestHigh = b;
    }
    // Then each end by itself, further in or back out, until no move helps.
    let failures = 0;
    for (let move = 0; move < MOVES && failures < 4; move++) {
      const factor = move % 4 < 2 ? SHRINK : 1 / SHRINK;
      const a = move % 2 === 0 ? Math.max(bestLow * factor, low) : bestLow;
      const b = move % 2 === 1 ? Math.min(bestHigh * factor, high) : bestHigh;
      failures++;
      if (!this.#tryEnds(a, b)) continue;
      bestLow = a;
      bestHigh = b;
      failures = 0;
    }
  }

  #tryEnds(low: number, high: number): boolean {
    const scale = (high - low) / this.#top;
    this.#lookUp(scale, -low / scale);
    return this.#fit(-low / scale);
  }

  /** Eight bits lose little to clipping: narrower ranges, as long as they gain. */
  #searchWeights(values: Float32Array, from: number, to: number, scale: number, zeroPoint: number): void {
    let sum = 0;
    for (let i = from; i < to; i++) sum += values[i];
    this.#sum = sum;
    let failures = 0;
    for (let i = 0, shrunk = scale; i < CANDIDATES && failures < 2; i++, shrunk *= SHRINK) {
      this.#code(values, from, to, shrunk, zeroPoint);
      failures = this.#fit(zeroPoint) ? 0 : failures + 1;
    }
  }

  #iterate(): void {
    for (let round = 0; round < ROUNDS; round++) {
      this.#lookUp(this.#scale, this.#zeroPoint);
      if (!this.#fit(this.#zeroPoint)) return;
    }
  }

  /** Fits a range to the codes that `zeroPoint` (and a scale) gave; keeps it, and says so, if it is the best so far. */
  #fit(zeroPoint: number): boolean {
    if (this.#zeroPoints === undefined) zeroPoint = this.#fitZeroPoint(zeroPoint);
    const products = this.#products - zeroPoint * this.#sum;
    const scale = products / (this.#squares - 2 * zeroPoint * this.#codes + zeroPoint * zeroPoint * this.#count);
    const gain = this.#gainOf(scale, zeroPoint);
    // NaN where all codes are the zero point.
    if (!(scale > 0 && gain > this.#gain)) return false;
    this.#gain = gain;
    this.#scale = scale;
    this.#zeroPoint = zeroPoint;
    return true;
  }

  /** The zero point of the line through codes and weights; the given one where all codes are the same. */
  #fitZeroPoint(given: number): number {
    const mean = this.#sum / this.#count;
    const meanCode = this.#codes / this.#count;
    const slope = (this.#products - meanCode * this.#sum) / (this.#squares - meanCode * this.#codes);
    if (!(slope > 0)) return given;
    // Within the codes, as for every range that contains 0: the kernels' sums count on it.
    const zeroPoint = Math.min(Math.max(meanCode - mean / slope, 0), this.#top);
    return this.#searchesWeights ? Math.round(zeroPoint) : zeroPoint;
  }

  /** What scale * (code - zeroPoint) saves with the codes given last. */
  #gainOf(scale: number, zeroPoint: number): number {
    const products = this.#products - zeroPoint * this.#sum;
    const squares = this.#squares - 2 * zeroPoint * this.#codes + zeroPoint * zeroPoint * this.#count;
    return scale * (2 * products - scale * squares);
  }

  /** Gives the weights themselves their codes; integers all the way, which the engines do fastest. */
  #code(values: Float32Array, from: number, to: number, scale: number, zeroPoint: number): void {
    const top = this.#top;
    const inverse = 1 / scale;
    const offset = zeroPoint + 0.5;
    let codes = 0;
    let squares = 0;
    let products = 0;
    for (let i = from; i < to; i++) {
      const value = values[i];
      const nearest = (value * inverse + offset) | 0;
      const code = nearest < 0 ? 0 : nearest > top ? top : nearest;
      codes += code;
      squares += code * code;
      products += code * value;
    }
    this.#codes = codes;
    this.#squares = squares;
    this.#products = products;
  }

  /** Gives the histogram's bins their codes: threshold by threshold, what lies above it. */
  #lookUp(scale: number, zeroPoint: number): void {
    const countBelow = this.#countBelow;
    const sumBelow = this.#sumBelow;
    const bins = this.#bins;
    const count = this.#count;
    const sum = this.#sum;
    const top = this.#top;
    const step = scale * this.#binsPerUnit;
    // The bin edge nearest to the threshold between a code and the next.
    let edge = (scale * (0.5 - zeroPoint) - this.#low) * this.#binsPerUnit + 0.5;
    let codes = 0;
    let squares = 0;
    let products = 0;
    for (let code = 0; code < top; code++, edge += step) {
      const bin = edge <= 0 ? 0 : edge >= bins ? bins : edge | 0;
      const above = count - countBelow[bin];
      codes += above;
      squares += (2 * code + 1) * above;
      products += sum - sumBelow[bin];
    }
    this.#codes = codes;
    this.#squares = squares;
    this.#products = products;
  }

  #fillHistogram(values: Float32Array, from: number, to: number, min: number, max: number): void {
    const bins = to - from > 2 * FEWEST_BINS ? MOST_BINS : FEWEST_BINS;
    const countBelow = this.#countBelow.fill(0, 0, bins + 1);
    const sumBelow = this.#sumBelow.fill(0, 0, bins + 1);
    const binsPerUnit = bins / (max - min);
    for (let i = from; i < to; i++) {
      const value = values[i];
      const bin = ((value - min) * binsPerUnit) | 0;
      const above = bin < bins ? bin + 1 : bins;
      countBelow[above]++;
      sumBelow[above] += value;
    }
    let count = 0;
    let sum = 0;
    for (let bin = 1; bin <= bins; bin++) {
      countBelow[bin] = count += countBelow[bin];
      sumBelow[bin] = sum += sumBelow[bin];
    }
    this.#bins = bins;
    this.#low = min;
    this.#binsPerUnit = binsPerUnit;
    this.#sum = sum;
  }
}
