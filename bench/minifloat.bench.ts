/**
 * Floats of 8 and 4 bits in the place of our integers (bench/minifloatRun.ts), in pictures: every row against fp16 with
 * the same prompts and seeds.
 *   npm run bench -- minifloat [MIXDQ_BENCH_PROMPTS=32] [MIXDQ_BENCH_CALIBRATION=32] [MIXDQ_BENCH_MODEL=models/postcard]
 * Prompts are those in judge/ of the model: the first are drawn, the last calibrate.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { calibrated, closeness, draw, presetOf } from "../e2e/outlier.ts";
import { PRESETS } from "../src/mixdq/calibration/preset.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline } from "../src/pipeline.ts";
import { JUDGE_FILES, readDescription } from "../src/mixdq/quality/judge.ts";
import type { Picture } from "../src/mixdq/quality/picture.ts";
import { psnr } from "../src/mixdq/quality/psnr.ts";
import { readJudgedPrompts } from "../src/mixdq/quality/prompts.ts";
import { E2M1, E4M3 } from "./minifloat/minifloat.ts";
import { drawSimulated, type Simulation } from "./minifloatRun.ts";

const MODEL = process.env["MIXDQ_BENCH_MODEL"] ?? path.join(import.meta.dirname, "../models/postcard");
const PROMPTS = Number(process.env["MIXDQ_BENCH_PROMPTS"] ?? 32);
const CALIBRATION = Number(process.env["MIXDQ_BENCH_CALIBRATION"] ?? 32);

const judgeFile = (name: keyof typeof JUDGE_FILES): string => path.join(MODEL, "judge", JUDGE_FILES[name]);

const FORMATS: readonly { name: string; formats: Omit<Simulation, "calibration"> }[] = [
  { name: "no rounding", formats: {} },
  { name: "FP8 E4M3", formats: { weights: E4M3, inputs: E4M3 } },
  { name: "FP4 E2M1, groups of 64; inputs FP8", formats: { weights: E2M1, group: 64, inputs: E4M3 } },
  { name: "FP4 E2M1; inputs FP8", formats: { weights: E2M1, inputs: E4M3 } },
];

test("floats of few bits", { timeout: 2 * 3600_000 }, async () => {
  const { attributes } = readDescription(readFileSync(judgeFile("description"), "utf8"), judgeFile("description"));
  const all = readJudgedPrompts(readFileSync(judgeFile("prompts"), "utf8"), attributes, judgeFile("prompts"));
  const prompts = all.slice(0, PROMPTS).map(({ prompt }) => prompt);
  const calibrating = all.slice(-CALIBRATION).map(({ prompt }) => prompt);
  const calibration = await calibrated(MODEL, calibrating, { bos: false });

  const fp16 = await draw(MODEL, prompts);
  const fp32 = await drawFp32(prompts);
  report("fp32", fp16, fp32);
  const naive = { bos: false, split: false, protect: 0, raise: 0 };
  for (const [precision, bits] of Object.entries(PRESETS)) {
    const config = await presetOf(MODEL, calibration, { ...bits, ...naive });
    report(`${precision} in integers, no layer left out`, fp16, await draw(MODEL, prompts, { config }));
  }
  const decibels: number[] = [];
  for (const { name, formats } of FORMATS) {
    const started = performance.now();
    const pictures = await drawSimulated(MODEL, prompts, 0, { ...formats, calibration });
    const seconds = (performance.now() - started) / 1000 / prompts.length;
    decibels.push(report(`${name} (${seconds.toFixed(1)} s a picture)`, fp16, pictures));
    if (!formats.weights)
      for (const [i, picture] of pictures.entries()) expect(psnr(fp32[i], picture), prompts[i]).toBeGreaterThan(60);
  }
  const [, fp8, ...fp4] = decibels;
  expect(fp8).toBeGreaterThan(Math.max(...fp4) + 3);
});

/** Prints how close the pictures are, with 95 % intervals; returns the mean PSNR, dB. */
function report(name: string, reference: readonly Picture[], pictures: readonly Picture[]): number {
  const figures = closeness(reference, pictures);
  const cells = Object.entries(figures).map(
    ([measure, { value, low, high }]) => `${measure} ${value.toFixed(4)} (${low.toFixed(4)} to ${high.toFixed(4)})`,
  );
  console.log(`${path.basename(MODEL)}, ${name}: ${cells.join(", ")}`);
  return figures.psnr.value;
}

/** As `draw`, in fp32. */
async function drawFp32(prompts: readonly string[]): Promise<readonly Picture[]> {
  const gpu = await requestNodeGpu("auto");
  const pipeline = await loadPipeline({ files: await diskFiles(MODEL), precision: "fp32", gpu });
  try {
    const pictures: Picture[] = [];
    for (const [seed, prompt] of prompts.entries()) pictures.push(await pipeline.generate({ prompt, seed }));
    return pictures;
  } finally {
    await pipeline.dispose();
  }
}
