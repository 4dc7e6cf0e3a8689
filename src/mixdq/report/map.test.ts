import { expect, test } from "vitest";
import { unetMap } from "./map.ts";

const LAYER = { weightBits: 4, actBits: 8, note: "" };
const captionsOf = (svg: string): string[] =>
  [...svg.matchAll(/class="unit" x="([\d.]+)" y="\d+">([^<]*)</g)].map(([, x, text]) => `${text} ${x}`);

/** proj_in, transformer blocks and proj_out of one transformer, then a resnet. */
function mapOf(blocks: number): string {
  const paths = Array.from({ length: blocks }, (_, i) => `attentions.0.transformer_blocks.${i}.attn1.to_q`);
  const all = ["resnets.0.conv1", "attentions.0.proj_in", ...paths, "attentions.0.proj_out", "resnets.1.conv1"];
  return unetMap(new Map(all.map((path) => [`mid_block.${path}`, LAYER])));
}

test("captions are as long as their columns have room for", () => {
  expect(captionsOf(mapOf(10))).toEqual(["r0 0", "attention 0 20", "r1 194"]);
  expect(captionsOf(mapOf(1))).toEqual(["r0 0", "attn 0 20", "r1 68"]);
  const narrow = ["attentions.0.proj_in", "resnets.10.conv1", "upsamplers.0.conv"];
  const svg = unetMap(new Map(narrow.map((path) => [`up_blocks.0.${path}`, LAYER])));
  expect(captionsOf(svg)).toEqual(["a0 0", "r10 20", "up 40"]);
});

test("a map is wide enough for captions that are wider than their columns", () => {
  const svg = unetMap(new Map([["down_blocks.0.downsamplers.0.conv", LAYER]]));
  const [, width] = /viewBox="-2 0 (\d+)/.exec(svg)!;
  expect(Number(width)).toBeGreaterThan("down_blocks.0".length * 7);
});
