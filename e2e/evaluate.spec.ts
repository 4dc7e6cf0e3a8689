/**
 * `mixdq evaluate` on the default model and its judge: the same figures twice, clearly bad ones for weights out of order
 * and for pictures of other prompts, and figures against FP16.
 */
import { createHash } from "node:crypto";
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { decode } from "fast-png";
import { beforeAll, describe, expect, test } from "vitest";
import { readSensitivity } from "../src/mixdq/allocation/sensitivity.ts";
import { evaluate } from "../src/cli/evaluate.ts";
import type { Estimate } from "../src/mixdq/quality/bootstrap.ts";
import { seededRandom } from "../src/mixdq/quality/bootstrap.ts";
import { averageWeightBits, readMixdqConfig } from "../src/quant/config.ts";
import { parseSafetensors, writeSafetensors, type TensorToWrite } from "../src/weights/safetensors.ts";
import { BrokenModel, emptyFolder, expectError, mixdq, ownLines, refusal, UNET, UNET_CONFIG } from "./broken.ts";

const POSTCARD = path.join(import.meta.dirname, "../models/postcard");
const JUDGE = path.join(POSTCARD, "judge");
/** A second each on a software adapter. */
const PROMPTS = 6;
const SIZE = 128;

interface Report extends Record<"alignment" | "frechet" | "ssim" | "ssim11" | "psnr", Estimate> {
  readonly fp16?: Record<"alignment" | "frechet", Estimate>;
  readonly alignmentAgainstFp16?: Estimate;
  readonly frechetFloor: number;
  readonly attributes: Record<string, { stated: number; found: number }>;
  readonly warnings: string[];
  readonly provenance: {
    readonly time: unknown;
    readonly prompts: { readonly count: number };
    readonly seeds: { readonly first: number; readonly last: number };
  };
  readonly pictures: { prompt: string; seed: number; stated: Record<string, string>; seen: Record<string, string> }[];
}

async function evaluated(flags: Record<string, string | number>): Promise<{ report: Report; grid: Uint8Array }> {
  const out = path.join(emptyFolder(), "report.json");
  const args = Object.entries({ judge: JUDGE, prompts: PROMPTS, out, ...flags });
  await evaluate(args.flatMap(([name, value]) => [`--${name}`, String(value)]));
  return {
    report: JSON.parse(readFileSync(out, "utf8")) as Report,
    grid: readFileSync(out.replace(".json", ".png")),
  };
}

const json = (file: string): unknown => JSON.parse(readFileSync(file, "utf8"));

/** The postcard model with the values of three of its UNet's weights in another order. */
function shuffledModel(): string {
  const folder = path.join(emptyFolder(), "shuffled");
  // Without the recipe and what else lies beside the model.
  for (const part of ["unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"])
    cpSync(path.join(POSTCARD, part), path.join(folder, part), { recursive: true });
  cpSync(path.join(POSTCARD, "model_index.json"), path.join(folder, "model_index.json"));
  const file = path.join(folder, UNET);
  const tensors: Record<string, TensorToWrite> = {};
  const random = seededRandom(1);
  for (const [name, { dtype, shape, bytes }] of parseSafetensors(readFileSync(file), file)) {
    tensors[name] = { dtype, shape, data: bytes };
    if (!["conv_in.weight", "mid_block.resnets.0.conv1.weight", "conv_out.weight"].includes(name)) continue;
    expect(dtype).toBe("F16");
    const values = new Uint16Array(bytes.slice().buffer);
    for (let i = values.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [values[i], values[j]] = [values[j], values[i]];
    }
    tensors[name] = { dtype, shape, data: values };
  }
  writeFileSync(file, writeSafetensors(tensors));
  return folder;
}

/** The judge's first prompts, each with what the next but one states. */
function wrongPrompts(): string {
  const file = path.join(emptyFolder(), "wrong.jsonl");
  const lines = readFileSync(path.join(JUDGE, "prompts.jsonl"), "utf8").split("\n").slice(0, PROMPTS);
  const prompts = lines.map((line) => JSON.parse(line) as { prompt: string; attributes: Record<string, string> });
  const wrong = prompts.map(({ prompt }, i) => ({ prompt, attributes: prompts[(i + 2) % PROMPTS].attributes }));
  writeFileSync(file, wrong.map((line) => JSON.stringify(line)).join("\n"));
  return file;
}

