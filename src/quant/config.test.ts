import { expect, test } from "vitest";
import { attachRanges, averageWeightBits, readMixdqConfig, writeMixdqConfig, type LayerBits } from "./config.ts";

const LAYER = { weightBits: 4, actBits: 8, act: { scale: 0.5, zeroPoint: 12 } };
const SPLIT = { ...LAYER, weightBits: 8, act2: { scale: 0.25, zeroPoint: 255 } };
const file = (layers: unknown = { conv1: LAYER }, more: object = {}): unknown => ({
  format: "mixdq-config",
  version: 1,
  model: "postcard",
  weights: { symmetric: true, range: "minmax", group: null },
  layers,
  bos: true,
  averageWeightBits: 4.5,
  provenance: { tool: "mixdq" },
  ...more,
});

test("a file of the format reads as it is written, and is written as it reads", () => {
  const layers = {
    conv1: LAYER,
    "up_blocks.0.resnets.0.conv_shortcut": SPLIT,
    "mid_block.attentions.0.proj_in": { weightBits: 2, actBits: 16 },
    "ff.net.0.proj": { weightBits: 3, actBits: 4, act: { scale: 0.125, zeroPoint: 15 } },
    conv_out: { weightBits: 16, actBits: 16 },
  };
  const config = readMixdqConfig(file(layers), "mixdq.json");
  expect(Object.fromEntries(config.layers)).toEqual(layers);
  expect({ ...config, layers: undefined }).toEqual({
    model: "postcard",
    weights: { symmetric: true, range: "minmax", group: null },
    layers: undefined,
    bos: true,
    averageWeightBits: 4.5,
    provenance: { tool: "mixdq" },
  });
  const text = writeMixdqConfig(config);
  expect(JSON.parse(text)).toEqual(file(layers));
  expect(readMixdqConfig(JSON.parse(text), "again")).toEqual(config);
  expect(text.split("\n").filter((line) => line.includes("weightBits"))).toHaveLength(5);
});

test("what may be missing has its meaning", () => {
  const weights = { symmetric: false, range: "mse" };
  const config = readMixdqConfig({ format: "mixdq-config", version: 1, weights, layers: {} }, "mixdq.json");
  expect(config).toEqual({
    ...{ model: "", bos: true, averageWeightBits: undefined, provenance: {} },
    ...{ weights: { symmetric: false, range: "mse", group: null }, layers: new Map() },
  });
  expect(readMixdqConfig(JSON.parse(writeMixdqConfig(config)), "again")).toEqual(config);
  const nulls = { model: null, bos: null, averageWeightBits: null, provenance: null };
  expect(readMixdqConfig(file({}, { ...nulls, weights: { ...weights, group: null } }), "mixdq.json")).toEqual(config);
  const noActs = readMixdqConfig(file({ a: { weightBits: 4, actBits: 16, act: null, act2: null } }), "mixdq.json");
  expect(noActs.layers.get("a")).toEqual({ weightBits: 4, actBits: 16 });
});

test("scales become the f32 that kernels multiply with", () => {
  const act = { scale: 0.1, zeroPoint: 0 };
  const config = readMixdqConfig(file({ conv1: { ...LAYER, act } }), "mixdq.json");
  expect(config.layers.get("conv1")!.act!.scale).toBe(Math.fround(0.1));
});

test("a layer may be called anything", () => {
  const layers = JSON.parse(
    '{"__proto__": {"weightBits": 4, "actBits": 16}, "constructor": {"weightBits": 2, "actBits": 16}}',
  );
  const config = readMixdqConfig(file(layers), "mixdq.json");
  expect([...config.layers.keys()]).toEqual(["__proto__", "constructor"]);
  expect(JSON.parse(writeMixdqConfig(config)).layers).toEqual(layers);
});

