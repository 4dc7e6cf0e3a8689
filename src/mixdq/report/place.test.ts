import { expect, test } from "vitest";
import { makeRandom, shuffle } from "../allocation/random.ts";
import { inNetworkOrder, placeOf } from "./place.ts";

test("a module path says where its layer is", () => {
  expect(placeOf("conv_in")).toEqual({ block: "conv_in", unit: "", type: "conv_in" });
  expect(placeOf("time_embedding.linear_1")).toEqual({
    block: "time_embedding",
    unit: "",
    type: "time_embedding.linear_1",
  });
  expect(placeOf("down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_out.0")).toEqual({
    block: "down_blocks.1",
    unit: "attentions.0.transformer_blocks.1",
    type: "attn1.to_out",
  });
  expect(placeOf("up_blocks.0.attentions.2.transformer_blocks.9.ff.net.0.proj").type).toBe("ff.net.0.proj");
  expect(placeOf("mid_block.attentions.0.proj_in")).toEqual({
    block: "mid_block",
    unit: "attentions.0",
    type: "proj_in",
  });
  expect(placeOf("mid_block.resnets.1.time_emb_proj").unit).toBe("resnets.1");
  expect(placeOf("down_blocks.0.downsamplers.0.conv").type).toBe("downsamplers.conv");
  expect(placeOf("something.else")).toEqual({ block: "something", unit: "", type: "something.else" });
});

test("layers are put in the order in which the network runs them", () => {
  const expected = [
    "conv_in",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "add_embedding.linear_1",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.resnets.0.conv2",
    "down_blocks.0.resnets.1.conv1",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv1",
    "down_blocks.1.resnets.0.conv_shortcut",
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.2.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.2.attn2.to_out.0",
    "down_blocks.1.attentions.0.transformer_blocks.2.ff.net.2",
    "down_blocks.1.attentions.0.transformer_blocks.10.attn1.to_q",
    "down_blocks.1.attentions.0.proj_out",
    "down_blocks.1.resnets.1.conv1",
    "down_blocks.10.resnets.0.conv1",
    "mid_block.attentions.0.proj_in",
    "mid_block.resnets.1.conv1",
    "up_blocks.0.resnets.0.conv1",
    "up_blocks.0.upsamplers.0.conv",
    "conv_out",
  ];
  for (let seed = 0; seed < 5; seed++) expect(inNetworkOrder(shuffle(expected, makeRandom(seed)))).toEqual(expected);
});
