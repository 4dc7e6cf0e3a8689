import { expect, test } from "vitest";
import golden from "./golden/tokenizer.json" with { type: "json" };
import { createTokenizer } from "./tokenizer.ts";

/** Built as CLIP's vocabulary is; see the golden file's generator. */
const TOKENS = [
  ...golden.bytes,
  ...[...golden.bytes].map((byte) => `${byte}</w>`),
  ...golden.merges.map((merge) => merge.join("")),
  "<|startoftext|>",
  "<|endoftext|>",
];
const VOCAB = Object.fromEntries(TOKENS.map((token, id) => [token, id]));
const MERGES_TXT = ["#version: 0.2", ...golden.merges.map((merge) => merge.join(" ")), ""].join("\n");
const PARTS = { vocab: JSON.stringify(VOCAB), merges: MERGES_TXT };
const model = { type: "BPE", end_of_word_suffix: "</w>", vocab: VOCAB };

const LAYOUTS = {
  "vocab.json and merges.txt": PARTS,
  "tokenizer.json with merges as pairs": {
    tokenizerJson: JSON.stringify({ model: { ...model, merges: golden.merges } }),
  },
  "tokenizer.json with merges as strings": {
    tokenizerJson: JSON.stringify({ model: { ...model, merges: golden.merges.map((merge) => merge.join(" ")) } }),
  },
};

for (const [layout, files] of Object.entries(LAYOUTS)) {
  test.each(Object.keys(golden.configs))(`from ${layout}, with special tokens as %s, ids are transformers'`, (name) => {
    const config = golden.configs[name as keyof typeof golden.configs];
    const tokenizer = createTokenizer({ ...files, config: JSON.stringify(config) }, "tokenizer");
    golden.prompts.forEach((prompt, i) => {
      const expected = golden.ids[name as keyof typeof golden.ids][i];
      const padding = Array(77 - expected.length).fill(expected[expected.length - 1]);
      expect([...tokenizer.encode(prompt).ids], JSON.stringify(prompt)).toEqual([...expected, ...padding]);
    });
  });
}

test("special tokens may stand in special_tokens_map.json instead", () => {
  const { model_max_length: _, ...map } = golden.configs.exclamation;
  const tokenizer = createTokenizer({ ...PARTS, specialTokensMap: JSON.stringify(map) }, "tokenizer");
  golden.prompts.forEach((prompt, i) => {
    const { ids } = tokenizer.encode(prompt);
    expect([...ids.subarray(0, golden.ids.exclamation[i].length)]).toEqual(golden.ids.exclamation[i]);
  });
});

test.each(Object.keys(golden.learned.files))(
  "learned tokens from %s have their ids, and all vectors are read",
  (name) => {
    const { added_tokens: added, ...more } = golden.learned.files[name as keyof typeof golden.learned.files] as {
      added_tokens?: Record<string, number>;
    };
    const config = JSON.stringify({ ...golden.configs.strings, ...more });
    const tokenizer = createTokenizer({ ...PARTS, config, addedTokens: added && JSON.stringify(added) }, "t");
    golden.learned.prompts.forEach((prompt, i) => {
      const expected = golden.learned.ids[name as keyof typeof golden.learned.ids][i];
      expect([...tokenizer.encode(prompt).ids].slice(0, expected.length), prompt).toEqual(expected);
    });
    expect(tokenizer.largestId).toBe(TOKENS.length + 4);
  },
);

test("what does not fit is cut before the end token, and reported", () => {
  const tokenizer = createTokenizer(PARTS, "tokenizer");
  const words = Array.from({ length: 80 }, (_, i) => (i % 2 ? "the" : "RED"));
  const { ids, eosIndex, tokenCount, truncated } = tokenizer.encode(words.join(" "));
  expect(tokenCount).toBe(75);
  expect(eosIndex).toBe(76);
  expect(ids[76]).toBe(tokenizer.eosId);
  expect(truncated).toBe("the red the red the");
});

test("a prompt that just fits is not truncated", () => {
  const { tokenCount, eosIndex, truncated } = createTokenizer(PARTS, "t").encode("the ".repeat(75));
  expect([tokenCount, eosIndex, truncated]).toEqual([75, 76, undefined]);
});

test("the end token's place is the first one, also where the padding is another token", () => {
  for (const config of [golden.configs.strings, golden.configs.exclamation]) {
    const tokenizer = createTokenizer({ ...PARTS, config: JSON.stringify(config) }, "t");
    expect(tokenizer.encode("red house").eosIndex).toBe(3);
    expect(tokenizer.encode("").eosIndex).toBe(1);
  }
});

test("the length comes from model_max_length, and is 77 where that says nothing", () => {
  const lengthOf = (length: unknown) =>
    createTokenizer({ ...PARTS, config: JSON.stringify({ model_max_length: length }) }, "t").length;
  expect(lengthOf(24)).toBe(24);
  expect(lengthOf(1e30)).toBe(77);
  expect(lengthOf(undefined)).toBe(77);
});

test.each([
  ["nothing", {}, "t: no tokenizer; looked for tokenizer.json, or vocab.json and merges.txt"],
  ["no merges", { vocab: PARTS.vocab }, "t: no tokenizer"],
  ["a page instead of a file", { ...PARTS, vocab: "<html>" }, "t/vocab.json: got something that is not JSON"],
  ["an empty vocabulary", { ...PARTS, vocab: "{}" }, "t/vocab.json: got 0 tokens, expected 1"],
  ["a vocabulary of words", { ...PARTS, vocab: '{"a":"b"}' }, 't/vocab.json: got "a" "b", expected a whole number'],
  ["a merge of three", { ...PARTS, merges: "a b c" }, 't/merges.txt: got the merge "a b c"'],
  ["an unknown token", { ...PARTS, config: '{"bos_token":"<s>"}' }, 't: got a bos token "<s>"'],
  [
    "a token that is none",
    { ...PARTS, config: '{"pad_token":5}' },
    't/tokenizer_config.json: got "pad_token" 5, expected a token',
  ],
  [
    "an added token whose id is no number",
    { ...PARTS, addedTokens: '{"<x>":"7"}' },
    't/added_tokens.json: got "<x>" "7", expected a whole number from 0',
  ],
  [
    "an added token with a negative id",
    { ...PARTS, config: '{"added_tokens_decoder":{"-1":{"content":"<x>"}}}' },
    't/tokenizer_config.json: added_tokens_decoder: got "-1" {"content":"<x>"}, expected a key',
  ],
  ["a list for a config", { ...PARTS, config: "[]" }, "t/tokenizer_config.json: got [], expected a JSON object"],
])("%s is refused by name", (_what, files, message) => {
  expect(() => createTokenizer(files, "t")).toThrow(message);
  expect(() => createTokenizer(files, "t")).toThrow(expect.objectContaining({ code: "invalid-model" }));
});

test("a tokenizer of another family is unsupported", () => {
  const tokenizerJson = JSON.stringify({ model: { type: "Unigram", vocab: [] } });
  expect(() => createTokenizer({ tokenizerJson }, "t")).toThrow(expect.objectContaining({ code: "unsupported" }));
});
