import { expect, test } from "vitest";
import { importMixdqYaml } from "./mixdqYaml.ts";

const WEIGHTS = `model.conv_in: 8
model.down_blocks.0.resnets.0.conv1: 2
model.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0: 4
`;

test("a weight file alone is weight-only, in the file's order and without its prefix", () => {
  expect([...importMixdqYaml(WEIGHTS)]).toEqual([
    ["conv_in", { weightBits: 8, actBits: 16 }],
    ["down_blocks.0.resnets.0.conv1", { weightBits: 2, actBits: 16 }],
    ["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", { weightBits: 4, actBits: 16 }],
  ]);
});

test("layers that the activation file does not name stay in float", () => {
  const acts =
    "model.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0: 4\nmodel.conv_in: 8\nmodel.other: 8\n";
  expect(Object.fromEntries(importMixdqYaml(WEIGHTS, acts))).toEqual({
    conv_in: { weightBits: 8, actBits: 8 },
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": { weightBits: 4, actBits: 4 },
  });
});

test("what is not such a file is refused", () => {
  const cases: [string, RegExp][] = [
    ["- 4\n- 8\n", /^weight bits \(YAML\): got something else, expected lines of `layer: bits`/],
    ["", /got nothing, expected lines of `layer: bits`/],
    ["3", /got something else/],
    ["model.a: [4", /^weight bits \(YAML\): got no valid YAML \(/],
    ["model.a: 4\nmodel.a: 8\n", /^weight bits \(YAML\): a: got two entries/],
    ["{a: 4, a: 8}", /^weight bits \(YAML\): a: got two entries/],
    ["model.a: 4\na: 8\n", /^weight bits \(YAML\): a: got two entries/],
    ["a b: 4\n", /^weight bits \(YAML\): got the layer "a b", expected module paths/],
    ["model.a: 5\n", /^weight bits \(YAML\): a: got 5, expected 2, 3, 4, 8, 16/],
    ["model.a: '4'\n", /a: got "4"/],
    ["model.a: {b: 4}\n", /a: got /],
    ["a: &x 4\nb: *x\n", /^weight bits \(YAML\): b: got nothing/],
    ["a: 4\n".repeat(2 ** 22), /characters, expected at most/],
  ];
  for (const [text, message] of cases)
    expect(() => importMixdqYaml(text), text.slice(0, 40)).toThrow(
      expect.objectContaining({ code: "invalid-input", message: expect.stringMatching(message) }),
    );
});

test("a file of SDXL's size is read at once", () => {
  const lines = Array.from({ length: 794 }, (_, i) => `model.up_blocks.0.resnets.${i}.conv1: ${[2, 4, 8][i % 3]}`);
  expect(importMixdqYaml(lines.join("\n")).size).toBe(794);
});