test("what is wrong is refused with its place", () => {
  const layer = (change: object): unknown => file({ "mid.conv1": { ...LAYER, ...change } });
  const cases: [unknown, RegExp][] = [
    [[], /^mixdq.json: got \[\], expected a JSON object/],
    [null, /^mixdq.json: got null/],
    [
      file({}, { format: "mixdq-sensitivity" }),
      /^mixdq.json: got "format" "mixdq-sensitivity", expected "mixdq-config"/,
    ],
    [file({}, { version: 2 }), /^mixdq.json: got "version" 2, expected 1/],
    [file({}, { bos: "yes" }), /"bos" "yes"/],
    [file({}, { model: 7 }), /"model" 7/],
    [file({}, { averageWeightBits: -1 }), /"averageWeightBits" -1/],
    [file({}, { provenance: "me" }), /^mixdq.json: got "provenance" "me"/],
    [file([]), /^mixdq.json: got "layers" \[\]/],
    [file({}, { weights: undefined }), /^mixdq.json: got "weights" nothing/],
    [file({}, { weights: { symmetric: 1, range: "mse" } }), /^mixdq.json: weights: got "symmetric" 1/],
    [file({}, { weights: { symmetric: true, range: "max" } }), /got "range" "max", expected "minmax" or "mse"/],
    [file({}, { weights: { symmetric: true, range: "mse", group: 32 } }), /got "group" 32, expected null or 64/],
    [file({}, { weights: { symmetric: true, range: "mse", clip: 1 } }), /got the key "clip"/],
    [file({ "mid.conv1": 4 }), /^mixdq.json: got "mid.conv1" 4, expected a JSON object/],
    [file({ "": LAYER }), /^mixdq.json: got the layer "", expected a module path/],
    [file({ ["a".repeat(1025)]: LAYER }), /got the layer "a{79}…, expected/],
    [file({ "a\n\u001b[2J": LAYER }), /^mixdq.json: got the layer "a\\n\\u001b\[2J", expected/],
    [layer({ weightbits: 4 }), /^mixdq.json: mid.conv1: got the key "weightbits", expected only weightBits, /],
    [layer({ weightBits: 5 }), /^mixdq.json: mid.conv1: got "weightBits" 5, expected 2, 3, 4, 8 or 16/],
    [layer({ weightBits: "4" }), /^mixdq.json: mid.conv1: got "weightBits" "4"/],
    [layer({ actBits: 2 }), /^mixdq.json: mid.conv1: got "actBits" 2, expected 4, 8 or 16/],
    [layer({ weightBits: 16 }), /^mixdq.json: mid.conv1: got "actBits" 8 with "weightBits" 16/],
    [layer({ act: undefined }), /^mixdq.json: mid.conv1: got no "act", expected the scale and zeroPoint/],
    [layer({ actBits: 16, act: undefined, act2: LAYER.act }), /^mixdq.json: mid.conv1: got no "act"/],
    [layer({ act: { scale: 0, zeroPoint: 1 } }), /^mixdq.json: mid.conv1: act: got "scale" 0, expected a positive/],
    [layer({ act: { scale: 1e-60, zeroPoint: 1 } }), /act: got "scale" 1e-60/],
    [layer({ act: { scale: 1e60, zeroPoint: 1 } }), /act: got "scale" 1e\+60/],
    [layer({ act: { scale: "1", zeroPoint: 1 } }), /act: got "scale" "1"/],
    [layer({ act: { zeroPoint: 1 } }), /act: got "scale" nothing/],
    [layer({ act: { scale: 1, zeroPoint: 256 } }), /act: got "zeroPoint" 256, expected a whole number from 0 to 255/],
    [layer({ act: { scale: 1, zeroPoint: -1 } }), /act: got "zeroPoint" -1/],
    [layer({ act: { scale: 1, zeroPoint: 0.5 } }), /act: got "zeroPoint" 0.5/],
    [layer({ actBits: 4, act: { scale: 1, zeroPoint: 16 } }), /"zeroPoint" 16, expected a whole number from 0 to 15/],
    [layer({ act2: { scale: 1, zeroPoint: 300 } }), /^mixdq.json: mid.conv1: act2: got "zeroPoint" 300/],
  ];
  for (const [json, message] of cases)
    expect(() => readMixdqConfig(json, "mixdq.json")).toThrow(
      expect.objectContaining({ code: "invalid-input", message: expect.stringMatching(message) }),
    );
});

test("messages stay one line, whatever the file holds", () => {
  const long = { weightBits: "x".repeat(10_000), actBits: 8 };
  const refused = () => readMixdqConfig(file({ conv1: long }), "mixdq.json");
  expect(refused).toThrow(expect.objectContaining({ message: expect.stringMatching(/^.{1,300}$/) }));
});

test("a file of too many layers is refused", () => {
  const layers = Object.fromEntries(Array.from({ length: 100_001 }, (_, i) => [`layer${i}`, 4]));
  expect(() => readMixdqConfig(file(layers), "mixdq.json")).toThrow(/got 100001 layers, expected at most 100000/);
});

test("average bits are weighted by the number of weights", () => {
  const layers = { a: LAYER, b: { ...LAYER, weightBits: 8 }, c: { weightBits: 16, actBits: 16 } };
  const config = readMixdqConfig(file(layers), "mixdq.json");
  const counts = new Map(Object.entries({ a: 300, b: 100, c: 50, unlisted: 50 }));
  expect(averageWeightBits(config, counts)).toEqual({ quantized: 5, all: (1200 + 800 + 1600) / 500 });
  expect(averageWeightBits({ layers: new Map() }, counts)).toEqual({ quantized: 16, all: 16 });
  expect(() => averageWeightBits(config, new Map([["a", 1]]))).toThrow(/^b: got a layer that the model does not have/);
});

test("ranges become scales, and a layer without one is named", () => {
  const bits = (weightBits: 4 | 8, actBits: 4 | 8 | 16): LayerBits => ({ weightBits, actBits });
  const ranges = new Map([
    ["a", { act: { min: -1, max: 1.55 } }],
    ["shortcut", { act: { min: 0, max: 255 }, act2: { min: -255, max: 0 } }],
    ["low", { act: { min: -15, max: 15 } }],
  ]);
  const layers = new Map([
    ["a", bits(4, 8)],
    ["shortcut", bits(8, 8)],
    ["low", bits(4, 4)],
    ["weightOnly", bits(4, 16)],
  ]);
  expect(Object.fromEntries(attachRanges(layers, ranges))).toEqual({
    a: { weightBits: 4, actBits: 8, act: { scale: Math.fround(0.01), zeroPoint: 100 } },
    shortcut: { weightBits: 8, actBits: 8, act: { scale: 1, zeroPoint: 0 }, act2: { scale: 1, zeroPoint: 255 } },
    low: { weightBits: 4, actBits: 4, act: { scale: 2, zeroPoint: 8 } },
    weightOnly: { weightBits: 4, actBits: 16 },
  });
  const missing = () => attachRanges(new Map([["conv_in", bits(8, 8)]]), ranges);
  expect(missing).toThrow(/^conv_in: got no calibrated range/);
  const broken = () => attachRanges(layers, new Map([["a", { act: { min: 1, max: Number.NaN } }]]));
  expect(broken).toThrow(/^a: got the range 1 to NaN/);
});
