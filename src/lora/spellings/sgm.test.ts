import { expect, test } from "vitest";
import { Config } from "../../base/config.ts";
import { buildUNet, readUNetConfig } from "../../diffusion/unet.ts";
import { sgmNames } from "./sgm.ts";

const LEVELS = { down: "CrossAttnDownBlock2D", up: "CrossAttnUpBlock2D" };
const SDXL = {
  block_out_channels: [320, 640, 1280],
  down_block_types: ["DownBlock2D", LEVELS.down, LEVELS.down],
  up_block_types: [LEVELS.up, LEVELS.up, "UpBlock2D"],
  transformer_layers_per_block: [1, 2, 10],
  attention_head_dim: [5, 10, 20],
  cross_attention_dim: 2048,
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  projection_class_embeddings_input_dim: 2816,
};
const SD15 = {
  block_out_channels: [320, 640, 1280, 1280],
  down_block_types: [LEVELS.down, LEVELS.down, LEVELS.down, "DownBlock2D"],
  up_block_types: ["UpBlock2D", LEVELS.up, LEVELS.up, LEVELS.up],
  cross_attention_dim: 768,
};

function modules(config: object): string[] {
  const unet = readUNetConfig(new Config("unet/config.json", { _class_name: "UNet2DConditionModel", ...config }));
  const { weights } = buildUNet(unet, { batch: 1, height: 64, width: 64, tokens: 77 }, "unet", "f32");
  return [...new Set(weights.map(({ name }) => name.replace(/\.(weight|bias)$/, "")))];
}

/** As diffusers' convert_ldm_unet_checkpoint maps the keys of the published checkpoints. */
const KNOWN = {
  SDXL: {
    config: SDXL,
    names: {
      "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k": "input_blocks.4.1.transformer_blocks.1.attn2.to_k",
      "down_blocks.2.resnets.1.conv_shortcut": undefined,
      "down_blocks.2.resnets.0.conv_shortcut": "input_blocks.7.0.skip_connection",
      "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
      "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
      "up_blocks.0.attentions.2.proj_out": "output_blocks.2.1.proj_out",
      "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
      "up_blocks.2.resnets.2.conv1": "output_blocks.8.0.in_layers.2",
      "add_embedding.linear_2": "label_emb.0.2",
    },
  },
  "SD 1.5": {
    config: SD15,
    names: {
      conv_in: "input_blocks.0.0",
      "down_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj":
        "input_blocks.2.1.transformer_blocks.0.ff.net.0.proj",
      "down_blocks.3.resnets.1.conv2": "input_blocks.11.0.out_layers.3",
      "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
      "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
      "up_blocks.3.attentions.2.transformer_blocks.0.attn1.to_out.0":
        "output_blocks.11.1.transformer_blocks.0.attn1.to_out.0",
      conv_out: "out.2",
    },
  },
};

test.each(Object.entries(KNOWN))("every module of %s has its name in the original code", (_, { config, names }) => {
  const paths = modules(config);
  const found = sgmNames(paths);
  expect(paths.filter((path) => !found.has(path))).toEqual([]);
  expect(new Set(found.values()).size).toBe(paths.length);
  for (const [path, name] of Object.entries(names)) expect(found.get(path), path).toBe(name);
});
