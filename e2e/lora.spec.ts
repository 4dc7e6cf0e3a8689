/**
 * A LoRA from the file to the picture: each spelling draws what the model draws that PyTorch merged the LoRA into
 * (src/lora/golden).
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFile, diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type PipelineOptions } from "../src/pipeline.ts";
import type { RawImage } from "../src/base/types.ts";
import type { ModelFiles } from "../src/weights/files.ts";
import { parseSafetensors, writeSafetensors, type StoredTensor } from "../src/weights/safetensors.ts";

const MODEL = path.join(import.meta.dirname, "golden/sdxl-euler-cfg");
const POSTCARD = path.join(import.meta.dirname, "../models/postcard");
const GOLDEN = path.join(import.meta.dirname, "../src/lora/golden");
const STRENGTH = 0.7;

const lora = (spelling: string, scale = STRENGTH) => ({
  ...diskFile(path.join(GOLDEN, `attention.${spelling}.safetensors`)),
  scale,
});

/** The model's files, with the tensors that PyTorch changed in place of its own. */
async function mergedFiles(): Promise<ModelFiles> {
  const files = await diskFiles(MODEL);
  const changed = parseSafetensors(readFileSync(path.join(GOLDEN, "attention.merged.safetensors")));
  const without = (name: string): string => name.replace("text_model.", "");
  const byName = new Map([...changed].map(([name, tensor]) => [without(name), tensor]));
  return {
    ...files,
    async open(file) {
      const stream = await files.open(file);
      if (stream === undefined || !file.endsWith(".safetensors")) return stream;
      const tensors = parseSafetensors(new Uint8Array(await new Response(stream.body).arrayBuffer()));
      const [component] = file.split("/");
      const mended = [...tensors].map(([name, tensor]): [string, StoredTensor] => [
        name,
        byName.get(`${component}/${without(name)}`) ?? tensor,
      ]);
      const entries = mended.map(([name, { bytes, ...rest }]) => [name, { ...rest, data: bytes }] as const);
      const content = writeSafetensors(Object.fromEntries(entries));
      return { bytes: content.length, body: new Blob([content]).stream() as ReadableStream<Uint8Array> };
    },
    size: async (file) => {
      const stream = await (await mergedFiles()).open(file);
      await stream?.body.cancel();
      return stream?.bytes;
    },
  };
}

interface Drawn {
  readonly image: RawImage;
  /** The VAE's output. */
  readonly values: Float32Array;
}

async function draw(options: PipelineOptions): Promise<Drawn> {
  const pipeline = await loadPipeline({ precision: "fp32", ...options });
  try {
    let values: Float32Array | undefined;
    const request = { prompt: "a red house", numInferenceSteps: 2, guidanceScale: 3, seed: 7, width: 32, height: 32 };
    const image = await pipeline.generate(request, { onIntermediates: (seen) => (values = seen.image) });
    return { image, values: values! };
  } finally {
    await pipeline.dispose();
  }
}

/** Peak signal-to-noise ratio over a range of 2, in dB. */
function psnr(got: Float32Array, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  const error = got.reduce((sum, value, i) => sum + (value - expected[i]) ** 2, 0) / got.length;
  return 10 * Math.log10(4 / error);
}

test("every spelling draws the picture of the model that PyTorch merged it into", async () => {
  // On the CPU, where five models are loaded in seconds: the merge is the same for every backend.
  const backend = "ort-wasm";
  const plain = await draw({ files: await diskFiles(MODEL), backend });
  const merged = await draw({ files: await mergedFiles(), backend });
  expect(psnr(plain.values, merged.values)).toBeLessThan(30);
  for (const spelling of ["diffusers", "kohya", "sgm"]) {
    const { values, image } = await draw({ files: await diskFiles(MODEL), lora: [lora(spelling)], backend });
    const ratio = psnr(values, merged.values);
    console.log(`${spelling}: ${ratio.toFixed(1)} dB`);
    expect(ratio).toBeGreaterThanOrEqual(90);
    expect(image.parameters["lora"]).toMatch(/attention\.\w+\.safetensors=0\.7$/);
  }
  // On our own kernels, whose store takes weights as exact as they come: sums in another order, over two steps.
  const { values } = await draw({
    files: await diskFiles(MODEL),
    lora: [lora("kohya")],
    gpu: await requestNodeGpu("swiftshader"),
  });
  expect(psnr(values, merged.values)).toBeGreaterThanOrEqual(80);
});

test("a LoRA of another model is refused before weights are read", async () => {
  const files = await diskFiles(POSTCARD);
  await expect(loadPipeline({ files, lora: [lora("kohya")], backend: "ort-wasm" })).rejects.toMatchObject({
    code: "invalid-model",
    message: expect.stringMatching(
      /attention\.kohya\.safetensors: lora_\w+(\.\w+)+: got .*, expected .*Use a LoRA that was trained/,
    ),
  });
});
