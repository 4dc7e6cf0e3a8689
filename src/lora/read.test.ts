/** What a stranger's file may hold, and what is said where it is no LoRA for this model. */
import { expect, test } from "vitest";
import type { ModelFiles } from "../weights/files.ts";
import { writeSafetensors, type TensorToWrite } from "../weights/safetensors.ts";
import type { AdaptedComponent } from "./layers.ts";
import { unmetNeed } from "./needs.ts";
import { readLora } from "./read.ts";

const weight = (name: string, ...shape: number[]) => ({ name, shape });
const UNET: AdaptedComponent = {
  component: "unet",
  weights: [
    weight("conv_in.weight", 8, 4, 3, 3),
    weight("mid_block.attentions.0.proj_in.weight", 8, 8),
    weight("mid_block.attentions.0.proj_in.bias", 8),
    weight("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight", 8, 8),
    weight("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 8, 12),
  ],
};
const TEXT: AdaptedComponent = {
  component: "text_encoder",
  weights: [
    { ...weight("text_model.encoder.layers.0.mlp.fc1.weight", 8, 4), aliases: ["encoder.layers.0.mlp.fc1.weight"] },
  ],
};
const TO_Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";

const f32 = (shape: number[], value = 0.5): TensorToWrite => {
  const count = shape.reduce((a, b) => a * b, 1);
  return { dtype: "F32", shape, data: new Float32Array(count).fill(value) };
};
const pair = (layer: string, outputs: number, inputs: number, rank = 2): Record<string, TensorToWrite> => ({
  [`${layer}.lora_down.weight`]: f32([rank, inputs]),
  [`${layer}.lora_up.weight`]: f32([outputs, rank]),
});

function filesOf(contents: Record<string, Uint8Array<ArrayBuffer> | string>): ModelFiles {
  return {
    location: "loras",
    text: async (path) => contents[path] as string | undefined,
    open: async (path) => {
      const bytes = contents[path];
      if (bytes === undefined) return undefined;
      const body = new Blob([bytes]).stream() as ReadableStream<Uint8Array>;
      return { bytes: bytes.length, body };
    },
  };
}

const read = (tensors: Record<string, TensorToWrite>, { scale = 1, texts = {}, metadata = {} } = {}) =>
  readLora(
    {
      files: filesOf({ "x.safetensors": writeSafetensors(tensors, metadata), ...texts }),
      path: "x.safetensors",
      scale,
    },
    [UNET, TEXT],
  );

/** The scale of the product that the file adds to `to_q`. */
async function scaleOf(tensors: Record<string, TensorToWrite>, options?: Parameters<typeof read>[1]): Promise<number> {
  const { deltas } = await read(tensors, options);
  return deltas.get("unet")!.get("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight")!.scale;
}

test("alpha over rank scales; without alpha, or with 0 as kohya writes it, nothing does", async () => {
  const to = pair(TO_Q, 8, 8);
  expect(await scaleOf(to)).toBe(1);
  expect(await scaleOf(to, { scale: -0.5 })).toBe(-0.5);
  expect(await scaleOf({ ...to, [`${TO_Q}.alpha`]: f32([], 1) })).toBe(0.5);
  expect(await scaleOf({ ...to, [`${TO_Q}.alpha`]: { dtype: "I64", shape: [], data: BigInt64Array.of(6n) } })).toBe(3);
  expect(await scaleOf({ ...to, [`${TO_Q}.alpha`]: f32([1], 0) })).toBe(1);
});

test("PEFT's own files have their alpha in adapter_config.json", async () => {
  const layer = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
  const to = { [`${layer}.lora_A.weight`]: f32([4, 8]), [`${layer}.lora_B.weight`]: f32([8, 4]) };
  const scaled = (config: object) => scaleOf(to, { texts: { "adapter_config.json": JSON.stringify(config) } });
  expect(await scaled({ peft_type: "LORA", r: 4, lora_alpha: 8 })).toBe(2);
  expect(await scaled({ peft_type: "LORA", r: 4, lora_alpha: 8, use_rslora: true })).toBe(4);
  expect(await scaled({ r: 4, lora_alpha: 8, alpha_pattern: { "attn1.to_q": 2, to_q: 1 } })).toBe(0.5);
  await expect(read(to)).rejects.toThrow("loras/adapter_config.json: no such file, expected the settings of PEFT");
  await expect(scaled({ peft_type: "OFT" })).rejects.toThrow(
    'got "peft_type" "OFT", expected "LORA", "LOHA" or "LOKR"',
  );
});

test("a text encoder's layers are found with and without text_model", async () => {
  for (const prefix of ["text_encoder.text_model.", "text_encoder."]) {
    const layer = `${prefix}encoder.layers.0.mlp.fc1`;
    const { deltas } = await read({ [`${layer}.lora_A.weight`]: f32([1, 4]), [`${layer}.lora_B.weight`]: f32([8, 1]) });
    expect([...deltas.get("text_encoder")!.keys()]).toEqual(["text_model.encoder.layers.0.mlp.fc1.weight"]);
  }
});

const down = f32([2, 8]);
test.each<[string, Record<string, TensorToWrite>, string]>([
  [
    "another width",
    pair(TO_Q, 8, 16),
    `${TO_Q}.lora_down.weight: got shape [2, 16], expected [2, 8] for unet mid_block`,
  ],
  ["rank 0", pair(TO_Q, 8, 8, 0), `${TO_Q}.lora_down.weight: got shape [0, 8], expected a rank of at least 1`],
  [
    "two ranks",
    { ...pair(TO_Q, 8, 8), [`${TO_Q}.lora_up.weight`]: f32([8, 3]) },
    `${TO_Q}.lora_up.weight: got shape [8, 3], expected [8, 2]`,
  ],
  [
    "NaN",
    { ...pair(TO_Q, 8, 8), [`${TO_Q}.lora_down.weight`]: f32([2, 8], NaN) },
    `${TO_Q}.lora_down.weight: got NaN or infinity at 0, expected finite numbers`,
  ],
  [
    "NaN in alpha",
    { ...pair(TO_Q, 8, 8), [`${TO_Q}.alpha`]: f32([], NaN) },
    `${TO_Q}.alpha: got NaN, expected one finite number`,
  ],
  [
    "half a pair",
    { [`${TO_Q}.lora_down.weight`]: down },
    `${TO_Q}: got lora_down.weight of one layer, expected the tensors of one LoRA`,
  ],
  [
    "8-bit floats",
    {
      ...pair(TO_Q, 8, 8),
      [`${TO_Q}.lora_down.weight`]: { dtype: "F8_E4M3", shape: [2, 8], data: new Uint8Array(16) },
    },
    `${TO_Q}.lora_down.weight: got dtype F8_E4M3, expected F32, F16 or BF16`,
  ],
  [
    "an unknown layer",
    pair("lora_unet_mid_block_attentions_7_proj_in", 8, 8),
    "lora_unet_mid_block_attentions_7_proj_in.lora_down.weight: got a layer that the model does not have in its unet",
  ],
  [
    "an adapter that is none",
    { [`${TO_Q}.oft_blocks`]: down },
    `${TO_Q}.oft_blocks: got a tensor that is of no LoRA, LoCon, LoHa, LoKr or DoRA`,
  ],
  [
    "a model",
    { "mid_block.attentions.0.proj_in.weight": down },
    "mid_block.attentions.0.proj_in.weight: got a tensor that is of no LoRA",
  ],
  [
    "SDXL's",
    pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 8, 4),
    "got a layer of SDXL, expected one of Stable Diffusion 1 or 2",
  ],
  [
    "FLUX's",
    pair("lora_unet_double_blocks_0_img_attn_qkv", 8, 8),
    "got a layer of FLUX, expected one of Stable Diffusion 1 or 2",
  ],
  [
    "a transformer's",
    { "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": down },
    "got a layer of FLUX",
  ],
  [
    "a bias where there is none",
    { [`${TO_Q}.diff_b`]: f32([8]) },
    "got a change of the bias of unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q, expected none",
  ],
  [
    "one layer in two spellings",
    { ...pair(TO_Q, 8, 8), ...pair("lora_unet_middle_block_1_transformer_blocks_0_attn1_to_q", 8, 8) },
    "got a second change of unet mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
  ],
  [
    "one tensor twice",
    { "conv_in.lora_A.weight": f32([1, 4, 3, 3]), "conv_in.lora_down.weight": f32([1, 4, 3, 3]) },
    "expected each tensor once",
  ],
  ["nothing", {}, "got a file without tensors, expected a LoRA's"],
])("%s is refused by name", async (_, tensors, message) => {
  await expect(read(tensors)).rejects.toMatchObject({
    code: "invalid-model",
    message: expect.stringContaining(`loras/x.safetensors: `),
  });
  await expect(read(tensors)).rejects.toThrow(message);
});

