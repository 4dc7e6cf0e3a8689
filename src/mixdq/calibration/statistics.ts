/**
 * The range of each layer's input over many prompts. Layers that read one tensor share one record of it, and every
 * tensor is looked at once. All state is plain numbers, so a recording can be put down in a file and taken up again
 * with the same result, bit for bit.
 */
import { MixdqError } from "../../base/errors.ts";
import type { Tensor } from "../../graph/ops.ts";
import { isObject } from "../../base/json.ts";
import type { QuantizableLayer } from "./layers.ts";

/** What is known of one tensor's values; the ranges are as seen, they need not contain 0. */
export interface RangeStatistics {
  readonly min: number;
  readonly max: number;
  /** Exponential moving averages of each prompt's least and greatest value, with MOMENTUM. */
  readonly movingMin: number;
  readonly movingMax: number;
  /** All but 1e-4 of the values are greater (less); up to one part in 64 from the true quantile, see `quantile`. */
  readonly percentileMin: number;
  readonly percentileMax: number;
  /** Mean of x^2. */
  readonly meanSquare: number;
  readonly count: number;
}

export interface LayerStatistics {
  readonly act: RangeStatistics;
  /** Of the skip half of a convolution over a concatenation; `act` is then the first half's. */
  readonly act2?: RangeStatistics;
}

/** MixDQ's running_stat. */
const MOMENTUM = 0.95;
/** The share of values beyond each percentile. */
const TAIL = 1e-4;

/**
 * Histogram bins are cut by sign, exponent and the six leading bits of the mantissa, so that each is at most 1/64 of
 * its values wide. Magnitudes below 2^-30 count as 0 and from 2^31 on as 2^31.
 */
const MANTISSA_BITS = 6;
const LEAST_EXPONENT = -30;
const EXPONENTS = 61;
const BINS_PER_SIGN = EXPONENTS << MANTISSA_BITS;
const SHIFT = 23 - MANTISSA_BITS;
const FIRST_BIN = (127 + LEAST_EXPONENT) << MANTISSA_BITS;

/** A recording of one tensor as JSON. `bins`: index, count, index, count, ... of those that are not empty. */
export interface TensorState {
  readonly min: number;
  readonly max: number;
  readonly movingMin: number;
  readonly movingMax: number;
  readonly squares: number;
  readonly count: number;
  readonly bins: readonly number[];
}

/** Values of one tensor, prompt by prompt. */
export class TensorStatistics {
  #min = Infinity;
  #max = -Infinity;
  #movingMin = 0;
  #movingMax = 0;
  #promptMin = Infinity;
  #promptMax = -Infinity;
  #squares = 0;
  #count = 0;
  /** Counts beyond 2^32 happen: a thousand prompts of five million values. */
  readonly #bins = new Float64Array(2 * BINS_PER_SIGN);

