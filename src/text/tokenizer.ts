/**
 * CLIP's tokenizer: a prompt to the 77 ids that the text encoders read. The one place that knows the tokenizers
 * package, which does the splitting and merging; padding, truncation and the special tokens of diffusers folders old
 * and new (transformers 4 and 5 write them differently) are ours. Agrees with transformers' CLIPTokenizer.
 */
import { Tokenizer as BpeTokenizer } from "@huggingface/tokenizers";
import { MixdqError } from "../base/errors.ts";
import { show } from "../base/printable.ts";
import { readTokenizerFiles } from "./tokenizerFiles.ts";
import type { ClipTokenizerParts, TokenizerFiles } from "./tokenizerFiles.ts";

export type { TokenizerFiles } from "./tokenizerFiles.ts";

export interface EncodedPrompt {
  /** [length]: start token, the prompt's tokens, end token, padding. */
  readonly ids: Int32Array;
  /** Where the pooled embedding is taken: the first end token. */
  readonly eosIndex: number;
  /** Tokens of the prompt that are in `ids`, the start and end tokens not counted. */
  readonly tokenCount: number;
  /** The end of the prompt that did not fit, as text (in lower case, as the model would have read it). */
  readonly truncated?: string;
}

export interface Tokenizer {
  /** Ids per prompt, 77 for every CLIP. */
  readonly length: number;
  readonly bosId: number;
  readonly eosId: number;
  readonly padId: number;
  /** The largest id that `encode` can give. */
  readonly largestId: number;
  encode(prompt: string): EncodedPrompt;
}

/** CLIP's own split: contractions, runs of letters, single digits, runs of everything else but white space. */
const CLIP_PATTERN = String.raw`<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`;
/** The split that a ByteLevel step makes on its own, spelled out. */
const BYTE_LEVEL_PATTERN = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/**
 * The tokenizer of the texts of a folder's files; `where` is the folder, for messages. Throws `invalid-model` for files
 * that are missing or malformed, `unsupported` for a tokenizer that is not CLIP's.
 */
export function createTokenizer(files: TokenizerFiles, where: string): Tokenizer {
  const parts = readTokenizerFiles(files, where);
  const { length } = parts;
  const bpe = new BpeTokenizer(makeClipJson(parts), {});
  const idOf = (role: "bos" | "eos" | "pad") => {
    const id = bpe.token_to_id(parts.roles[role]);
    if (id !== undefined) return id;
    const got = `${role} token ${show(parts.roles[role])}`;
    const message = `${where}: got a ${got}, expected one of the vocabulary. Save the tokenizer again.`;
    throw new MixdqError("invalid-model", message);
  };
  const [bosId, eosId, padId] = [idOf("bos"), idOf("eos"), idOf("pad")];
  const idsOf = (text: string): number[] => bpe.encode(text, { add_special_tokens: false }).ids;
  const expand = makeExpansion(parts, idsOf);

  return {
    length,
    bosId,
    eosId,
    padId,
    largestId: [...Object.values(parts.vocab), ...parts.addedTokens.map(({ id }) => id)].reduce((a, b) =>
      Math.max(a, b),
    ),
    encode(prompt) {
      // JS lowers a capital sigma at the end of a word to the final form, the reference never does.
      const tokens = idsOf(expand(prompt.replaceAll("Σ", "σ")));
      const kept = tokens.slice(0, length - 2);
      const ids = new Int32Array(length).fill(padId);
      ids.set([bosId, ...kept, eosId]);
      const encoded = { ids, eosIndex: ids.indexOf(eosId), tokenCount: kept.length };
      if (kept.length === tokens.length) return encoded;
      return { ...encoded, truncated: bpe.decode(tokens.slice(kept.length)).trim() };
    },
  };
}

/**
 * A learned concept of several vectors is a token `<x>` and others `<x>_1`, `<x>_2`, ...: a prompt names the first, and all
 * of them are read, as diffusers' maybe_convert_prompt writes them out (loaders/textual_inversion.py).
 */
function makeExpansion(
  { addedTokens }: ClipTokenizerParts,
  idsOf: (text: string) => number[],
): (prompt: string) => string {
  const known = new Set(addedTokens.map(({ content }) => content));
  const written = new Map<number, { readonly content: string; readonly all: string }>();
  for (const { id, content } of addedTokens) {
    const all = [content];
    while (known.has(`${content}_${all.length}`)) all.push(`${content}_${all.length}`);
    if (all.length > 1) written.set(id, { content, all: all.join(" ") });
  }
  if (written.size === 0) return (prompt) => prompt;
  return (prompt) => {
    let text = prompt;
    for (const id of new Set(idsOf(prompt))) {
      const token = written.get(id);
      if (token) text = text.replaceAll(token.content, () => token.all);
    }
    return text;
  };
}

/**
 * What transformers' CLIPTokenizer builds from a vocabulary and merges. One difference in form: the ByteLevel step's
 * split is its own step, because in the package that one split takes U+FEFF for white space and U+0085 for none.
 */
function makeClipJson({ vocab, merges, addedTokens, roles }: ClipTokenizerParts): object {
  return {
    version: "1.0",
    added_tokens: addedTokens,
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "NFC" },
        { type: "Replace", pattern: { Regex: String.raw`\s+` }, content: " " },
        { type: "Lowercase" },
      ],
    },
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Split", pattern: { Regex: CLIP_PATTERN }, behavior: "Removed", invert: true },
        { type: "Split", pattern: { Regex: BYTE_LEVEL_PATTERN }, behavior: "Removed", invert: true },
        { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: "BPE", unk_token: roles.unk, end_of_word_suffix: "</w>", vocab, merges },
  };
}
