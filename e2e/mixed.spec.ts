/** A checkpoint that holds some tensors in 16 and some in 32 bits: neither may be rounded where weights are kept exact. */
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type Intermediates } from "../src/pipeline.ts";
import { toFloat32 } from "../src/weights/convert.ts";
import { parseSafetensors } from "../src/weights/safetensors.ts";
import { BrokenModel } from "./broken.ts";

const FILE = "text_encoder/model.safetensors";

async function embeddings(folder: string): Promise<{ hidden: Float32Array; weightBytes: number }> {
  const gpu = await requestNodeGpu("auto");
  const pipeline = await loadPipeline({ files: await diskFiles(folder), precision: "fp32", gpu });
  try {
    let seen: Intermediates | undefined;
    const request = { prompt: "snow", seed: 1, width: 64, height: 64, numInferenceSteps: 1 };
    await pipeline.generate(request, { onIntermediates: (values) => (seen = values) });
    return { hidden: seen!.promptEmbeds, weightBytes: pipeline.info.weightBytes };
  } finally {
    await pipeline.dispose();
  }
}

test("one 32-bit tensor among 16-bit ones makes the component 32-bit, with the same numbers", async () => {
  const model = new BrokenModel();
  const before = await embeddings(model.folder);
  const tensors = parseSafetensors(model.read(FILE), FILE);
  expect([...tensors.values()].every(({ dtype }) => dtype === "F16")).toBe(true);
  const [name, { shape, bytes }] = [...tensors].findLast(([, tensor]) => tensor.shape.length === 2)!;
  model.tensor(FILE, name, { dtype: "F32", shape, data: toFloat32(bytes, "F16") });
  const after = await embeddings(model.folder);
  expect(after.weightBytes).toBeGreaterThan(before.weightBytes);
  expect(after.hidden).toEqual(before.hidden);
});
