/** A second picture of the same prompt reuses its text, keys and values; it must be the picture a fresh engine makes. */
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type Pipeline } from "../src/pipeline.ts";

const SIZE = { width: 64, height: 64 };

async function load(): Promise<Pipeline> {
  return loadPipeline({ files: await diskFiles("models/postcard"), gpu: await requestNodeGpu("auto") });
}

test(
  "seeds, prompts, sizes and guidance in any order give the pictures of fresh engines",
  { timeout: 240_000 },
  async () => {
    const requests = [
      { prompt: "a red house", seed: 1, ...SIZE },
      { prompt: "a red house", seed: 2, ...SIZE },
      { prompt: "a blue tent at night", seed: 2, ...SIZE },
      { prompt: "a blue tent at night", seed: 2, width: 64, height: 72 },
      { prompt: "a blue tent at night", seed: 3, guidanceScale: 2, negativePrompt: "snow", ...SIZE },
      { prompt: "a blue tent at night", seed: 3, numInferenceSteps: 2, ...SIZE },
      { prompt: "a red house", seed: 1, ...SIZE },
    ];
    const one = await load();
    for (const [i, request] of requests.entries()) {
      const { data } = await one.generate(request);
      const fresh = await load();
      expect(data, `picture ${i}`).toEqual((await fresh.generate(request)).data);
      await fresh.dispose();
    }
    await one.dispose();
  },
);
