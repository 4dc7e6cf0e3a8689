/**
 * Configurations without a search: the same bits for every layer, except for the few that calibration shows to lose most.
 * What MixDQ (arXiv 2405.17873) does around its allocation: static ranges, BOS-aware keys and values, split shortcuts,
 * and about one layer in a hundred in 16-bit float.
 */
import { MixdqError } from "../../base/errors.ts";
import { activationQuant } from "../../quant/activations.ts";
import { attachRanges, averageWeightBits, type LayerBits, type MixdqConfig } from "../../quant/config.ts";
import type { WeightBits } from "../../quant/formats.ts";
import { rangeBy, type Calibration, type LayerRanges, type RangeRule } from "./file.ts";
import { LAYER_GROUPS, layerGroup, type QuantizableLayer } from "./layers.ts";
import type { LayerStatistics } from "./statistics.ts";

/** The bits of weights and activations of each preset. */
export const PRESETS = {
  w8a8: { weightBits: 8, actBits: 8 },
  w4a8: { weightBits: 4, actBits: 8 },
} as const satisfies Record<string, { weightBits: WeightBits; actBits: 8 }>;

export interface PresetOptions {
  readonly weightBits: WeightBits;
  readonly actBits: 8;
  /** Default: minmax. */
  readonly range?: RangeRule;
  /** The share of each group's layers that stays in 16-bit float, rounded up; 0 for none. Default: 0.01. */
  readonly protect?: number;
  /** The share of all weights that may stay at 8 bits where the rest has fewer. Default: 0.01. */
  readonly raise?: number;
  /** Default: asymmetric, least squared error, a scale per output channel. */
  readonly weights?: MixdqConfig["weights"];
  /** Must be how the calibration was recorded. Default: true. */
  readonly bos?: boolean;
  /** false: one range for both halves of a shortcut's input, to see what the split is good for. Default: true. */
  readonly split?: boolean;
}

/** Least squared error, a scale per output channel. */
export const DEFAULT_WEIGHTS: MixdqConfig["weights"] = { symmetric: false, range: "mse", group: null };

/**
 * A configuration for the layers of a model from its calibration. Left out, and so in 16-bit float, are per group
 * (content, quality) the layers of lowest `activationSqnr`. With fewer than 8 weight bits, `raisedLayers` keep 8.
 * Throws `invalid-input` where the calibration is of other layers, or was recorded with the other choice of `bos`.
 */
export function presetConfig(
  layers: readonly QuantizableLayer[],
  calibration: Calibration,
  options: PresetOptions,
): MixdqConfig {
  const { weightBits, actBits, range = "minmax", protect = 0.01, raise = 0.01, bos = true, split = true } = options;
  const { weights = DEFAULT_WEIGHTS } = options;
  checkCalibration(layers, calibration);
  if (bos !== calibration.bos)
    throw new MixdqError(
      "invalid-input",
      `calibration of ${calibration.model}: it was recorded ${calibration.bos ? "without" : "with"} the text's first ` +
        `token (bos ${calibration.bos}), the configuration asks for bos ${bos}, whose ranges it does not have. ` +
        `${bos ? "Calibrate without --no-bos" : "Calibrate with --no-bos too"}, or make the configuration for bos ${!bos}.`,
    );
  const protectedLayers = hardestLayers(layers, calibration, protect);
  const raised = weightBits < 8 ? raisedLayers(layers, raise) : new Set<string>();
  const bits = new Map<string, LayerBits>();
  for (const { path } of layers)
    if (!protectedLayers.has(path)) bits.set(path, { weightBits: raised.has(path) ? 8 : weightBits, actBits });
  const config = {
    model: calibration.model,
    weights,
    bos,
    layers: attachRanges(bits, rangesOf(calibration, range, split)),
    provenance: {
      made: "preset",
      calibration: { prompts: calibration.prompts, ...calibration.provenance },
      rangeActivations: range,
      split,
      protected: Object.fromEntries([...protectedLayers].map(([path, sqnr]) => [path, Number(sqnr.toFixed(2))])),
      raised: [...raised].filter((path) => !protectedLayers.has(path)),
    },
  };
  const counts = new Map(layers.map(({ path, weights: count }) => [path, count]));
  return { ...config, averageWeightBits: Number(averageWeightBits(config, counts).all.toFixed(4)) };
}

/**
 * A preset's bit-widths for every layer, where there is no calibration: scales are made up, so it is good for plans and for
 * kernels over random numbers, not for pictures.
 */
