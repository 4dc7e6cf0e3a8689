import { expect, test } from "vitest";
import { isAdapterTensor } from "./adapters.ts";

test.each([
  "conv_in.base_layer.weight",
  "conv_in.lora_A.style.weight",
  "mid_block.attentions.0.proj_in.lora_B.default_0.weight",
  "text_model.encoder.layers.0.self_attn.q_proj.base_layer.bias",
  "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
  "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.lora_layer.up.weight",
  "mid_block.resnets.0.conv1.lora_magnitude_vector.default.weight",
  "mid_block.resnets.0.conv1.hada_w1_a",
  "mid_block.resnets.0.conv1.lokr_w2",
])("%s is of an adapter", (name) => expect(isAdapterTensor(name)).toBe(true));

test.each([
  "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
  "text_model.embeddings.token_embedding.weight",
  "explora_A.weight",
])("%s is none", (name) => expect(isAdapterTensor(name)).toBe(false));
