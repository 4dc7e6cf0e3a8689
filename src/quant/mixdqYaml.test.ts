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

test("a layer more than there may be is refused, and so is much YAML of another form, before it is read", () => {
  const lines = (count: number): string => Array.from({ length: count }, (_, i) => `model.l${i}: 8`).join("\n");
  expect(importMixdqYaml(lines(20_000)).size).toBe(20_000);
  expect(() => importMixdqYaml(lines(100_001))).toThrow("got more than 100000 layers");
  const flow = `{${lines(20_000).replaceAll("\n", ", ")}}`;
  expect(() => importMixdqYaml(flow)).toThrow(/got \d+ characters that are not only lines of `layer: bits`/);
  expect(importMixdqYaml(flow.slice(0, 1000).replace(/,[^,]*$/, "}")).size).toBeGreaterThan(50);
});

test("YAML of any form is read", () => {
  const bits = [["a", { weightBits: 4, actBits: 16 }]];
  for (const yaml of [
    "model.a: 4",
    '"model.a": 4 # bits',
    "{model.a: 4}",
    "---\nmodel.a:   4\n...\n",
    "# x\r\na: 4\r\n",
  ])
    expect([...importMixdqYaml(yaml)], yaml).toEqual(bits);
});

test("layers may be called anything that a module path may", () => {
  expect([...importMixdqYaml("__proto__: 4\nconstructor: 8").keys()]).toEqual(["__proto__", "constructor"]);
});

test("a file of SDXL's size is read at once", () => {
  const lines = Array.from({ length: 794 }, (_, i) => `model.up_blocks.0.resnets.${i}.conv1: ${[2, 4, 8][i % 3]}`);
  expect(importMixdqYaml(lines.join("\n")).size).toBe(794);
});
