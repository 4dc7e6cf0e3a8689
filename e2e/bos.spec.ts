/**
 * MixDQ's BOS-aware keys and values are worth their trouble: shown on a model with a synthetic BOS outlier (outlier.ts),
 * because the small default model has none by nature. What it shows is the mechanism, not what real SDXL-Turbo gains.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { PRESETS } from "../src/mixdq/calibration/preset.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline } from "../src/pipeline.ts";
import type { ComparedFigures } from "../src/mixdq/quality/figures.ts";
import type { MixdqConfig } from "../src/quant/config.ts";
import type { RawImage } from "../src/base/types.ts";
import { emptyFolder, expectError, refusal } from "./broken.ts";
import { calibrated, closeness, draw, findOutlierSite, presetOf, textState, writeOutlierModel } from "./outlier.ts";

const MODEL = path.join(import.meta.dirname, "../models/postcard");

/** Other values of the text state stay within about 16, so that W8A8 over this range knows them as -1, 0 and 1. */
const AMPLITUDE = 4000;

const CALIBRATION = [
  "a red house by the sea at sunset",
  "a castle at night",
  "a yellow sailboat",
  "a white tent in the desert with one palm tree",
];
const HELD_OUT = [
  "a green tent in the snow at night",
  "a red castle in the desert at sunset",
  "a white lighthouse by the sea during the day",
];

describe("with a synthetic BOS outlier", () => {
  const folder = emptyFolder();
  const [plain, outlier] = [path.join(folder, "plain"), path.join(folder, "outlier")];
  let channel: number;
  let aware: MixdqConfig;
  let float: readonly RawImage[];

  beforeAll(async () => {
    const site = await findOutlierSite(MODEL, CALIBRATION);
    channel = site.channel;
    await writeOutlierModel(MODEL, plain, site, 0);
    await writeOutlierModel(MODEL, outlier, site, AMPLITUDE);
    float = await draw(outlier, HELD_OUT);
    aware = await config({ bos: true });
  });

  // Nothing is protected: that would spare the naive run the layers that the outlier hurts most.
  const config = async (ranges: { bos: boolean }): Promise<MixdqConfig> =>
    presetOf(outlier, await calibrated(outlier, CALIBRATION, ranges), { ...PRESETS.w8a8, protect: 0 });

  const compared = async (name: string, pictures: readonly RawImage[]): Promise<ComparedFigures> => {
    const figures = closeness(float, pictures);
    console.log(`${name}: SSIM ${figures.ssim.value.toFixed(4)}, PSNR ${figures.psnr.value.toFixed(1)} dB`);
    return figures;
  };

  test.each(HELD_OUT.slice(0, 2))("changes one value of the text state: %s", async (prompt) => {
    const [before, after] = [await textState(plain, prompt), await textState(outlier, prompt)];
    expect(after[channel] - before[channel]).toBeGreaterThan(0.99 * AMPLITUDE);
    after[channel] = before[channel];
    const worst = after.reduce((most, value, i) => Math.max(most, Math.abs(value - before[i])), 0);
    expect(worst).toBeLessThan(1e-4);
  });

  test("leaves float pictures as they were", async () => {
    const { psnr } = await compared("float, without the outlier", await draw(plain, HELD_OUT));
    expect(psnr.low).toBeGreaterThan(45);
  });

  test("ruins them in W8A8", async () => {
    const naive = await compared("W8A8", await draw(outlier, HELD_OUT, { config: await config({ bos: false }) }));
    expect(naive.ssim.value).toBeLessThan(0.9);
    expect(naive.psnr.value).toBeLessThan(25);
  });

  test("spares them in W8A8 with BOS-aware keys and values", async () => {
    const pictures = await draw(outlier, HELD_OUT, { config: aware });
    const restored = await compared("W8A8, BOS-aware", pictures);
    expect(restored.ssim.value).toBeGreaterThan(0.97);
    expect(restored.psnr.value).toBeGreaterThan(33);
    // Not only better: as good as without an outlier. Ranges that never saw the first token are the same there.
    const without = await draw(plain, HELD_OUT, { config: aware });
    const { psnr } = await compared("W8A8 without the outlier", without);
    expect(Math.abs(restored.psnr.value - psnr.value)).toBeLessThan(1);
    expect(closeness(without, pictures).psnr.value).toBeGreaterThan(45);
  });

  test("refuses the cache where the text begins with something else", async () => {
    const files = await diskFiles(await withZeroedNegative());
    const pipeline = await loadPipeline({ files, config: aware, gpu: await requestNodeGpu("auto") });
    const guided = { prompt: HELD_OUT[0], seed: 1, width: 64, height: 64, guidanceScale: 2 };
    try {
      expectError(await refusal(pipeline.generate(guided)), "invalid-input", "text 0: its first token differs from");
      // An empty negative prompt is one, and begins as every other.
      expect((await pipeline.generate({ ...guided, negativePrompt: "" })).width).toBe(64);
    } finally {
      await pipeline.dispose();
    }
  });

  /** The model as SDXL has it: without a negative prompt, guidance compares with zeros. */
  async function withZeroedNegative(): Promise<string> {
    const zeroed = path.join(folder, "zeroed");
    cpSync(outlier, zeroed, { recursive: true });
    const index = path.join(zeroed, "model_index.json");
    const json = JSON.parse(readFileSync(index, "utf8")) as object;
    writeFileSync(index, JSON.stringify({ ...json, force_zeros_for_empty_prompt: true }));
    return zeroed;
  }
});
