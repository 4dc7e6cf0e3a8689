#!/usr/bin/env bash
# Hugging Face's tokenizers (Rust): a BPE model with byte_fallback hands out tokens in another order than the text has them.
#
# Guess: a character that is not in the vocabulary becomes its bytes' tokens (<0xC3> <0xA9>) where the vocabulary has all of
#   them, else the unknown token; either way the tokens come in the order of the text, and offsets tell which is which.
# Seen, with a vocabulary that has the bytes of "é" and none for "x" (one that was pruned, or made for one alphabet):
#     "xé" becomes <0xC3> <0xA9> <unk>. The unknown token is held back, so that a neighbour can be fused with it, and a
#       character that falls back to bytes does not end the waiting; the next character that is in the vocabulary does.
#     The offsets are handed out in the wrong order too: they say that <0xC3> is the "x".
#     With fuse_unk, the x and the y of "xéya" become one <unk>, which comes after the é that stands between them.
#   The JavaScript port, @huggingface/tokenizers, keeps the order: where both are at work (training in Python, inference in a
#   page) the same tokenizer.json gives a model two different inputs. With all 256 byte tokens nothing is unknown, and both
#   agree.
# Cost: where a comparison of the two finds a difference one looks for it in the port; here it is the reference that is off.
# Way out: keep all 256 byte tokens when a vocabulary is pruned.
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

const describe = (fuse_unk) => ({
  version: "1.0",
  truncation: null,
  padding: null,
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: {
    type: "BPE",
    dropout: null,
    unk_token: "<unk>",
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk,
    byte_fallback: true,
    ignore_merges: false,
    vocab: { "<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, a: 3, b: 4 },
    merges: [],
  },
});

let changed = 0;
for (const [text, fuse, rust, port] of [
  ["aé", false, "a[0,1] <0xC3>[1,2] <0xA9>[1,2]", "a <0xC3> <0xA9>"],
  ["axb", false, "a[0,1] <unk>[1,2] b[2,3]", "a <unk> b"],
  ["xé", false, "<0xC3>[0,1] <0xA9>[1,2] <unk>[1,2]", "<unk> <0xC3> <0xA9>"],
  ["xéa", false, "<0xC3>[0,1] <0xA9>[1,2] <unk>[1,2] a[2,3]", "<unk> <0xC3> <0xA9> a"],
  ["xya", true, "<unk>[0,2] a[2,3]", "<unk> a"],
  ["xéya", true, "<0xC3>[0,1] <0xA9>[1,2] <unk>[1,3] a[3,4]", "<unk> <0xC3> <0xA9> <unk> a"],
]) {
  const json = describe(fuse);
  const encoding = await Rust.fromString(JSON.stringify(json)).encode(text, null, { addSpecialTokens: false });
  const offsets = encoding.getOffsets();
  const ours = encoding.getTokens().map((token, i) => `${token}[${offsets[i]}]`).join(" ");
  const theirs = new Port(json, {}).encode(text, { add_special_tokens: false }).tokens.join(" ");
  const same = ours === rust && theirs === port;
  if (!same) changed++;
  console.log(`"${text}"${fuse ? ", fuse_unk" : ""}${same ? "" : "  CHANGED"}\n  Rust        ${ours}\n  JavaScript  ${theirs}`);
}
console.log(changed ? "\nThe behaviour has changed." : "\nAs described.");
process.exit(changed ? 1 : 0);
EOF
node show.mjs