describe("evaluate", () => {
  let good: { report: Report; grid: Uint8Array };
  beforeAll(async () => {
    good = await evaluated({});
  });

  test("gives every figure with an interval around it, and a grid of the pictures", () => {
    const { alignment, frechet, ssim, psnr, frechetFloor, provenance, pictures, attributes } = good.report;
    for (const { value, low, high } of [alignment, frechet, ssim, psnr]) {
      expect(low).toBeLessThanOrEqual(value);
      expect(high).toBeGreaterThanOrEqual(value);
    }
    expect(alignment.value).toBeGreaterThan(0.6);
    expect(frechet.value).toBeGreaterThan(frechetFloor / 2);
    expect(ssim).toEqual({ value: 1, low: 1, high: 1 });
    expect(psnr.value).toBeCloseTo(10 * Math.log10(255 ** 2 * 3 * SIZE ** 2), 9);
    expect(provenance).toMatchObject({ prompts: { count: PROMPTS }, seeds: { first: 0, last: PROMPTS - 1 } });
    expect(pictures.map(({ seed }) => seed)).toEqual([0, 1, 2, 3, 4, 5]);
    const found = pictures.flatMap(({ stated, seen }) =>
      Object.keys(stated).filter((name) => stated[name] === seen[name]),
    );
    for (const [name, count] of Object.entries(attributes))
      expect(count.found).toBe(found.filter((other) => other === name).length);
    const { width, height } = decode(good.grid);
    expect([width, height]).toEqual([PROMPTS * (SIZE + 2) - 2, SIZE]);
  });

  test("gives the same figures and the same pictures again", async () => {
    const again = await evaluated({});
    const withoutTime = ({ provenance, ...rest }: Report) => ({ ...rest, provenance: { ...provenance, time: 0 } });
    expect(withoutTime(again.report)).toEqual(withoutTime(good.report));
    expect(Buffer.from(again.grid).equals(good.grid)).toBe(true);
  });

  test("finds shuffled weights clearly bad", async () => {
    const { report } = await evaluated({ model: shuffledModel() });
    expect(report.alignment.value).toBeLessThan(good.report.alignment.value - 0.3);
    expect(report.alignment.high).toBeLessThan(good.report.alignment.value);
    expect(report.frechet.value).toBeGreaterThan(1.5 * good.report.frechet.value);
  });

  test("finds pictures of other prompts badly aligned, and their features as good as before", async () => {
    const { report } = await evaluated({ prompts: wrongPrompts() });
    expect(report.alignment.value).toBeLessThan(good.report.alignment.value - 0.3);
    expect(report.frechet).toEqual(good.report.frechet);
  });

  test("compares with FP16: fp32 is next to equal", async () => {
    const { report, grid } = await evaluated({ precision: "fp32", prompts: 2 });
    expect(report.ssim.value).toBeGreaterThan(0.995);
    expect(report.ssim11.value).toBeGreaterThan(0.99);
    expect(report.ssim.value).toBeLessThan(1);
    expect(report.psnr.value).toBeGreaterThan(40);
    expect(report.psnr.value).toBeLessThan(90);
    expect(report.fp16!.alignment.value).toBeGreaterThan(0);
    expect(report.alignmentAgainstFp16!.value).toBeCloseTo(report.alignment.value - report.fp16!.alignment.value, 12);
    const { width, height } = decode(grid);
    expect([width, height]).toEqual([2 * (SIZE + 2) - 2, 2 * (SIZE + 2) - 2]);
  });
});

describe("the default model's own configurations", () => {
  /** A few dB below what 128 prompts give (models/postcard/quantization): 4 prompts scatter, adapters differ. */
  test.each([
    ["w8a8", 8.3, 40],
    ["w4a8", 4, 40],
  ])("%s: at most %d bits a weight, at least %d dB against FP16", async (precision, bits, decibels) => {
    const config = readMixdqConfig(json(path.join(POSTCARD, `mixdq.${precision}.json`)), precision);
    expect(config.averageWeightBits).toBeLessThanOrEqual(bits);
    const { report } = await evaluated({ precision, prompts: 4 });
    expect(report.psnr.value).toBeGreaterThan(decibels);
    expect(report.ssim.value).toBeGreaterThan(0.998);
    expect(report.alignmentAgainstFp16!.value).toBeGreaterThan(-0.05);
  });

  test("w4a8 is of the sensitivity and the calibration that lie beside it, and has no more bits than it says", () => {
    const config = readMixdqConfig(json(path.join(POSTCARD, "mixdq.w4a8.json")), "w4a8");
    const file = (name: string): string => path.join(POSTCARD, "quantization", name);
    const sha256 = (name: string): string =>
      createHash("sha256")
        .update(readFileSync(file(name)))
        .digest("hex");
    expect(config.provenance).toMatchObject({
      made: "mixdq allocate",
      sensitivity: { sha256: sha256("sensitivity.json") },
      calibration: { sha256: sha256("calibration.json") },
      choice: { by: "ssim" },
    });
    const { layers } = readSensitivity(readFileSync(file("sensitivity.json"), "utf8"), "sensitivity.json");
    expect([...config.layers.keys()].sort()).toEqual([...layers.keys()].sort());
    const counts = new Map(Array.from(layers, ([name, { weights }]) => [name, weights]));
    expect(averageWeightBits(config, counts).all).toBeCloseTo(config.averageWeightBits!, 12);
  });
});

