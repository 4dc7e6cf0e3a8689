/** Models that are missing, damaged or contradict themselves: each gives one message, before or while it is loaded. */
import { beforeAll, describe, expect, test } from "vitest";
import { BrokenModel, expectError, halves, refusal, TEXT, UNET, UNET_CONFIG } from "./broken.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import type { ErrorCode } from "../src/base/errors.ts";
import { loadPipeline, type Pipeline } from "../src/pipeline.ts";
import { parseSafetensors, writeSafetensors } from "../src/weights/safetensors.ts";
import type { Precision } from "../src/base/types.ts";
import { findComponent } from "../src/weights/folder.ts";

let gpu: GPU;
beforeAll(async () => {
  gpu = await requestNodeGpu("auto");
});

async function load({ folder }: BrokenModel, precision: Precision = "fp16"): Promise<Pipeline> {
  return loadPipeline({ files: await diskFiles(folder), precision, gpu });
}

interface Case {
  readonly what: string;
  readonly damage: (model: BrokenModel) => void;
  /** Default: invalid-model. */
  readonly code?: ErrorCode;
  /** Parts of the message. */
  readonly says: readonly string[];
}

function refuses(cases: readonly Case[]): void {
  test.each(cases.map((c) => [c.what, c] as const))("%s", async (_, { damage, code = "invalid-model", says }) => {
    const model = new BrokenModel();
    damage(model);
    expectError(await refusal(load(model)), code, ...says);
  });
}

const TEXT_CONFIG = "text_encoder/config.json";
const SCHEDULER = "scheduler/scheduler_config.json";

describe("a folder is refused where a file is missing or is not what its name says:", () => {
  refuses([
    {
      what: "no model_index.json",
      damage: (m) => m.remove("model_index.json"),
      says: ["model_index.json: no such file", "Check the model"],
    },
    {
      what: "malformed JSON",
      damage: (m) => m.write(UNET_CONFIG, '{"in_channels": 4,'),
      says: [UNET_CONFIG, "not JSON", "Save the model again"],
    },
    { what: "JSON that is a list", damage: (m) => m.write(UNET_CONFIG, "[1]"), says: [UNET_CONFIG, "got [1]"] },
    { what: "no UNet config", damage: (m) => m.remove(UNET_CONFIG), says: [`${UNET_CONFIG}: no such file`] },
    { what: "no text encoder config", damage: (m) => m.remove(TEXT_CONFIG), says: [`${TEXT_CONFIG}: no such file`] },
    { what: "no VAE config", damage: (m) => m.remove("vae/config.json"), says: ["vae/config.json: no such file"] },
    { what: "no scheduler", damage: (m) => m.remove("scheduler"), says: [`${SCHEDULER}: no such file`] },
    { what: "no tokenizer", damage: (m) => m.remove("tokenizer"), says: ["tokenizer: no tokenizer; looked for"] },
    {
      what: "no UNet weights",
      damage: (m) => m.remove(UNET),
      says: ["unet: no weights; looked for", "diffusion_pytorch_model.safetensors"],
    },
    { what: "no text encoder weights", damage: (m) => m.remove(TEXT), says: ["text_encoder: no weights; looked for"] },
    {
      what: "weights in a .bin file only",
      damage: (m) => {
        m.write("text_encoder/pytorch_model.bin", m.read(TEXT));
        m.remove(TEXT);
      },
      says: ["got pytorch_model.bin, expected safetensors", "safe_serialization=True"],
    },
  ]);
});