  /** Adds values of the current prompt. Returns false, with nothing added, where one is NaN or infinite. */
  observe(values: Float32Array): boolean {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
    let [min, max, squares] = [Infinity, -Infinity, 0];
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (value < min) min = value;
      if (value > max) max = value;
      squares += value * value;
    }
    if (!Number.isFinite(squares)) return false;
    // First by the leading bits as they are, which is three times as fast as finding the bin of each value.
    const counts = new Uint32Array(2 ** (32 - SHIFT));
    for (let i = 0; i < bits.length; i++) counts[bits[i] >>> SHIFT]++;
    const perSign = counts.length / 2;
    counts.forEach((count, leading) => {
      if (count === 0) return;
      const bin = Math.min(Math.max((leading % perSign) - FIRST_BIN, 0), BINS_PER_SIGN - 1);
      this.#bins[leading < perSign ? bin : bin + BINS_PER_SIGN] += count;
    });
    this.#promptMin = Math.min(this.#promptMin, min);
    this.#promptMax = Math.max(this.#promptMax, max);
    this.#squares += squares;
    this.#count += values.length;
    return true;
  }

  /** The current prompt is over; throws where it brought no values. */
  endPrompt(): void {
    if (this.#promptMin > this.#promptMax) throw new Error("a prompt without values");
    // -0 does not survive JSON.
    const [min, max] = [this.#promptMin + 0, this.#promptMax + 0];
    const isFirst = this.#min > this.#max;
    this.#movingMin = isFirst ? min : MOMENTUM * this.#movingMin + (1 - MOMENTUM) * min;
    this.#movingMax = isFirst ? max : MOMENTUM * this.#movingMax + (1 - MOMENTUM) * max;
    this.#min = Math.min(this.#min, min);
    this.#max = Math.max(this.#max, max);
    [this.#promptMin, this.#promptMax] = [Infinity, -Infinity];
  }

  /** Of all prompts that have ended; there must be one. */
  summary(): RangeStatistics {
    return {
      min: this.#min,
      max: this.#max,
      movingMin: this.#movingMin,
      movingMax: this.#movingMax,
      percentileMin: this.#quantile(TAIL),
      percentileMax: this.#quantile(1 - TAIL),
      meanSquare: this.#squares / this.#count,
      count: this.#count,
    };
  }

  /** The value that a share `p` of all values lie below: linear within its bin, so at most one bin's width off. */
  #quantile(p: number): number {
    const rank = p * this.#count;
    let below = 0;
    for (let i = 0; i < 2 * BINS_PER_SIGN; i++) {
      const isNegative = i < BINS_PER_SIGN;
      const bin = isNegative ? BINS_PER_SIGN - 1 - i : i - BINS_PER_SIGN;
      const count = this.#bins[isNegative ? bin + BINS_PER_SIGN : bin];
      if (count === 0 || below + count < rank) {
        below += count;
        continue;
      }
      const share = (rank - below) / count;
      const [inner, outer] = [edge(bin), edge(bin + 1)];
      const value = isNegative ? -outer + share * (outer - inner) : inner + share * (outer - inner);
      return Math.min(this.#max, Math.max(this.#min, value));
    }
    return this.#max;
  }

  /** Between prompts only. */
  state(): TensorState {
    const bins: number[] = [];
    this.#bins.forEach((count, bin) => {
      if (count > 0) bins.push(bin, count);
    });
    return {
      min: this.#min,
      max: this.#max,
      movingMin: this.#movingMin,
      movingMax: this.#movingMax,
      squares: this.#squares,
      count: this.#count,
      bins,
    };
  }

  /** Takes up where `state` was taken; false where it is not such a state. */
  restore(state: TensorState): boolean {
    const { min, max, movingMin, movingMax, squares, count, bins } = state;
    if (![min, max, movingMin, movingMax, squares, count].every(Number.isFinite)) return false;
    if (!Array.isArray(bins) || bins.length % 2 !== 0 || bins.length > 4 * BINS_PER_SIGN) return false;
    let total = 0;
    for (let i = 0; i < bins.length; i += 2) {
      const [bin, counted] = [bins[i] as unknown, bins[i + 1] as unknown];
      if (!Number.isInteger(bin) || !Number.isSafeInteger(counted) || (counted as number) <= 0) return false;
      if ((bin as number) < 0 || (bin as number) >= 2 * BINS_PER_SIGN) return false;
      this.#bins[bin as number] = counted as number;
      total += counted as number;
    }
    if (total !== count || min > max) return false;
    [this.#min, this.#max, this.#movingMin, this.#movingMax] = [min, max, movingMin, movingMax];
    [this.#squares, this.#count] = [squares, count];
    return true;
  }
}

/** The lower edge of a bin's magnitudes. */
function edge(bin: number): number {
  if (bin === 0) return 0;
  const perExponent = 1 << MANTISSA_BITS;
  return 2 ** (LEAST_EXPONENT + Math.floor(bin / perExponent)) * (1 + (bin % perExponent) / perExponent);
}

/** One tensor as some layers read it. */
interface Site {
  /** The first layer that reads it (with ` skip` for a second half): its name in a saved recording. */
  readonly key: string;
  readonly tensor: Tensor;
  /** Without the first token of every image. */
  readonly skipsFirst: boolean;
  readonly statistics: TensorStatistics;
  seen: number;
}

export type RecordingState = Readonly<Record<string, TensorState>>;

/**
 * Records all layers' inputs. Tell it of every tensor that it wants, `endPrompt` after each prompt, and ask for
 * `layers` at the end.
 */
export class Recording {
  readonly #sites: Site[] = [];
  readonly #byTensor = new Map<number, Site[]>();
  readonly #readers: { readonly path: string; readonly act: Site; readonly act2: Site | undefined }[] = [];

  /** `bos`: the text's first token is left out of the ranges of keys and values, which take it from a cache. */
  constructor(layers: readonly QuantizableLayer[], { bos }: { bos: boolean }) {
    for (const { path, input, skip, isCrossKV } of layers)
      this.#readers.push({
        path,
        act: this.#site(path, input, bos && isCrossKV),
        act2: skip && this.#site(`${path} skip`, skip, false),
      });
  }

  #site(key: string, tensor: Tensor, skipsFirst: boolean): Site {
    const sites = this.#byTensor.get(tensor.id) ?? [];
    let site = sites.find((known) => known.skipsFirst === skipsFirst);
    if (!site) {
      site = { key, tensor, skipsFirst, statistics: new TensorStatistics(), seen: 0 };
      this.#sites.push(site);
      this.#byTensor.set(tensor.id, [...sites, site]);
    }
    return site;
  }

  wants(tensor: Tensor): boolean {
    return this.#byTensor.has(tensor.id);
  }

  /** How many tensors it wants of each run of the graph, the graph's inputs among them. */
  get tensors(): number {
    return this.#byTensor.size;
  }

  /** Values [batch, height, width, channels] of a tensor that it wants. Throws `invalid-output` for NaN and infinity. */
  observe(tensor: Tensor, values: Float32Array): void {
    for (const site of this.#byTensor.get(tensor.id) ?? []) {
      for (const part of site.skipsFirst ? withoutFirstTokens(values, tensor) : [values])
        if (!site.statistics.observe(part))
          throw new MixdqError(
            "invalid-output",
            `${site.key}: its input (${tensor.name}) holds NaN or infinity, expected finite numbers. Calibrate with ` +
              "--precision fp32; if that is how it was, the weights are damaged: download them again.",
          );
      site.seen++;
    }
  }

  /** Throws where a tensor was not seen: a layer without a range would be found out much later. */
  endPrompt(): void {
    for (const site of this.#sites) {
      if (site.seen === 0) throw new Error(`${site.key}: its input (${site.tensor.name}) was not recorded`);
      site.statistics.endPrompt();
      site.seen = 0;
    }
  }

  /** By module path, in the layers' order. */
  layers(): Map<string, LayerStatistics> {
    const summaries = new Map(this.#sites.map((site) => [site, site.statistics.summary()]));
    return new Map(
      this.#readers.map(({ path, act, act2 }) => [
        path,
        { act: summaries.get(act)!, ...(act2 && { act2: summaries.get(act2)! }) },
      ]),
    );
  }

  state(): RecordingState {
    return Object.fromEntries(this.#sites.map(({ key, statistics }) => [key, statistics.state()]));
  }

  /** Into a recording that is still empty; false where the state is not one of these layers. */
  restore(state: RecordingState): boolean {
    if (Object.keys(state).length !== this.#sites.length) return false;
    return this.#sites.every(
      ({ key, statistics }) => Object.hasOwn(state, key) && isObject(state[key]) && statistics.restore(state[key]),
    );
  }
}

/** [batch, height, width, channels] -> tokens 1.. of every image. */
function withoutFirstTokens(values: Float32Array, { shape: [batch, , , channels] }: Tensor): Float32Array[] {
  const image = values.length / batch;
  return Array.from({ length: batch }, (_, b) => values.subarray(b * image + channels, (b + 1) * image));
}