describe("evaluate without a judge", () => {
  const model = new BrokenModel();
  model.set(UNET_CONFIG, { sample_size: 8 }); // pictures of 64x64
  const prompts = path.join(model.folder, "prompts.txt");
  writeFileSync(prompts, "snow\nred\n");

  test("compares with FP16 over a text file, and says what is left out", async () => {
    const out = path.join(emptyFolder(), "new", "report.json");
    const flags = ["--model", model.folder, "--prompts", prompts, "--precision", "fp32", "--out", out, "--seed", "7"];
    const ended = await mixdq(["evaluate", ...flags]);
    expect(ended.exitCode, ended.stderr).toBe(0);
    expect(ownLines(ended.stderr).filter((line) => !line.startsWith("evaluate ["))).toEqual([
      expect.stringMatching(/^warning: .*prompts\.txt states no attributes for a judge: alignment and Fréchet/),
    ]);
    expect(ended.stdout).toMatch(
      /report\.json: 2 pictures of 64x64, fp32 on .*\n {2}ssim .*\n {2}ssim11 .*\n {2}psnr /,
    );
    const report = JSON.parse(readFileSync(out, "utf8")) as Report;
    expect(report.psnr.value).toBeGreaterThan(30);
    expect(report.provenance.seeds).toEqual({ first: 7, last: 8 });
    expect(report).not.toHaveProperty("alignment");
    expect(report).not.toHaveProperty("frechet");
    expect(existsSync(out.replace(".json", ".png"))).toBe(true);
  });

  test.each<[string, string[], string]>([
    [
      "no prompts",
      [],
      "--prompts is missing: this model has no judge, and so no prompts of its own. Give --prompts FILE",
    ],
    ["a number of prompts", ["--prompts", "8"], "--prompts 8: this model has no judge"],
    ["nothing to compare", ["--prompts", prompts], "got prompts without attributes for an FP16 run"],
    ["prompts that are missing", ["--prompts", "nowhere.txt"], "--prompts nowhere.txt cannot be read: ENOENT"],
    ["a judge that is missing", ["--judge", "nowhere"], "--judge nowhere: no such folder. Give the folder that holds"],
    [
      "a seed that is none",
      ["--prompts", prompts, "--precision", "fp32", "--seed", "x"],
      "--seed: got x, expected a whole",
    ],
    [
      "a seed beyond 2^64",
      ["--prompts", prompts, "--precision", "fp32", "--seed", "18446744073709551616"],
      "--seed: got 18446744073709551616, expected a whole number",
    ],
  ])("refuses %s", async (_, flags, says) => {
    const out = path.join(emptyFolder(), "new", "report.json");
    const error = await refusal(evaluate(["--model", model.folder, "--out", out, ...flags]));
    expectError(error, "invalid-input", says);
    expect(existsSync(path.dirname(out))).toBe(false);
  });

  test("refuses a grid in the report's place, more prompts than there are, and a judge for other pictures", async () => {
    const out = path.join(emptyFolder(), "x.png");
    const refused = (...flags: string[]) => refusal(evaluate(["--out", out, ...flags]));
    expectError(await refused("--grid", out), "invalid-input", "got the file of --out, expected another");
    expectError(await refused("--prompts", "100000"), "invalid-input", "--prompts 100000: expected at most");
    expectError(await refused("--prompts", "1"), "invalid-input", "--prompts 1: got 1 prompt(s), expected at least 2");
    expectError(
      await refused("--model", model.folder, "--judge", JUDGE),
      "invalid-input",
      `The judge: got pictures of 64x64 pixels, expected ${SIZE}x${SIZE} or a whole multiple of it`,
    );
  });
});
