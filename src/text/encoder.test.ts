import { expect, test } from "vitest";
import { Config } from "../base/config.ts";
import { buildTextEncoder } from "./encoder.ts";

const CLIP = { hidden_size: 32, intermediate_size: 64, num_attention_heads: 4, num_hidden_layers: 2, vocab_size: 600 };

const build = (change: object): (() => unknown) => {
  const config = new Config("text_encoder/config.json", { ...CLIP, projection_dim: 32, ...change });
  return () => buildTextEncoder(config, { batch: 1, state: "last", projects: true }, "f32");
};

test.each([
  { num_hidden_layers: 1e6 },
  { num_hidden_layers: 2 ** 53 },
  { hidden_size: 1e9 },
  { intermediate_size: 1e9 },
  { num_attention_heads: 1e9 },
  { max_position_embeddings: 1e9 },
  { vocab_size: 1e9 },
  { projection_dim: 1e9 },
  { layer_norm_eps: 0 },
  { layer_norm_eps: Infinity },
  { hidden_act: "toString" },
])("a text encoder with %j is refused by name, at once", (change) => {
  expect(build({})).not.toThrow();
  const [[key, value]] = Object.entries(change) as [[string, unknown]];
  const shown = typeof value === "string" ? `"${value}"` : value;
  expect(build(change)).toThrow(`text_encoder/config.json: got "${key}" ${shown}, expected `);
});