describe("a weights file is refused", () => {
  refuses([
    {
      what: "that ends within its header",
      damage: (m) => m.write(TEXT, m.read(TEXT).subarray(0, 1000)),
      code: "integrity",
      says: [TEXT, "the header ends after 992 of", "download it again"],
    },
    {
      what: "that ends within a tensor",
      damage: (m) => m.write(TEXT, m.read(TEXT).subarray(0, -500)),
      code: "integrity",
      says: [TEXT, "the file has 124316 of 124816 bytes", "cut short: download it again"],
    },
    { what: "of no bytes", damage: (m) => m.write(TEXT, ""), says: [TEXT, "got a file of 0 bytes"] },
    {
      what: "whose header is said to be absurdly large",
      damage: (m) => m.poke(TEXT, 4, 0x7fff),
      says: [TEXT, "got a header of 140733193", "expected 2 to 100000000 bytes"],
    },
    {
      what: "whose header is said to be larger than the file",
      damage: (m) => m.poke(TEXT, 0, 90_000_000),
      code: "integrity",
      says: [TEXT, "of 90000000 bytes"],
    },
    {
      what: "whose tensors overlap",
      damage: (m) => m.header(TEXT, ({ "final_layer_norm.bias": { data_offsets } }) => void (data_offsets[0] -= 2)),
      says: [TEXT, "final_layer_norm.bias: got 66 bytes, expected 64"],
    },
    {
      what: "whose tensors leave a gap",
      damage: (m) =>
        m.header(TEXT, ({ "final_layer_norm.bias": { data_offsets } }) => {
          data_offsets[0] += 2;
          data_offsets[1] += 2;
        }),
      says: [TEXT, "got data from byte", "where the tensor before ends"],
    },
    {
      what: "with 8-bit weights",
      damage: (m) => m.tensor(TEXT, "final_layer_norm.bias", { dtype: "I8", shape: [32], data: new Int8Array(32) }),
      says: ["final_layer_norm.bias: got dtype I8, expected weights in F32, F16 or BF16", "Save the model in one"],
    },
    {
      what: "with 64-bit weights",
      damage: (m) => m.tensor(TEXT, "final_layer_norm.bias", { dtype: "F64", shape: [32], data: new Float64Array(32) }),
      says: ["final_layer_norm.bias: got dtype F64, expected weights in F32, F16 or BF16"],
    },
    {
      what: "with a dtype that nobody here knows",
      damage: (m) => m.header(TEXT, ({ "final_layer_norm.bias": entry }) => void (entry.dtype = "F8_NEW")),
      says: ["final_layer_norm.bias: got dtype F8_NEW, expected weights in F32, F16 or BF16"],
    },
    {
      what: "with bytes after its last tensor",
      damage: (m) => m.write(TEXT, Buffer.concat([m.read(TEXT), Buffer.from("??")])),
      code: "integrity",
      says: [TEXT, "bytes after the last tensor", "download it again"],
    },
    {
      what: "that is a Git LFS pointer",
      damage: (m) => m.write(TEXT, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
      says: [TEXT, "got a Git LFS pointer", "git lfs pull"],
    },
  ]);
});

describe("shards are refused", () => {
  const names = async ({ folder }: BrokenModel): Promise<void> => {
    const weights = await findComponent(await diskFiles(folder), "unet", { precision: "fp16" });
    for await (const _ of weights.tensors()) void _;
  };
  const second = "diffusion_pytorch_model-00002-of-00002.safetensors";

  test("when one that the index names is missing", async () => {
    const model = new BrokenModel("unet-sd2");
    model.remove(`unet/${second}`);
    expectError(await refusal(names(model)), "invalid-model", `unet/${second}: no such file`, "index.json");
  });

  test("when one does not hold what the index says", async () => {
    const model = new BrokenModel("unet-sd2");
    model.shards((owners) => (owners["conv_in.imaginary"] = second));
    expectError(await refusal(names(model)), "invalid-model", `${second}: the shard lacks conv_in.imaginary`);
  });

  test("when one holds more than the index says", async () => {
    const model = new BrokenModel("unet-sd2");
    model.shards((owners) => delete owners["conv_in.bias"]);
    expectError(await refusal(names(model)), "invalid-model", "the shard holds conv_in.bias");
  });
});

describe("a config that contradicts the rest is refused, with both numbers:", () => {
  refuses([
    {
      what: "other block_out_channels",
      damage: (m) => m.set(UNET_CONFIG, { block_out_channels: [24, 24] }),
      says: ["unet conv_in.bias: the file has shape [16], config.json asks for [24]", "take both from one model"],
    },
    {
      what: "a tensor that the weights lack",
      damage: (m) => m.tensor(TEXT, "final_layer_norm.bias", undefined),
      says: ["text_encoder: 1 tensor(s)", "text_model.final_layer_norm.bias"],
    },
    {
      what: "a layer more than the weights have",
      damage: (m) => m.set(TEXT_CONFIG, { num_hidden_layers: 4 }),
      says: ["text_encoder: 16 tensor(s) that config.json asks for are not in the weights", "layers.3."],
    },
    {
      what: "a layer less than the weights have",
      damage: (m) => m.set(TEXT_CONFIG, { num_hidden_layers: 2 }),
      says: ["text_encoder: the weights have encoder.layers.2.", "describes no such layer"],
    },
    {
      what: "a UNet saved with a LoRA attached, or fused and not unloaded",
      damage: (m) =>
        m.header(UNET, (header) => {
          const layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
          header[`${layer}.base_layer.weight`] = header[`${layer}.weight`];
          delete header[`${layer}.weight`];
        }),
      says: [
        "unet: got mid_block.attentions.0.",
        "to_q.base_layer.weight, which is of a LoRA",
        "unload_lora_weights()",
      ],
    },
    {
      what: "a layer under a LoRA that no graph reads",
      damage: (m) =>
        m.header(UNET, (header) => {
          header["conv_in.base_layer.weight"] = header["conv_in.weight"];
          delete header["conv_in.weight"];
        }),
      says: ["unet: got conv_in.base_layer.weight, which is of a LoRA", "pipe.fuse_lora()"],
    },
    {
      what: "a text encoder of which only the LoRA was saved",
      damage: (m) => {
        m.remove(TEXT);
        m.write("text_encoder/adapter_config.json", '{"peft_type": "LORA", "r": 2}');
      },
      says: ["text_encoder: got adapter_config.json and no weights, which is of a LoRA", "save the model again"],
    },
    {
      what: "a layer more in the UNet's blocks",
      damage: (m) => m.set(UNET_CONFIG, { layers_per_block: 2 }),
      says: ["unet up_blocks.0.resnets.1.conv1.weight: the file has shape [24, 40, 3, 3]", "[24, 48, 3, 3]"],
    },
    {
      what: "a UNet without the transformer blocks that the weights have",
      damage: (m) => m.set(UNET_CONFIG, { transformer_layers_per_block: 0 }),
      says: ["unet: the weights have down_blocks.0.attentions.0.transformer_blocks.0."],
    },
    {
      what: "another cross_attention_dim",
      damage: (m) => m.set(UNET_CONFIG, { cross_attention_dim: 48 }),
      says: ["the text encoders give 32 channels (text_encoder), unet/config.json's cross_attention_dim asks for 48"],
    },
    {
      what: "a text encoder of another width",
      damage: (m) => m.set(TEXT_CONFIG, { hidden_size: 64 }),
      says: ["the text encoders give 64 channels (text_encoder), unet/config.json's cross_attention_dim asks for 32"],
    },
    {
      what: "a larger vocab_size than the weights have",
      damage: (m) => m.set(TEXT_CONFIG, { vocab_size: 700 }),
      says: ["token_embedding.weight: the file has shape [600, 32], config.json asks for [700, 32]"],
    },
    {
      what: "a smaller vocab_size than the tokenizer needs",
      damage: (m) => m.set(TEXT_CONFIG, { vocab_size: 500 }),
      says: [`${TEXT_CONFIG}: got "vocab_size" 500, expected at least 600`],
    },
    {
      what: "heads that do not divide the width",
      damage: (m) => m.set(TEXT_CONFIG, { num_attention_heads: 5 }),
      says: ["got 32 channels, expected a multiple of 5 heads"],
    },
    {
      what: "a VAE of other widths",
      damage: (m) => m.set("vae/config.json", { decoder_block_out_channels: [32, 32, 32, 32] }),
      says: ["vae decoder.layers.0.bias: the file has shape [16], config.json asks for [32]"],
    },
    {
      what: "a UNet for inpainting, with more channels than latents have",
      damage: (m) => m.set(UNET_CONFIG, { in_channels: 9 }),
      says: ["in_channels 9", "latent_channels 4", "not for inpainting"],
    },
    {
      what: "a size that is none",
      damage: (m) => m.set(UNET_CONFIG, { sample_size: "big" }),
      says: ['got "sample_size" "big", expected a whole number from 1'],
    },
  ]);
});

describe("what this engine does not compute is refused by name:", () => {
  refuses([
    {
      what: "an unknown block type",
      damage: (m) => m.set(UNET_CONFIG, { down_block_types: ["CrossAttnDownBlock2D", "AttnSkipDownBlock2D"] }),
      says: [`${UNET_CONFIG}: got "down_block_types" [`, "AttnSkipDownBlock2D", 'expected only "DownBlock2D" and'],
    },
    {
      what: "an unknown middle block",
      damage: (m) => m.set(UNET_CONFIG, { mid_block_type: "UNetMidBlock3D" }),
      says: ['got "mid_block_type" "UNetMidBlock3D"'],
    },
    {
      what: "class embeddings",
      damage: (m) => m.set(UNET_CONFIG, { class_embed_type: "timestep" }),
      says: ['got "class_embed_type" "timestep", expected null', "use a model that this engine can run"],
    },
    {
      what: "image embeddings",
      damage: (m) => m.set(UNET_CONFIG, { addition_embed_type: "image" }),
      says: ['got "addition_embed_type" "image", expected "text_time"'],
    },
    { what: "an activation", damage: (m) => m.set(UNET_CONFIG, { act_fn: "mish" }), says: ['got "act_fn" "mish"'] },
    {
      what: "a scheduler class",
      damage: (m) => m.set("model_index.json", { scheduler: ["diffusers", "DDPMScheduler"] }),
      code: "unsupported",
      says: ['model_index.json: got "scheduler" "DDPMScheduler", expected one of DDIMScheduler'],
    },
    {
      what: "a scheduler without class",
      damage: (m) => {
        m.set(SCHEDULER, { _class_name: undefined });
        m.set("model_index.json", { scheduler: undefined });
      },
      code: "unsupported",
      says: [`${SCHEDULER}: got "_class_name" "", expected one of DDIMScheduler`],
    },
    {
      what: "another VAE",
      damage: (m) => m.set("vae/config.json", { _class_name: "AutoencoderDC" }),
      says: ['vae/config.json: got "_class_name" "AutoencoderDC", expected "AutoencoderKL" or "AutoencoderTiny"'],
    },
    {
      what: "another text encoder",
      damage: (m) => m.set("model_index.json", { text_encoder: ["transformers", "T5EncoderModel"] }),
      says: ['model_index.json: got "text_encoder" [', "T5EncoderModel"],
    },
    {
      what: "a transformer in the UNet's place (SD3, Flux)",
      damage: (m) => {
        m.set("model_index.json", { unet: undefined, transformer: ["diffusers", "FluxTransformer2DModel"] });
        m.remove("unet");
      },
      says: ['model_index.json: got "transformer" [', "FluxTransformer2DModel", "a UNet model"],
    },
  ]);
});

describe("what nobody computes with refuses nothing:", () => {
  test("infinities that diffusers writes, null for metadata, and a tensor of a dtype that is not read", async () => {
    const picture = async (model: BrokenModel): Promise<Uint8ClampedArray> => {
      const pipeline = await load(model);
      const { data } = await pipeline.generate({ prompt: "red", seed: 1, width: 64, height: 64 });
      await pipeline.dispose();
      return data;
    };
    const model = new BrokenModel();
    const json = new TextDecoder().decode(model.read(SCHEDULER));
    model.write(SCHEDULER, json.replace("{", '{"lambda_min_clipped": -Infinity, "solver_order": NaN,'));
    const tensors = Array.from(
      parseSafetensors(model.read(UNET)),
      ([name, { bytes, ...tensor }]) => [name, { ...tensor, data: bytes }] as const,
    );
    const foreign = { dtype: "F8_E4M3", shape: [2], data: new Uint8Array(2) };
    model.write(UNET, writeSafetensors({ ...Object.fromEntries(tensors), scaled_fp8: foreign }));
    model.header(UNET, (header) => void Object.assign(header, { __metadata__: null }));
    expect(await picture(model)).toEqual(await picture(new BrokenModel()));
  });
});

describe("numbers that are none", () => {
  test.each([
    ["UNet", UNET, "conv_out.bias", 4, "The UNet's output holds NaN"],
    ["text encoder", TEXT, "final_layer_norm.bias", 32, "The text encoder's output holds NaN"],
    ["VAE", "vae/diffusion_pytorch_model.safetensors", "decoder.layers.0.bias", 16, "The picture holds"],
  ])("in the weights of the %s are reported by the stage where they show", async (_, file, name, size, says) => {
    const model = new BrokenModel();
    model.tensor(file, name, { dtype: "F16", shape: [size], data: new Uint16Array(size).fill(0x7e00) });
    const pipeline = await load(model);
    try {
      const error = await refusal(pipeline.generate({ prompt: "red", width: 64, height: 64 }));
      expectError(error, "invalid-output", says, "fp16", "fp32");
    } finally {
      await pipeline.dispose();
    }
  });

  test("infinite weights too", async () => {
    const model = new BrokenModel();
    model.tensor(UNET, "conv_out.bias", { dtype: "F16", shape: [4], data: new Uint16Array(4).fill(0x7c00) });
    const pipeline = await load(model, "fp32");
    const error = await refusal(pipeline.generate({ prompt: "red", width: 64, height: 64 }));
    await pipeline.dispose();
    expectError(error, "invalid-output", "Infinity", "fp32", "The weights are damaged");
  });

  test("weights beyond the range of halves are refused in fp16 by name, and welcome in fp32", async () => {
    const model = new BrokenModel();
    const name = "mid_block.resnets.0.conv1.weight";
    const data = halves(model.read(UNET), name);
    data[5] = 1e6;
    model.tensor(UNET, name, { dtype: "F32", shape: [24, 24, 3, 3], data });
    const error = await refusal(load(model));
    expectError(error, "invalid-model", `${name}: element 5 is 1000000`, "65504", "32-bit precision");
    const pipeline = await load(model, "fp32");
    const { data: pixels } = await pipeline.generate({ prompt: "red", width: 64, height: 64 });
    await pipeline.dispose();
    expect(pixels).toHaveLength(64 * 64 * 4);
  });
});