test("pickles and files that are not there are refused", async () => {
  const files = filesOf({});
  await expect(readLora({ files, path: "x.ckpt", scale: 1 }, [UNET])).rejects.toThrow("loras/x.ckpt: got a pickle");
  await expect(readLora({ files, path: "x.safetensors", scale: 1 }, [UNET])).rejects.toThrow("no such file");
});

test("a distilled LoRA says what it needs where a picture is made otherwise", () => {
  const euler = { schedulerName: "EulerDiscreteScheduler", steps: 50, guidanceScale: 7.5 };
  expect(unmetNeed("https://host/latent-consistency/lcm-lora-sdxl/x.safetensors", euler)).toBe(
    "The LoRA x.safetensors (LCM) was made for LCMScheduler, 2 to 8 step(s) and guidance up to 2; got scheduler " +
      "EulerDiscreteScheduler, 50 step(s), guidance 7.5. Set scheduler, numInferenceSteps and guidanceScale to that.",
  );
  const four = "sdxl_lightning_4step_lora.safetensors";
  expect(unmetNeed(four, { ...euler, steps: 4, guidanceScale: 0 })).toBeUndefined();
  expect(unmetNeed(four, { ...euler, steps: 8, guidanceScale: 1 })).toContain(
    "4 step(s) and guidance 0; got 8 step(s).",
  );
  expect(unmetNeed("ink.safetensors", euler)).toBeUndefined();
});
