#!/usr/bin/env bash
# @huggingface/tokenizers, the JavaScript port, takes settings of a tokenizer.json, ignores them and gives other ids.
#
# Guess: the port reads the same tokenizer.json as the Rust library does; a component that it lacks throws ("Unknown Normalizer
#   type"), so one that loads means the same. Its documentation lists components, and goes into the finest differences of the
#   two regular expression engines.
# Seen, all silently:
#     an added token's `single_word: true` is read and never used: the token is found within words;
#     a Split's `behavior` is read only where it is Removed: MergedWithPrevious and MergedWithNext give the pieces of Isolated;
#     Isolated with `invert: true` drops all text that does not match (in Rust it only isolates the rest instead);
#     Lowercase lowers a whole string by JavaScript's rules, by which a capital sigma at the end of a word becomes the final
#       form; Rust's lowers one character at a time, and the model was trained on that.
#   None of these shows with CLIP's own file and English text; learned tokens (textual inversion) may bring the first.
# Cost: ids that differ from training's are no error anywhere, only a worse picture; found by fuzzing against the Rust library.
# Way out: check the file for these settings when it is loaded; map the sigma first (both forms lower to one in Rust).
#
# About 80 MB of packages. Other versions: RUST=x.y.z JS=x.y.z. Exit: 0 as described, 1 changed, 2 it could not be tried.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
npm install --prefix "$tmp" --ignore-scripts --no-audit --no-fund --loglevel=error \
  "tokenizers@${RUST:-0.23.2}" "@huggingface/tokenizers@${JS:-0.2.0}" > /dev/null || exit 2

cat > show.mjs << 'EOF'
import { readFileSync } from "node:fs";
import { Tokenizer as Port } from "@huggingface/tokenizers";
import { Tokenizer as Rust } from "tokenizers";

// What fails here is not the behaviour that is looked at.
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(2);
});
for (const name of ["tokenizers", "@huggingface/tokenizers"])
  console.log(name, JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version);
console.log();

const letters = ["<unk>", ..." abcdksαςσ"];
const describe = ({ added_tokens = [], normalizer = null, pre_tokenizer = null }) => ({
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens,
  normalizer,
  pre_tokenizer,
  post_processor: null,
  decoder: null,
  model: {
    type: "BPE",
    dropout: null,
    unk_token: "<unk>",
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    vocab: Object.fromEntries([...letters, "ab", "bc"].map((token, id) => [token, id])),
    merges: [
      ["a", "b"],
      ["b", "c"],
    ],
  },
});
const added = { id: 100, content: "sks", lstrip: false, rstrip: false, normalized: false, special: false };
const split = (behavior, invert) => ({ pre_tokenizer: { type: "Split", pattern: { Regex: "b" }, behavior, invert } });

let changed = 0;
for (const [name, parts, text, rust, port] of [
  ["an added token sks", { added_tokens: [{ ...added, single_word: false }] }, "asksa sks", "a|sks|a| |sks", "a|sks|a| |sks"],
  ["the same, single_word", { added_tokens: [{ ...added, single_word: true }] }, "asksa sks", "a|s|k|s|a| |sks", "a|sks|a| |sks"],
  ["Split at b, Isolated", split("Isolated", false), "abcab", "a|b|c|a|b", "a|b|c|a|b"],
  ["Split at b, MergedWithPrevious", split("MergedWithPrevious", false), "abcab", "ab|c|ab", "a|b|c|a|b"],
  ["Split at b, MergedWithNext", split("MergedWithNext", false), "abcab", "a|bc|a|b", "a|b|c|a|b"],
  ["Split at b, Isolated, invert", split("Isolated", true), "abcab", "a|b|c|a|b", "b|b"],
  ["Split at b, Removed, invert", split("Removed", true), "abcab", "b|b", "b|b"],
  ["Lowercase", { normalizer: { type: "Lowercase" } }, "ΣΑΣ", "σ|α|σ", "σ|α|ς"],
]) {
  const json = describe(parts);
  const encoding = await Rust.fromString(JSON.stringify(json)).encode(text, null, { addSpecialTokens: false });
  const ours = encoding.getTokens().join("|");
  const theirs = new Port(json, {}).encode(text, { add_special_tokens: false }).tokens.join("|");
  const same = ours === rust && theirs === port;
  if (!same) changed++;
  console.log(`${name.padEnd(31)} ${text.padEnd(10)} Rust ${ours.padEnd(16)} JavaScript ${theirs}${same ? "" : "  CHANGED"}`);
}
console.log(changed ? "\nThe behaviour has changed." : "\nAs described.");
process.exit(changed ? 1 : 0);
EOF
node show.mjs
