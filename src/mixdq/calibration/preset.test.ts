import { expect, test } from "vitest";
import { SDXL_TURBO_UNET } from "../../model/known/sdxlTurbo.ts";
import { Config } from "../../base/config.ts";
import { buildUNet, readUNetConfig } from "../../diffusion/unet.ts";
import { createGenerator } from "../../diffusion/noise.ts";
import { activationQuant, dequantizeActivations, quantizeActivations } from "../../quant/activations.ts";
import { readMixdqConfig, writeMixdqConfig } from "../../quant/config.ts";
import type { Calibration } from "./file.ts";
import { quantizableLayers, type QuantizableLayer } from "./layers.ts";
import { activationSqnr, presetConfig, rangesOf } from "./preset.ts";
import { TensorStatistics, type LayerStatistics, type RangeStatistics } from "./statistics.ts";

const LAYERS = quantizableLayers(
  buildUNet(
    readUNetConfig(new Config("unet/config.json", SDXL_TURBO_UNET)),
    { batch: 1, height: 64, width: 64, tokens: 77 },
    "unet",
    "f32",
  ),
);

/** A range of -1..max with a mean square of 1: the wider, the worse for 8 bits. */
const range = (max: number): RangeStatistics => ({
  min: -1,
  max,
  movingMin: -0.9,
  movingMax: 0.9 * max,
  percentileMin: -0.5,
  percentileMax: 0.5 * max,
  meanSquare: 1,
  count: 100,
});

/** All layers alike, except for those named. */
function calibration(maxOf: (path: string) => number = () => 4): Calibration {
  const of = ({ path, hasSkip }: QuantizableLayer): LayerStatistics => ({
    act: range(maxOf(path)),
    ...(hasSkip && { act2: range(8) }),
  });
  const layers = new Map(LAYERS.map((layer) => [layer.path, of(layer)]));
  return { model: "sdxl-turbo", prompts: 8, bos: true, provenance: { seed: 0 }, layers };
}

/** The layers that MixDQ keeps in FP16 for SDXL-Turbo. */
const MIXDQ_PROTECTED = [
  "conv_in",
  "conv_out",
  "down_blocks.0.resnets.0.conv2",
  "up_blocks.2.resnets.2.conv_shortcut",
  ...[5, 6, 7, 8].map((i) => `down_blocks.2.attentions.1.transformer_blocks.${i}.ff.net.2`),
  "up_blocks.0.attentions.0.transformer_blocks.0.ff.net.2",
];

test("one layer in a hundred of each group stays in 16 bits: of SDXL as many as MixDQ keeps, the hardest ones", () => {
  const config = presetConfig(
    LAYERS,
    calibration((path) => (MIXDQ_PROTECTED.includes(path) ? 400 : 4)),
    { weightBits: 8, actBits: 8 },
  );
  const kept = LAYERS.map(({ path }) => path).filter((path) => !config.layers.has(path));
  expect(kept.sort()).toEqual(MIXDQ_PROTECTED.toSorted());
  expect(Object.keys(config.provenance["protected"] as object).sort()).toEqual(kept);
});

test("at least one layer of each group is protected, none where the share is 0", () => {
  const few = LAYERS.filter(({ path }) => path.startsWith("up_blocks.1.attentions.0"));
  const all = calibration((path) => (path.endsWith("attn2.to_q") ? 50 : path.endsWith("attn1.to_q") ? 60 : 4));
  const some = { ...all, layers: new Map(few.map(({ path }) => [path, all.layers.get(path)!])) };
  const config = presetConfig(few, some, { weightBits: 8, actBits: 8 });
  const kept = few.map(({ path }) => path).filter((path) => !config.layers.has(path));
  expect(kept.map((path) => path.split(".").slice(-2).join("."))).toEqual(["attn1.to_q", "attn2.to_q"]);
  expect(presetConfig(few, some, { weightBits: 8, actBits: 8, protect: 0 }).layers.size).toBe(few.length);
});

test("w8a8 is 8 bits throughout; w4a8 keeps the small influential layers at 8, within 1 % of the weights", () => {
  const w8a8 = presetConfig(LAYERS, calibration(), { weightBits: 8, actBits: 8 });
  expect(new Set([...w8a8.layers.values()].map(({ weightBits, actBits }) => `${weightBits} ${actBits}`))).toEqual(
    new Set(["8 8"]),
  );
  const w4a8 = presetConfig(LAYERS, calibration(), { weightBits: 4, actBits: 8, protect: 0 });
  const raised = LAYERS.filter(({ path }) => w4a8.layers.get(path)!.weightBits === 8);
  expect(raised).toHaveLength(23);
  for (const { path } of raised) expect(path).toMatch(/^conv_(in|out)$|embedding|time_emb_proj/);
  const weights = (layers: readonly QuantizableLayer[]): number =>
    layers.reduce((sum, layer) => sum + layer.weights, 0);
  expect(weights(raised) / weights(LAYERS)).toBeCloseTo(0.0097, 4);
  expect(w4a8.averageWeightBits).toBeCloseTo(4 + (4 * weights(raised)) / weights(LAYERS), 3);
  const fewer = presetConfig(LAYERS, calibration(), { weightBits: 4, actBits: 8, protect: 0, raise: 1e-4 });
  const kept = LAYERS.filter(({ path }) => fewer.layers.get(path)!.weightBits === 8);
  expect(kept.map(({ path }) => path)).toEqual(["conv_in", "conv_out"]);
});

