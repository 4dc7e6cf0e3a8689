import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { createTokenizer } from "../text/tokenizer.ts";
import { findComponent } from "../weights/folder.ts";
import { serveFiles } from "../weights/server.testing.ts";
import { httpModel } from "./http.ts";
import { memoryFiles, zeros } from "./memory.testing.ts";
import { openPlaces } from "./open.ts";
import { clipVocabulary } from "./vocabulary.ts";

const place = (bytes: Uint8Array, name = "m.safetensors") => ({ files: memoryFiles({ [name]: bytes }), path: name });

test.each([
  ["a LoRA", { "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": [4, 2] }],
  ["a ControlNet", { "control_model.input_blocks.0.0.weight": [8, 4, 3, 3] }],
  ["Flux", { "double_blocks.0.img_attn.qkv.weight": [8, 8] }],
  ["Stable Diffusion 3", { "model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight": [8, 8] }],
  ["refiner", { "conditioner.embedders.0.model.text_projection": [8, 8] }],
  ["a VAE alone", { "decoder.conv_in.weight": [8, 4, 3, 3], "decoder.mid.block_1.conv1.weight": [8, 8, 3, 3] }],
  ["a text encoder alone", { "text_model.embeddings.token_embedding.weight": [8, 8] }],
  ["a UNet in the layout of a diffusers folder", { "down_blocks.0.resnets.0.conv1.weight": [8, 8, 3, 3] }],
  ["a textual inversion", { emb_params: [2, 768] }],
  ["no diffusion model", { "layers.0.weight": [2, 2] }],
])("%s is refused by what it is", async (what, shapes) => {
  await expect(openPlaces(place(zeros(shapes as unknown as Record<string, number[]>)))).rejects.toMatchObject({
    code: "invalid-model",
    message: expect.stringContaining(what) as string,
  });
});

test.each([
  ["model.ckpt", "pickle"],
  ["unet.bin", "pickle"],
  ["model.gguf", "another format"],
])("%s is refused by its name", async (name, what) => {
  await expect(openPlaces(place(new Uint8Array(100), name))).rejects.toMatchObject({
    code: "invalid-model",
    message: expect.stringContaining(what) as string,
  });
});

test.each([
  ["PK\x03\x04 and so on", "ZIP or PyTorch"],
  ["\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20", "pickle"],
  ["GGUF\x03\x00\x00\x00\x01\x02", "GGUF"],
])("a renamed file that begins with %j is told by its content", async (content, what) => {
  const bytes = Uint8Array.from(content, (letter) => letter.charCodeAt(0));
  await expect(openPlaces(place(bytes))).rejects.toMatchObject({
    code: "invalid-model",
    message: expect.stringContaining(what) as string,
  });
});

test("CLIP's vocabulary comes from its package", async () => {
  const { encode, largestId } = createTokenizer(await clipVocabulary(), "tokenizer");
  expect(largestId).toBe(49407);
  // transformers' CLIPTokenizer of openai/clip-vit-large-patch14
  expect([...encode("a photo of a cat").ids.subarray(0, 8)]).toEqual([49406, 320, 1125, 539, 320, 2368, 49407, 49407]);
});

const FOLDER = {
  "unet/config.json": "{}",
  "unet/diffusion_pytorch_model.safetensors": zeros({ "conv_in.weight": [1] }),
  "unet/diffusion_pytorch_model.non_ema.safetensors": zeros({ "conv_in.weight": [2] }),
  "vae/diffusion_pytorch_model.safetensors": zeros({ "post_quant_conv.weight": [3] }),
  "vae/config.json": '{"scaling_factor": 1}',
  "scheduler/scheduler_config.json": '{"_class_name": "DDIMScheduler", "prediction_type": "epsilon"}',
};

async function firstShape(files: Awaited<ReturnType<typeof openPlaces>>, component: string) {
  for await (const { shape } of (await findComponent(files, component, { precision: "fp16" })).tensors()) return shape;
  return undefined;
}

test("a variant is taken where a part has it", async () => {
  const files = await openPlaces(memoryFiles(FOLDER), { variant: "non_ema" });
  expect(await firstShape(files, "unet")).toEqual([2]);
  expect(await firstShape(files, "vae")).toEqual([3]);
  await expect(openPlaces(memoryFiles(FOLDER), { variant: "bf16" })).rejects.toThrow(/expected the variant bf16/);
});

test("a prediction type overrules the scheduler's config", async () => {
  const files = await openPlaces(memoryFiles(FOLDER), { predictionType: "v_prediction" });
  expect(JSON.parse((await files.text("scheduler/scheduler_config.json"))!)).toMatchObject({
    prediction_type: "v_prediction",
  });
  await expect(openPlaces(memoryFiles(FOLDER), { predictionType: "v" })).rejects.toThrow(/expected one of epsilon/);
});

test("a VAE comes from a folder of its own, or a file", async () => {
  const donor = memoryFiles({
    "config.json": '{"scaling_factor": 2}',
    "diffusion_pytorch_model.safetensors": zeros({ x: [5] }),
  });
  const files = await openPlaces(memoryFiles(FOLDER), { vae: donor });
  expect(await files.text("vae/config.json")).toContain("2");
  expect(await firstShape(files, "vae")).toEqual([5]);
  const golden = path.join(import.meta.dirname, "golden/sd1/model.safetensors");
  const single = await openPlaces(memoryFiles(FOLDER), { vae: place(readFileSync(golden)) });
  expect(JSON.parse((await single.text("vae/config.json"))!)).toMatchObject({ block_out_channels: [4, 4, 8, 8] });
});

test("over HTTP, a part costs its own bytes", async () => {
  const bytes = readFileSync(path.join(import.meta.dirname, "golden/sdxl/model.safetensors"));
  const server = await serveFiles({ "a model.safetensors": bytes });
  const files = await httpModel(`${server.url}/a%20model.safetensors?token=1`, {}, { retryMs: 1 });
  expect(files.location).toBe(`${server.url}/a model.safetensors`);
  const before = server.asked.length;
  expect(await firstShape(files, "text_encoder_2")).toBeDefined();
  const ranges = server.asked.slice(before).map(({ range }) =>
    /^bytes=(\d+)-(\d+)$/
      .exec(range ?? "")!
      .slice(1)
      .map(Number),
  );
  const asked = ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  expect(asked).toBeGreaterThan(0);
  expect(asked).toBeLessThan(bytes.length / 5);
});
