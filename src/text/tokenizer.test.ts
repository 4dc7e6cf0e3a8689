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
  ["a list for a config", { ...PARTS, config: "[]" }, "t/tokenizer_config.json: got [], expected a JSON object"],
])("%s is refused by name", (_what, files, message) => {
  expect(() => createTokenizer(files, "t")).toThrow(message);
  expect(() => createTokenizer(files, "t")).toThrow(expect.objectContaining({ code: "invalid-model" }));
});

test.each(["constructor", "toString", "__proto__", "hasOwnProperty"])(
  "%s as an added token has no id but its own",
  (name) => {
    const withTokens = (tokens: readonly object[]) =>
      createTokenizer({ ...PARTS, config: JSON.stringify({ added_tokens_decoder: { ...tokens } }) }, "t");
    const largest = createTokenizer(PARTS, "t").largestId;
    const nameless = withTokens([{ content: name }]);
    expect(nameless.largestId).toBe(largest);
    expect(nameless.encode(`red ${name}`).ids.every((id) => Number.isInteger(id) && id >= 0 && id <= largest)).toBe(
      true,
    );
  },
);

test.each([-1, 0.5, "7", 1e9])("an added token with the id %j is refused", (id) => {
  const vocab = JSON.parse(PARTS.vocab) as Record<string, number>;
  const [merges] = [PARTS.merges.split("\n").slice(1).filter(Boolean)];
  const tokenizerJson = JSON.stringify({
    added_tokens: [{ id, content: "<x>" }],
    model: { type: "BPE", end_of_word_suffix: "</w>", vocab, merges },
  });
  expect(() => createTokenizer({ tokenizerJson }, "t")).toThrow(/^t.*<?id>?.*expected a whole number from 0 to 999999/);
});

test("a tokenizer of another family is unsupported", () => {
  const tokenizerJson = JSON.stringify({ model: { type: "Unigram", vocab: [] } });
  expect(() => createTokenizer({ tokenizerJson }, "t")).toThrow(expect.objectContaining({ code: "unsupported" }));
});
