import { expect, test } from "vitest";
import { MixdqError } from "../../base/errors.ts";
import { readCalibration, readRanges, writeCalibration, type Calibration } from "./file.ts";

const RANGE = {
  min: -1.5,
  max: Math.fround(0.1),
  movingMin: -1.25,
  movingMax: 0,
  percentileMin: -1,
  percentileMax: 0.05,
  meanSquare: 0.3,
  count: 77,
};

const CALIBRATION: Calibration = {
  model: "small",
  prompts: 3,
  bos: true,
  provenance: { seed: 1 },
  layers: new Map([
    ["conv_in", { act: RANGE }],
    ["up_blocks.0.resnets.0.conv_shortcut", { act: RANGE, act2: { ...RANGE, count: 5 } }],
  ]),
};

test("what was written is read again", () => {
  const text = writeCalibration(CALIBRATION);
  expect(readCalibration(text, "c.json")).toEqual(CALIBRATION);
  expect(text.split("\n").filter((line) => line.includes('"act"'))).toHaveLength(2);
  expect(JSON.parse(text)).toMatchObject({
    format: "mixdq-calibration",
    version: 1,
    layers: { conv_in: { act: RANGE } },
  });
});

/** The written file with its parsed content changed. */
function changed(edit: (json: Record<string, any>) => unknown): string {
  const json = JSON.parse(writeCalibration(CALIBRATION)) as Record<string, any>;
  edit(json);
  return JSON.stringify(json);
}

test.each<[string, string, string]>([
  ["text", "hello", "c.json: got something that is not JSON"],
  ["an array", "[]", "got [], expected a JSON object"],
  ["null", "null", "got null, expected a JSON object"],
  ["another format", changed((json) => (json.format = "mixdq-config")), 'got "format" "mixdq-config"'],
  ["another version", changed((json) => (json.version = 2)), 'got "version" 2, expected 1'],
  ["no prompts", changed((json) => (json.prompts = 0)), 'got "prompts" 0, expected a whole number of at least 1'],
  ["a bos that is a word", changed((json) => (json.bos = "yes")), 'got "bos" "yes", expected true or false'],
  ["no layers", changed((json) => (json.layers = {})), "got 0 layers, expected 1 to"],
  ["layers in a list", changed((json) => (json.layers = [1])), 'got "layers" [1], expected a JSON object'],
  ["a layer without act", changed((json) => (json.layers.conv_in = {})), 'c.json: conv_in: got "act" nothing'],
  [
    "a number that is a word",
    changed((json) => (json.layers.conv_in.act.max = "1")),
    'conv_in: act: got "max" "1", expected a finite number',
  ],
  [
    "a range upside down",
    changed((json) => (json.layers.conv_in.act.movingMin = 1)),
    "conv_in: act: got movingMin 1 above movingMax 0",
  ],
  ["a negative square", changed((json) => (json.layers.conv_in.act.meanSquare = -1)), 'got "meanSquare" -1'],
  ["half a value", changed((json) => (json.layers.conv_in.act.count = 0.5)), 'got "count" 0.5'],
  ["a name without end", changed((json) => (json.layers["x".repeat(2000)] = {})), 'got the layer "xxx'],
])("%s is refused in one line", (_, text, says) => {
  const read = (): Calibration => readCalibration(text, "c.json");
  expect(read).toThrow(MixdqError);
  expect(read).toThrow(says);
  expect(read).toThrow(/^[^\n]+Make the file with mixdq calibrate\.$/);
});

test("ranges alone can be read of a whole calibration, and of a file that has nothing else", () => {
  const act = { min: -1.5, max: Math.fround(0.1) };
  const whole = readRanges(writeCalibration(CALIBRATION), "c.json");
  expect(whole).toEqual({
    model: "small",
    bos: true,
    layers: new Map([
      ["conv_in", { act }],
      ["up_blocks.0.resnets.0.conv_shortcut", { act, act2: act }],
    ]),
  });
  const moving = readRanges(writeCalibration(CALIBRATION), "c.json", "moving");
  expect(moving.layers.get("conv_in")).toEqual({ act: { min: -1.25, max: 0 } });

  const bare = JSON.stringify({ format: "mixdq-calibration", version: 1, layers: { conv_in: { act } } });
  expect(readRanges(bare, "c.json")).toEqual({ model: "", bos: true, layers: new Map([["conv_in", { act }]]) });
  expect(() => readRanges(bare, "c.json", "percentile")).toThrow('conv_in: act: got "percentileMin" nothing');
  expect(() => readCalibration(bare, "c.json")).toThrow('got "model" nothing');
});
