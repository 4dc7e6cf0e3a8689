/**
 * What a diffusers folder says about its CLIP tokenizer, in any of the forms in which transformers has saved it: one
 * tokenizer.json, or vocab.json and merges.txt; special tokens as strings or as objects, in tokenizer_config.json or in
 * special_tokens_map.json.
 */
import { MixdqError } from "../base/errors.ts";
import { isObject } from "../base/json.ts";

/** The texts of the files that are there; tokenizer.json is preferred, else vocab and merges are needed. */
export interface TokenizerFiles {
  readonly tokenizerJson?: string | undefined;
  /** vocab.json */
  readonly vocab?: string | undefined;
  /** merges.txt */
  readonly merges?: string | undefined;
  /** tokenizer_config.json */
  readonly config?: string | undefined;
  /** special_tokens_map.json */
  readonly specialTokensMap?: string | undefined;
}

export interface ClipTokenizerParts {
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly (readonly [string, string])[];
  /** Found in the text before it is split; each is in the form of tokenizer.json's `added_tokens`. */
  readonly addedTokens: readonly AddedToken[];
  readonly roles: Readonly<Record<Role, string>>;
  /** Ids per prompt. */
  readonly length: number;
}

type Role = "bos" | "eos" | "unk" | "pad";

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  /** Matched in the normalised text (so in any case) rather than in the text as typed. */
  readonly normalized: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly single_word: boolean;
}

/** CLIP's, where the files leave them out. */
const DEFAULT_ROLES: Readonly<Record<Role, string>> = {
  bos: "<|startoftext|>",
  eos: "<|endoftext|>",
  unk: "<|endoftext|>",
  pad: "<|endoftext|>",
};
const DEFAULT_LENGTH = 77;
/** transformers writes 10^30 where it does not know; no CLIP comes near this. */
const MAX_LENGTH = 10_000;
/** CLIP has 49,408 tokens. */
const MAX_VOCABULARY = 1_000_000;

/** Throws `invalid-model` for files that are missing or malformed, `unsupported` for a tokenizer that is not CLIP's. */
export function readTokenizerFiles(files: TokenizerFiles, where: string): ClipTokenizerParts {
  const config = parseObject(files.config ?? "{}", `${where}/tokenizer_config.json`);
  const map = parseObject(files.specialTokensMap ?? "{}", `${where}/special_tokens_map.json`);
  const { vocab, merges, addedTokens } = readModel(files, where);

  // A token that plays several roles takes the flags of the last, as in transformers; lists of added tokens overrule.
  const added = new Map<string, Omit<AddedToken, "id">>();
  const roles = { ...DEFAULT_ROLES };
  for (const role of ["bos", "eos", "unk", "pad"] as const) {
    const value = config[`${role}_token`] ?? map[`${role}_token`] ?? DEFAULT_ROLES[role];
    const token = readToken(value, `${where}: ${role}_token`);
    roles[role] = token.content;
    added.set(token.content, token);
  }
  const decoder = isObject(config["added_tokens_decoder"]) ? Object.values(config["added_tokens_decoder"]) : [];
  const ids: Record<string, number> = {};
  for (const value of [...decoder, ...addedTokens]) {
    const token = readToken(value, `${where}: added tokens`);
    added.set(token.content, token);
    if (isObject(value) && Number.isSafeInteger(value["id"])) ids[token.content] = value["id"] as number;
  }
  return {
    vocab,
    merges,
    roles,
    length: readLength(config["model_max_length"]),
    addedTokens: [...added.values()].flatMap((token) => {
      const id = Object.hasOwn(vocab, token.content) ? vocab[token.content] : ids[token.content];
      return id === undefined ? [] : [{ ...token, id }];
    }),
  };
}

function readLength(value: unknown): number {
  return Number.isInteger(value) && (value as number) > 2 && (value as number) <= MAX_LENGTH
    ? (value as number)
    : DEFAULT_LENGTH;
}

type Model = Pick<ClipTokenizerParts, "vocab" | "merges"> & { readonly addedTokens: readonly unknown[] };

function readModel(files: TokenizerFiles, where: string): Model {
  if (files.tokenizerJson !== undefined) {
    const path = `${where}/tokenizer.json`;
    const json = parseObject(files.tokenizerJson, path);
    const model = isObject(json["model"]) ? json["model"] : {};
    // Older files leave the type out.
    if ((model["type"] ?? "BPE") !== "BPE" || model["end_of_word_suffix"] !== "</w>") {
      const got = `a ${JSON.stringify(model["type"])} with suffix ${JSON.stringify(model["end_of_word_suffix"])}`;
      const message = `${path}: got ${got}, expected CLIP's BPE with </w>. Only CLIP text encoders are supported.`;
      throw new MixdqError("unsupported", message);
    }
    const { merges, vocab } = model;
    if (!Array.isArray(merges)) throw malformed(path, "no merges", "an array of pairs");
    const pairs = merges.map((merge) => readPair(typeof merge === "string" ? merge.split(" ") : merge, path));
    const addedTokens = Array.isArray(json["added_tokens"]) ? json["added_tokens"] : [];
    return { vocab: readVocab(vocab, path), merges: pairs, addedTokens };
  }
  if (files.vocab === undefined || files.merges === undefined) {
    const message = `${where}: no tokenizer; looked for tokenizer.json, or vocab.json and merges.txt. Check the model.`;
    throw new MixdqError("invalid-model", message);
  }
  const lines = files.merges
    .split(/\r?\n/)
    .filter((line, i) => line !== "" && !(i === 0 && line.startsWith("#version")));
  const merges = lines.map((line) => readPair(line.split(" "), `${where}/merges.txt`));
  const path = `${where}/vocab.json`;
  return { vocab: readVocab(parseObject(files.vocab, path), path), merges, addedTokens: [] };
}

function readVocab(value: unknown, where: string): Record<string, number> {
  const ids = isObject(value) ? Object.values(value) : [];
  const isValid = ids.every((id) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < MAX_VOCABULARY);
  if (ids.length === 0 || !isValid) throw malformed(where, "a vocabulary that is not one", "token to id");
  return value as Record<string, number>;
}

function readPair(value: unknown, where: string): readonly [string, string] {
  if (Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "string")) {
    return [value[0], value[1]];
  }
  throw malformed(where, `the merge ${JSON.stringify(value)}`, "two parts");
}

/** A special token as a string (then matched as typed) or with its flags. */
function readToken(value: unknown, where: string): Omit<AddedToken, "id"> {
  const flags = isObject(value) ? value : {};
  const content = typeof value === "string" ? value : flags["content"];
  if (typeof content !== "string" || content === "") throw malformed(where, JSON.stringify(value), "a token's text");
  return {
    content,
    special: true,
    normalized: flags["normalized"] === true,
    lstrip: flags["lstrip"] === true,
    rstrip: flags["rstrip"] === true,
    single_word: flags["single_word"] === true,
  };
}

function parseObject(text: string, where: string): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (cause) {
    throw malformed(where, `something that is not JSON (${String(cause)})`, "a JSON object");
  }
  if (!isObject(parsed)) throw malformed(where, JSON.stringify(parsed), "a JSON object");
  return parsed;
}

function malformed(where: string, got: string, expected: string): MixdqError {
  return new MixdqError("invalid-model", `${where}: got ${got}, expected ${expected}. Save the tokenizer again.`);
}