export function uniformConfig(layers: readonly QuantizableLayer[], preset: keyof typeof PRESETS): MixdqConfig {
  const { weightBits, actBits } = PRESETS[preset];
  const raised = weightBits < 8 ? raisedLayers(layers, 0.01) : new Set<string>();
  const bits = new Map(
    layers.map(({ path }): [string, LayerBits] => [path, { weightBits: raised.has(path) ? 8 : weightBits, actBits }]),
  );
  const range = { min: -1, max: 1 };
  const ranges = new Map(
    layers.map(({ path, hasSkip }) => [path, hasSkip ? { act: range, act2: range } : { act: range }]),
  );
  return {
    model: "",
    weights: DEFAULT_WEIGHTS,
    bos: true,
    layers: attachRanges(bits, ranges),
    averageWeightBits: undefined,
    provenance: { made: "uniform, without calibration" },
  };
}

/** Throws `invalid-input` unless every layer has its ranges and there are no others. */
export function checkCalibration(layers: readonly QuantizableLayer[], calibration: Calibration): void {
  const refuse = (path: string, got: string, expected: string): never => {
    const advice = "Calibrate the model that the configuration is for.";
    throw new MixdqError(
      "invalid-input",
      `calibration of ${calibration.model}: ${path}: ${got}, ${expected}. ${advice}`,
    );
  };
  for (const { path, hasSkip } of layers) {
    const found = calibration.layers.get(path);
    if (!found) refuse(path, "got no ranges", "expected some for every layer of the model");
    else if (hasSkip !== (found.act2 !== undefined))
      refuse(path, `got ${found.act2 ? "two ranges" : "one range"}`, `expected ${hasSkip ? "two" : "one"}`);
  }
  const known = new Set(layers.map(({ path }) => path));
  for (const path of calibration.layers.keys())
    if (!known.has(path)) refuse(path, "got ranges", "expected none: the model has no such layer");
}

/** The ranges by module path. Without `split`, one range that holds both halves of a shortcut's input. */
export function rangesOf({ layers }: Calibration, rule: RangeRule, split = true): LayerRanges {
  return new Map(
    Array.from(layers, ([path, { act, act2 }]) => {
      const [first, second] = [rangeBy(rule, act), act2 && rangeBy(rule, act2)];
      if (!second) return [path, { act: first }];
      if (split) return [path, { act: first, act2: second }];
      return [path, { act: { min: Math.min(first.min, second.min), max: Math.max(first.max, second.max) } }];
    }),
  );
}

/**
 * Signal to quantization noise of a layer's input at 8 bits over its whole range, in dB: mean x^2 over scale^2 / 12 (the
 * noise of rounding, which is uniform). Both halves of a split input count by their elements. Infinite for an input that
 * is always 0. Clipping is not in it, so it must not be used to compare range rules.
 */
export function activationSqnr({ act, act2 }: LayerStatistics): number {
  let [signal, noise] = [0, 0];
  for (const { min, max, meanSquare, count } of act2 ? [act, act2] : [act]) {
    signal += meanSquare * count;
    noise += (activationQuant(min, max).scale ** 2 / 12) * count;
  }
  return signal === 0 ? Infinity : 10 * Math.log10(signal / noise);
}

/** The share `protect` of each group's layers, rounded up, that 8-bit activations hurt most: path to dB, worst first. */
function hardestLayers(
  layers: readonly QuantizableLayer[],
  calibration: Calibration,
  protect: number,
): ReadonlyMap<string, number> {
  const hardest = LAYER_GROUPS.flatMap((group) => {
    const rated = layers
      .filter(({ path }) => layerGroup(path) === group)
      .map(({ path }): [string, number] => [path, activationSqnr(calibration.layers.get(path)!)]);
    rated.sort(([a, x], [b, y]) => x - y || (a < b ? -1 : 1));
    return rated.slice(0, Math.ceil(protect * rated.length));
  });
  return new Map(hardest.sort(([, x], [, y]) => x - y));
}

/** The ends of the network, and what conditions all of it. */
const INFLUENTIAL = /^conv_(in|out)$|^(time|add)_embedding\.|\.time_emb_proj$/;

/**
 * Layers whose weights stay at 8 bits because they are cheap and everything passes through them: conv_in, conv_out, the
 * time and text embeddings and their projections, smallest first as long as all of them together have at most the share
 * `raise` of the model's weights. In SDXL that is all 23 of them, 0.97 %.
 */
function raisedLayers(layers: readonly QuantizableLayer[], raise: number): ReadonlySet<string> {
  let left = raise * layers.reduce((sum, { weights }) => sum + weights, 0);
  const candidates = layers.filter(({ path }) => INFLUENTIAL.test(path)).sort((a, b) => a.weights - b.weights);
  const raised = new Set<string>();
  for (const { path, weights } of candidates) {
    left -= weights;
    if (left < 0) break;
    raised.add(path);
  }
  return raised;
}
