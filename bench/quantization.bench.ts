/**
 * What the parts of MixDQ's quantization are worth, in pictures: BOS-aware keys and values on a model with a synthetic BOS
 * outlier (e2e/outlier.ts), and, on the model as it is, BOS-awareness, split shortcuts and the rule for the range of the
 * weights. Every row against fp16 with the same prompts and seeds; the tables go into BENCHMARKS.md.
 *   npm run bench -- quantization [MIXDQ_BENCH_PROMPTS=32] [MIXDQ_BENCH_CALIBRATION=32] [MIXDQ_BENCH_MODEL=models/postcard]
 * Prompts and judge are those in judge/ of the model: the first of the prompts are drawn, the last calibrate.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { calibrated, closeness, draw, findOutlierSite, presetOf, writeOutlierModel } from "../e2e/outlier.ts";
import { emptyFolder } from "../e2e/broken.ts";
import type { Calibration } from "../src/mixdq/calibration/file.ts";
import { PRESETS, type PresetOptions } from "../src/mixdq/calibration/preset.ts";
import { loadNetwork } from "../src/ort/network.ts";
import { shareFound } from "../src/mixdq/quality/alignment.ts";
import { bootstrapMean, type Estimate } from "../src/mixdq/quality/bootstrap.ts";
import { JUDGE_FILES, readDescription } from "../src/mixdq/quality/judge.ts";
import { readJudgedPrompts } from "../src/mixdq/quality/prompts.ts";
import { createReader } from "../src/mixdq/quality/reader.ts";
import type { MixdqConfig } from "../src/quant/config.ts";
import type { RawImage } from "../src/base/types.ts";

const MODEL = process.env["MIXDQ_BENCH_MODEL"] ?? path.join(import.meta.dirname, "../models/postcard");
const PROMPTS = Number(process.env["MIXDQ_BENCH_PROMPTS"] ?? 32);
const CALIBRATION = Number(process.env["MIXDQ_BENCH_CALIBRATION"] ?? 32);

const TIMEOUT = { timeout: 6 * 3600_000 };

const judgeFile = (name: keyof typeof JUDGE_FILES): string => path.join(MODEL, "judge", JUDGE_FILES[name]);
const description = readDescription(readFileSync(judgeFile("description"), "utf8"), judgeFile("description"));
const all = readJudgedPrompts(readFileSync(judgeFile("prompts"), "utf8"), description.attributes, judgeFile("prompts"));
const stated = all.slice(0, PROMPTS);
const drawn = stated.map(({ prompt }) => prompt);
const calibrating = all.slice(-CALIBRATION).map(({ prompt }) => prompt);

const AMPLITUDES = [0, 100, 1000, 4000];

test("a synthetic BOS outlier", TIMEOUT, async () => {
  const folder = emptyFolder();
  const site = await findOutlierSite(MODEL, calibrating.slice(0, 8));
  const models = AMPLITUDES.map((amplitude) => ({ amplitude, model: path.join(folder, String(amplitude)) }));
  for (const { amplitude, model } of models) await writeOutlierModel(MODEL, model, site, amplitude);
  const [plain] = models;
  const w8a8 = async (model: string, bos: boolean): Promise<MixdqConfig> =>
    // Nothing is protected: that would spare the naive run the layers that the outlier hurts most.
    presetOf(model, await calibrated(model, calibrating, { bos }), { ...PRESETS.w8a8, protect: 0 });
  // BOS-aware ranges never see the outlier, so they are the same for every size of it.
  const aware = await w8a8(plain!.model, true);
  const float = await draw(plain!.model, drawn);
  const given = closeness(await draw(MODEL, drawn), float);
  const rows = [["outlier", "run", "SSIM", "SSIM 11x11", "PSNR dB"]];
  rows.push(row("0", "fp16, against the model before its site was cleared", given));
  for (const { amplitude, model } of models) {
    const runs: [string, MixdqConfig | undefined][] = [
      ["fp16", undefined],
      ["W8A8", await w8a8(model, false)],
      ["W8A8, BOS-aware", aware],
    ];
    for (const [name, config] of runs)
      rows.push(row(String(amplitude), name, closeness(float, await draw(model, drawn, config && { config }))));
  }
  print(`fp16 without the outlier is the reference; ${PROMPTS} prompts, ${CALIBRATION} others calibrate`, rows);
  const psnrOf = (from: number): number => Number(rows.at(from)![4].split(" ")[0]);
  expect(psnrOf(-3)).toBeGreaterThan(45);
  expect(psnrOf(-1)).toBeGreaterThan(psnrOf(-2));
});

type Choice = Pick<PresetOptions, "split" | "weights"> & { readonly bos?: boolean };

const CHOICES: readonly { name: string; choice: Choice }[] = [
  { name: "BOS-aware, split, asymmetric least squares", choice: {} },
  { name: "not BOS-aware", choice: { bos: false } },
  { name: "not split", choice: { split: false } },
  { name: "neither", choice: { bos: false, split: false } },
  { name: "symmetric min-max", choice: { weights: { symmetric: true, range: "minmax", group: null } } },
  { name: "asymmetric min-max", choice: { weights: { symmetric: false, range: "minmax", group: null } } },
  { name: "groups of 64", choice: { weights: { symmetric: false, range: "mse", group: 64 } } },
];

test("the model as it is", TIMEOUT, async () => {
  const calibrations = new Map<boolean, Calibration>();
  for (const bos of [true, false]) calibrations.set(bos, await calibrated(MODEL, calibrating, { bos }));
  const read = await createReader(
    await loadNetwork(readFileSync(judgeFile("network")), "judge").then((network) => (inputs) => network.run(inputs)),
    description,
    judgeFile("network"),
  );
  const found = async (pictures: readonly RawImage[]): Promise<number[]> => {
    const shares: number[] = [];
    for (const [i, picture] of pictures.entries())
      shares.push(shareFound(stated[i].attributes!, (await read(picture)).attributes));
    return shares;
  };
  const float = await draw(MODEL, drawn);
  const floatFound = await found(float);
  const rows = [["weights", "run", "SSIM", "SSIM 11x11", "PSNR dB", "alignment", "to fp16's", "bits"]];
  rows.push(["fp16", "", "1", "1", "", interval(bootstrapMean(floatFound), 3), "", "16"]);
  for (const [precision, bits] of Object.entries(PRESETS))
    for (const { name, choice } of CHOICES) {
      const { bos = true, ...options } = choice;
      const config = await presetOf(MODEL, calibrations.get(bos)!, { ...bits, ...options });
      const pictures = await draw(MODEL, drawn, { config });
      const shares = await found(pictures);
      rows.push([
        ...row(precision, name, closeness(float, pictures)),
        interval(bootstrapMean(shares), 3),
        interval(bootstrapMean(shares.map((share, i) => share - floatFound[i])), 3),
        config.averageWeightBits!.toFixed(2),
      ]);
      console.log(rows.at(-1)!.join(", "));
    }
  print(`fp16 is the reference; ${PROMPTS} prompts, ${CALIBRATION} others calibrate; 95 % intervals`, rows);
});

function row(first: string, second: string, { ssim, ssim11, psnr }: ReturnType<typeof closeness>): string[] {
  return [first, second, interval(ssim, 4), interval(ssim11, 4), interval(psnr, 1)];
}

function interval({ value, low, high }: Estimate, digits: number): string {
  return `${value.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;
}

/** As a table of Markdown. */
function print(title: string, [head, ...rows]: readonly (readonly string[])[]): void {
  const lines = [head!, head!.map(() => "---"), ...rows];
  const widths = head!.map((_, column) => Math.max(...lines.map((cells) => cells[column].length)));
  const text = lines.map((cells) => `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(" | ")} |`);
  console.log([`${path.basename(MODEL)}: ${title}`, ...text].join("\n"));
}
