import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeEach, expect, test, vi } from "vitest";
import { sampleSensitivity } from "../../mixdq/allocation/samples.testing.ts";
import { writeSensitivity } from "../../mixdq/allocation/sensitivity.ts";
import { readMixdqConfig } from "../../quant/config.ts";
import { allocate } from "./allocate.ts";

const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-allocate-"));
const at = (name: string): string => path.join(folder, name);
const sample = sampleSensitivity(2, 8);
writeFileSync(at("sensitivity.json"), writeSensitivity(sample));
const printed: string[] = [];

beforeEach(() => {
  printed.length = 0;
  for (const stream of ["log", "error"] as const)
    vi.spyOn(console, stream).mockImplementation((line: string) => void printed.push(line));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (...args: string[]): Promise<void> =>
  allocate(["--sensitivity", at("sensitivity.json"), "--out", at("mixdq.json"), ...args]);
const json = (name: string) => JSON.parse(readFileSync(at(name), "utf8"));

function writeCalibration(name: string, change: (layers: Record<string, unknown>) => void = () => {}): string {
  const layers: Record<string, unknown> = {};
  for (const layer of sample.layers.keys()) layers[layer] = { act: { min: -1, max: 4.1, movingMin: 0, movingMax: 2 } };
  change(layers);
  const file = { format: "mixdq-calibration", version: 1, model: "sample", prompts: 4, bos: false, extra: 1, layers };
  writeFileSync(at(name), JSON.stringify(file));
  return at(name);
}

test("with a calibration the file holds scales, and the rest of the house can read it", async () => {
  const shortcut = "down_blocks.0.resnets.0.conv_shortcut";
  const calibration = writeCalibration("calibration.json", (layers) => {
    layers[shortcut] = { act: { min: 0.5, max: 2.55 }, act2: { min: -3, max: -1 } };
  });
  await run("--weight-bits", "4.5", "--calibration", calibration, "--protect", "0");
  const config = readMixdqConfig(json("mixdq.json"), "mixdq.json");
  expect(config.layers.size).toBe(sample.layers.size);
  expect(config.bos).toBe(false);
  expect(config.model).toBe("sample");
  expect(config.weights).toEqual({ symmetric: false, range: "mse", group: null });
  const conv = config.layers.get("down_blocks.0.resnets.0.conv1")!;
  expect(conv.act!.scale).toBeCloseTo(5.1 / 255, 8);
  expect(conv.act!.zeroPoint).toBe(50);
  expect(config.layers.get(shortcut)!.act!.scale).toBeCloseTo(2.55 / 255, 8);
  expect(config.layers.get(shortcut)!.act!.zeroPoint).toBe(0);
  expect(config.layers.get(shortcut)!.act2!.zeroPoint).toBe(255);
  let [bits, weights] = [0, 0];
  for (const [name, layer] of sample.layers) {
    bits += config.layers.get(name)!.weightBits * layer.weights;
    weights += layer.weights;
  }
  expect(config.averageWeightBits).toBeCloseTo(bits / weights, 12);
  expect(config.averageWeightBits).toBeLessThanOrEqual(4.5);
  expect(config.provenance).toMatchObject({
    made: "mixdq allocate",
    sensitivity: {
      samples: 8,
      sha256: createHash("sha256")
        .update(readFileSync(at("sensitivity.json")))
        .digest("hex"),
    },
    calibration: { range: "minmax" },
    weights: { budget: 4.5, groups: { content: { gap: 0, certifiedBy: expect.stringMatching(/^HiGHS/) } } },
  });
  expect(printed.join("\n")).toMatch(
    /content +24 +SSIM +\d\.\d{4} +\d\.\d{4} +\d+\.\d{6} +\d+\.\d{6} +0 +search, HiGHS/,
  );

  // The shortcut's ranges above have no moving average.
  const moving = ["--calibration", calibration, "--range-activations", "moving"];
  await expect(run("--weight-bits", "4.5", ...moving)).rejects.toThrow(`${shortcut}: act: got "movingMin" nothing`);
});

test("without one there are only bits; the same command writes the same bytes", async () => {
  await run("--weight-bits", "4.5", "--weight-range", "minmax", "--symmetric", "--group", "64");
  const { layers, weights } = json("mixdq.json");
  expect(Object.keys(layers["down_blocks.0.resnets.0.conv1"])).toEqual(["weightBits", "actBits"]);
  expect(weights).toEqual({ symmetric: true, range: "minmax", group: 64 });
  const first = readFileSync(at("mixdq.json"), "utf8");
  await run("--weight-bits", "4.5", "--weight-range", "minmax", "--symmetric", "--group", "64");
  expect(readFileSync(at("mixdq.json"), "utf8")).toBe(first);
});

test("candidates are for both groups, unless quality has its own; 2 bits can be left out", async () => {
  const widths = async (...args: string[]): Promise<Record<string, number[]>> => {
    await run(...args, "--protect", "0");
    const { layers } = json("mixdq.json");
    const used: Record<string, number[]> = {};
    for (const group of ["content", "quality"])
      used[group] = [
        ...new Set(
          Object.keys(layers)
            .filter((name) => sample.layers.get(name)!.group === group)
            .map((name) => layers[name].weightBits as number),
        ),
      ].sort((a, b) => a - b);
    return used;
  };
  expect(await widths("--weight-bits", "4.5")).toEqual({ content: [2, 4, 8], quality: [4, 8] });
  expect((await widths("--weight-bits", "3", "--candidates", "8, 2,4,2"))["quality"]).toContain(2);
  expect(
    (await widths("--weight-bits", "4", "--candidates", "2,4,8", "--quality-candidates", "4,8"))["quality"],
  ).toEqual([4, 8]);
  expect(Object.values(await widths("--weight-bits", "4.5", "--no-2-bit")).flat()).not.toContain(2);
});

test("weights are quantized as they were measured; flags that say otherwise are warned of", async () => {
  const measured = { symmetric: true, range: "minmax", group: 64 } as const;
  writeFileSync(at("measured.json"), writeSensitivity({ ...sample, provenance: { weights: measured } }));
  const weightsOf = async (...args: string[]): Promise<unknown> => {
    printed.length = 0;
    await allocate(["--sensitivity", at("measured.json"), "--out", at("mixdq.json"), "--weight-bits", "4.5", ...args]);
    return json("mixdq.json").weights;
  };
  expect(await weightsOf()).toEqual(measured);
  expect(printed.join("\n")).not.toContain("warning");
  expect(await weightsOf("--weight-range", "mse", "--group", "none")).toEqual({
    ...measured,
    range: "mse",
    group: null,
  });
  expect(printed.join("\n")).toContain(
    'warning: the sensitivity is of weights with {"symmetric":true,"range":"minmax"',
  );
});

test("the report, with pictures", async () => {
  writeFileSync(at("a red house.fp16.png"), "first");
  writeFileSync(at("a red house.quantized.png"), "second");
  await run("--weight-bits", "4.5", "--report", at("report.html"), "--pictures", folder);
  const page = readFileSync(at("report.html"), "utf8");
  expect(page).toContain(Buffer.from("second").toString("base64"));
  expect(page).toContain("a red house");
  expect(printed.join("\n")).toMatch(/sweep: 400 points in \d+\.\d s/);
});

test.each<[string, string[]]>([
  ["--weight-bits is missing", []],
  ["--weight-bits four: expected a number", ["--weight-bits", "four"]],
  ["--weight-bits 2, expected at least", ["--weight-bits", "2"]],
  ["--candidates 2;4: expected bit-widths", ["--weight-bits", "4", "--candidates", "2;4"]],
  ["--candidates with 5 bits", ["--weight-bits", "4", "--candidates", "2,5,8"]],
  ["at 3 bits", ["--weight-bits", "4", "--candidates", "2,3,8"]],
  ["no candidates for", ["--weight-bits", "4", "--candidates", "2", "--no-2-bit"]],
  ["--protect-as bits", ["--weight-bits", "4", "--protect-as", "bits"]],
  ["--ratio -1", ["--weight-bits", "4", "--ratio", "-1"]],
  ["--seed x", ["--weight-bits", "4.5", "--seed", "x"]],
  ["nowhere.json cannot be read", ["--weight-bits", "4.5", "--calibration", "nowhere.json"]],
  ["nowhere cannot be read", ["--weight-bits", "4.5", "--pictures", "nowhere"]],
  ["--prompts without --calibration", ["--weight-bits", "4.5", "--prompts", "4"]],
  ["--ratio 1 with --prompts", ["--weight-bits", "4.5", "--prompts", "4", "--ratio", "1"]],
  ["expected no --config", ["--weight-bits", "4", "--act-bits", "16", "--prompts", "4", "--precision", "w8a8"]],
  ["--prompts nowhere.txt", ["--weight-bits", "4.5", "--act-bits", "16", "--prompts", "nowhere.txt"]],
  ["no such folder", ["--weight-bits", "4.5", "--act-bits", "16", "--prompts", "4", "--judge", "nowhere"]],
  ["--group 32", ["--weight-bits", "4.5", "--group", "32"]],
  ["knows --sensitivity", ["--budget", "4"]],
])("%s: refused, and nothing is written", async (message, args) => {
  rmSync(at("mixdq.json"), { force: true });
  const before = readdirSync(folder);
  await expect(run(...args)).rejects.toMatchObject({
    code: "invalid-input",
    message: expect.stringContaining(message),
  });
  expect(readdirSync(folder)).toEqual(before);
});

test("files that do not fit are refused, and nothing is written", async () => {
  rmSync(at("mixdq.json"), { force: true });
  const calibration = writeCalibration("short.json", (layers) => delete layers["down_blocks.1.resnets.1.conv2"]);
  await expect(run("--weight-bits", "4.5", "--calibration", calibration)).rejects.toThrow(
    "down_blocks.1.resnets.1.conv2: got no calibrated range",
  );
  const whole = readFileSync(at("sensitivity.json"), "utf8");
  const refused = async (text: string, message: string): Promise<void> => {
    writeFileSync(at("other.json"), text);
    const args = ["--sensitivity", at("other.json"), "--out", at("mixdq.json"), "--weight-bits", "4.5"];
    await expect(allocate(args)).rejects.toThrow(message);
  };
  await refused(writeSensitivity({ ...sample, shard: { index: 1, count: 2 } }), "got shard 1 of 2, expected the whole");
  await refused(whole.replace(/"8":[\d.]+/, '"8":NaN'), 'got "8" NaN, expected a finite number');
  await refused(whole.replace(/"8":[\d.]+/, '"8":null'), 'got "8" null');
  await refused(whole.slice(0, -20), "something that is not JSON");
  await refused("{}", 'got "format" nothing');
  await expect(
    allocate(["--sensitivity", at("missing.json"), "--out", at("mixdq.json"), "--weight-bits", "4"]),
  ).rejects.toThrow("missing.json cannot be read");
  expect(existsSync(at("mixdq.json"))).toBe(false);
});