test("scales and zero points are those of the asked-for range, shortcuts have two", () => {
  const of = (options: object) =>
    presetConfig(LAYERS, calibration(), { weightBits: 8, actBits: 8, protect: 0, ...options }).layers;
  const shortcut = "up_blocks.1.resnets.2.conv_shortcut";
  expect(of({}).get(shortcut)).toMatchObject({ act: activationQuant(-1, 4), act2: activationQuant(-1, 8) });
  expect(of({ range: "moving" }).get(shortcut)!.act2).toEqual(activationQuant(-0.9, 0.9 * 8));
  expect(of({ range: "percentile" }).get("conv_in")!.act).toEqual(activationQuant(-0.5, 2));
  const whole = of({ split: false }).get(shortcut)!;
  expect(whole.act).toEqual(activationQuant(-1, 8));
  expect(whole.act2).toBeUndefined();
  expect(rangesOf(calibration(), "moving", false).get(shortcut)).toEqual({ act: { min: -0.9, max: 7.2 } });
});

test("the configuration survives its file", () => {
  const config = presetConfig(LAYERS, calibration(), { weightBits: 4, actBits: 8 });
  expect(readMixdqConfig(JSON.parse(writeMixdqConfig(config)), "mixdq.json")).toEqual(config);
});

test("a calibration of other layers is refused with the layer's name", () => {
  const good = calibration();
  const without = (change: (layers: Map<string, LayerStatistics>) => unknown): (() => unknown) => {
    const layers = new Map(good.layers);
    change(layers);
    return () => presetConfig(LAYERS, { ...good, layers }, { weightBits: 8, actBits: 8 });
  };
  expect(without((layers) => layers.delete("conv_in"))).toThrow("conv_in: got no ranges, expected some");
  expect(without((layers) => layers.set("conv_mid", { act: range(1) }))).toThrow("conv_mid: got ranges, expected none");
  const shortcut = "up_blocks.1.resnets.2.conv_shortcut";
  expect(without((layers) => layers.set(shortcut, { act: range(1) }))).toThrow("got one range, expected two");
  expect(without((layers) => layers.set("conv_in", { act: range(1), act2: range(1) }))).toThrow("got two ranges");
});

test("ranges with and without the first token are not taken for each other", () => {
  const preset = (recorded: boolean, bos: boolean) => () =>
    presetConfig(LAYERS, { ...calibration(), bos: recorded }, { weightBits: 8, actBits: 8, bos });
  expect(preset(true, false)).toThrow("recorded without the text's first token");
  expect(preset(false, true)).toThrow("recorded with the text's first token");
  expect(preset(false, false)().bos).toBe(false);
});

test("the estimated noise is what quantizing really makes", () => {
  const noise = createGenerator(3);
  const summary = (values: Float32Array): RangeStatistics => {
    const statistics = new TensorStatistics();
    statistics.observe(values);
    statistics.endPrompt();
    return statistics.summary();
  };
  const measured = (...parts: readonly Float32Array[]): number => {
    let [signal, error] = [0, 0];
    for (const values of parts) {
      const { min, max } = summary(values);
      const quant = activationQuant(min, max);
      const back = dequantizeActivations(quantizeActivations(values, quant), quant);
      values.forEach((value, i) => {
        signal += value ** 2;
        error += (value - back[i]) ** 2;
      });
    }
    return 10 * Math.log10(signal / error);
  };
  const [wide, narrow] = [noise.randn(50_000), noise.randn(10_000).map((value) => 0.1 * value)];
  const tailed = noise.randn(50_000).map((value) => value ** 3);
  expect(activationSqnr({ act: summary(wide) })).toBeCloseTo(measured(wide), 1);
  expect(activationSqnr({ act: summary(wide), act2: summary(narrow) })).toBeCloseTo(measured(wide, narrow), 1);
  expect(activationSqnr({ act: summary(tailed) })).toBeLessThan(activationSqnr({ act: summary(wide) }) - 10);
  expect(activationSqnr({ act: summary(new Float32Array(8)) })).toBe(Infinity);
});
