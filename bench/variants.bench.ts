/**
 * The default model's whole pictures in the variant that a GPU gets (tiled kernels, overrides compiled in) against those of the
 * direct kernels with overrides in a uniform, in every precision, on one adapter.
 *   npm run bench -- variants [MIXDQ_BENCH_ADAPTER=swiftshader|lavapipe|gpu] [MIXDQ_BENCH_PRECISIONS=fp32,fp16,w8a8,w4a8]
 * A software adapter compiles for half an hour; SwiftShader takes about 4 seconds of a core for a pipeline, lavapipe 8.
 */
import { expect, test } from "vitest";
import type { Precision } from "../src/base/types.ts";
import { SIMPLE, TILED } from "../src/kernels/choices.ts";
import type { KernelChoice } from "../src/kernels/kernel.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type Intermediates } from "../src/pipeline.ts";

const ADAPTER = process.env["MIXDQ_BENCH_ADAPTER"] ?? "swiftshader";
const PRECISIONS = (process.env["MIXDQ_BENCH_PRECISIONS"] ?? "fp32,fp16,w8a8,w4a8").split(",") as Precision[];
const MODEL = "models/postcard";
const PROMPT = "a red house by the sea at sunset with two pine trees";

/**
 * Of the picture, range 2, in dB. Both variants sum floats in different orders; fp16 stores between them in 11 bits; in
 * integers the sums are equal, but a float before a quantization may fall to the other side of the edge between two codes,
 * and the network goes on with that.
 */
const LEAST_DB: Record<Precision, number> = { fp32: 100, fp16: 50, w8a8: 40, w4a8: 40 };

async function picture(precision: Precision, kernels: KernelChoice) {
  const gpu = await requestNodeGpu(ADAPTER);
  const pipeline = await loadPipeline({ files: await diskFiles(MODEL), precision, kernels, gpu });
  try {
    let seen: Intermediates | undefined;
    const { adapter } = pipeline.info;
    await pipeline.generate({ prompt: PROMPT, seed: 1 }, { onIntermediates: (values) => (seen = values) });
    return { adapter, ...seen! };
  } finally {
    await pipeline.dispose();
  }
}

test.each(PRECISIONS)("both variants make the same picture in %s", { timeout: 6 * 3_600_000 }, async (precision) => {
  const direct = await picture(precision, SIMPLE);
  const started = process.cpuUsage();
  const tiled = await picture(precision, TILED);
  const seconds = process.cpuUsage(started).user / 1e6;
  const [text, unet, image] = (["promptEmbeds", "unetOut", "image"] as const).map((name) =>
    relativeL2(tiled[name], direct[name]),
  ) as [number, number, number];
  const decibels = psnr(tiled.image, direct.image);
  console.log(
    `${precision} on ${tiled.adapter}: relative L2 of text ${text.toExponential(1)}, UNet ${unet.toExponential(1)}, ` +
      `picture ${image.toExponential(1)} (${decibels.toFixed(1)} dB); the tiled variant took ${seconds.toFixed(0)} s of a core`,
  );
  expect(decibels).toBeGreaterThan(LEAST_DB[precision]);
});

function relativeL2(got: Float32Array, expected: Float32Array): number {
  let [error, energy] = [0, 0];
  expected.forEach((value, i) => {
    error += (got[i] - value) ** 2;
    energy += value ** 2;
  });
  return Math.sqrt(error / energy);
}

function psnr(got: Float32Array, expected: Float32Array): number {
  const error = expected.reduce((sum, value, i) => sum + (got[i] - value) ** 2, 0) / expected.length;
  return 10 * Math.log10(4 / error);
}
