/** Pictures of many prompts by one engine, and what a judge sees in them. */
import { loadPipeline, type PipelineOptions } from "../pipeline.ts";
import type { Judged } from "../mixdq/quality/figures.ts";
import type { Picture } from "../mixdq/quality/picture.ts";
import type { Prompt } from "../mixdq/quality/prompts.ts";
import { seedAfter, type Seed } from "../base/seed.ts";
import type { EngineInfo } from "../base/types.ts";
import type { Judge } from "./judging.ts";
import { progressLine } from "../node/progress.ts";

/** What is drawn: prompt i with seed firstSeed + i. */
export interface PictureTask {
  readonly prompts: readonly Prompt[];
  readonly firstSeed: Seed;
  /** Where the prompts state what it looks for. */
  readonly judge: Judge | undefined;
}

/** What is left of a run once its pictures were handed over. */
export interface Made {
  readonly info: EngineInfo;
  /** One a picture; none without a judge. */
  readonly judged: readonly Judged[];
  readonly warnings: ReadonlySet<string>;
  readonly seconds: number;
}

/** One engine at a time: it is gone when this returns, and so is what `take` does not keep of its pictures. */
export async function makePictures(
  { prompts, firstSeed, judge }: PictureTask,
  options: PipelineOptions,
  take: (picture: Picture, index: number) => void,
): Promise<Made> {
  const loading = progressLine();
  const pipeline = await loadPipeline({
    ...options,
    onProgress: ({ status, progress }) => loading.show(`${options.precision}: ${status} ${progress.toFixed(0)} %`),
  });
  loading.end();
  try {
    const began = performance.now();
    const judged: Judged[] = [];
    const warnings = new Set<string>();
    for (const [i, { prompt, attributes }] of prompts.entries()) {
      const image = await pipeline.generate({ prompt, seed: seedAfter(firstSeed, i) });
      for (const warning of image.warnings) warnings.add(warning);
      if (judge) judged.push({ ...(await judge.read(image)), stated: attributes! });
      take({ width: image.width, height: image.height, data: image.data }, i);
    }
    return { info: pipeline.info, judged, warnings, seconds: (performance.now() - began) / 1000 };
  } finally {
    await pipeline.dispose();
  }
}
