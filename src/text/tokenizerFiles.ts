/**
 * What a diffusers folder says about its CLIP tokenizer, in any of the forms in which transformers has saved it: one
 * tokenizer.json, or vocab.json and merges.txt; special tokens as strings or as objects, in tokenizer_config.json or in
 * special_tokens_map.json.
 */
import { MixdqError } from "../base/errors.ts";
import { isObject, Json, readJson, type JsonSource } from "../base/json.ts";
import { show } from "../base/printable.ts";

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
  /** added_tokens.json, which transformers before 4.34 wrote */
  readonly addedTokens?: string | undefined;
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
/** SDXL's tokenizer.json has 3.6 MB. */
const MAX_CHARACTERS = 64 * 2 ** 20;

/** Throws `invalid-model` for files that are missing or malformed, `unsupported` for a tokenizer that is not CLIP's. */
export function readTokenizerFiles(files: TokenizerFiles, where: string): ClipTokenizerParts {
  const config = parseObject(files.config ?? "{}", `${where}/tokenizer_config.json`);
  const map = parseObject(files.specialTokensMap ?? "{}", `${where}/special_tokens_map.json`);
  const { vocab, merges, addedTokens } = readModel(files, where);

  // A token that plays several roles takes the flags of the last, as in transformers; lists of added tokens overrule.
  const added = new Map<string, Omit<AddedToken, "id">>();
  const roles = { ...DEFAULT_ROLES };
  for (const role of ["bos", "eos", "unk", "pad"] as const) {
    const [own, shared] = [config.get(`${role}_token`), map.get(`${role}_token`)];
    const token = readToken(own.isMissing ? shared.or(DEFAULT_ROLES[role]) : own);
    roles[role] = token.content;
    added.set(token.content, token);
  }
  const decoder = config.get("added_tokens_decoder");
  const listed = decoder.isMissing
    ? readAddedTokensFile(files.addedTokens, specialTokens(config, map, roles), where)
    : decoder
        .entries("tokens", 0, MAX_VOCABULARY)
        .map(([id, json]) => ({ token: readToken(json), id: idOf(id, json) }));
  const inJson = addedTokens.map((json) => {
    const id = typeof json.value === "string" ? undefined : json.get("id");
    return { token: readToken(json), id: id && !id.isMissing ? readId(id) : undefined };
  });
  const ids = new Map<string, number>();
  for (const { token, id } of [...listed, ...inJson]) {
    added.set(token.content, token);
    if (id !== undefined) ids.set(token.content, id);
  }
  return {
    vocab,
    merges,
    roles,
    length: readLength(config.get("model_max_length").value),
    addedTokens: [...added.values()].flatMap((token) => {
      const id = Object.hasOwn(vocab, token.content) ? vocab[token.content] : ids.get(token.content);
      return id === undefined ? [] : [{ ...token, id }];
    }),
  };
}

/** Tokens that have a role, or are said to be special: matched as typed. */
function specialTokens(config: Json, map: Json, roles: Readonly<Record<Role, string>>): ReadonlySet<string> {
  const lists = ["additional_special_tokens", "extra_special_tokens"].flatMap((key) => {
    const { value } = config.get(key).or(map.get(key).value);
    return Array.isArray(value) ? (value as unknown[]) : [];
  });
  const extra = lists.map((token) => (isObject(token) ? token["content"] : token));
  return new Set([...Object.values(roles), ...extra.filter((token) => typeof token === "string")]);
}

/** added_tokens.json is token to id; tokens that are not special are matched in the normalised text. */
function readAddedTokensFile(text: string | undefined, special: ReadonlySet<string>, where: string) {
  return parseObject(text ?? "{}", `${where}/added_tokens.json`)
    .entries("tokens", 0, MAX_VOCABULARY)
    .map(([content, id]) => {
      if (content === "") throw id.error("no text", "a token");
      const flags = { special: true, normalized: !special.has(content) };
      return { token: { content, ...flags, lstrip: false, rstrip: false, single_word: false }, id: readId(id) };
    });
}

/** The id that is a key of added_tokens_decoder. */
const idOf = (key: string, token: Json): number =>
  /^\d{1,7}$/.test(key) && Number(key) < MAX_VOCABULARY
    ? Number(key)
    : token.fail(`a key that is a token's id, from 0 to ${MAX_VOCABULARY - 1}`);

function readLength(value: unknown): number {
  return Number.isInteger(value) && (value as number) > 2 && (value as number) <= MAX_LENGTH
    ? (value as number)
    : DEFAULT_LENGTH;
}

type Model = Pick<ClipTokenizerParts, "vocab" | "merges"> & { readonly addedTokens: readonly Json[] };

function readModel(files: TokenizerFiles, where: string): Model {
  if (files.tokenizerJson !== undefined) {
    const json = parseObject(files.tokenizerJson, `${where}/tokenizer.json`);
    const model = json.get("model").or({});
    const [type, suffix] = [model.get("type").or("BPE").value, model.get("end_of_word_suffix").value];
    // Older files leave the type out.
    if (type !== "BPE" || suffix !== "</w>") {
      const message =
        `${where}/tokenizer.json: got a ${show(type)} with suffix ${show(suffix)}, expected CLIP's BPE with </w>. ` +
        "Only CLIP text encoders are supported.";
      throw new MixdqError("unsupported", message);
    }
    const merges = model
      .get("merges")
      .items(0, MAX_VOCABULARY)
      .map((merge) => (typeof merge.value === "string" ? readMergeLine(merge.value, merge) : readPair(merge)));
    const addedTokens = json.get("added_tokens").or([]).items(0, MAX_VOCABULARY);
    return { vocab: readVocab(model.get("vocab")), merges, addedTokens };
  }
  if (files.vocab === undefined || files.merges === undefined) {
    const message = `${where}: no tokenizer; looked for tokenizer.json, or vocab.json and merges.txt. Check the model.`;
    throw new MixdqError("invalid-model", message);
  }
  const place = new Json(undefined, sourceOf(`${where}/merges.txt`));
  if (files.merges.length > MAX_CHARACTERS)
    throw place.error(`${files.merges.length} characters`, `at most ${MAX_CHARACTERS}`);
  const lines = files.merges
    .split(/\r?\n/)
    .filter((line, i) => line !== "" && !(i === 0 && line.startsWith("#version")));
  if (lines.length > MAX_VOCABULARY) throw place.error(`${lines.length} merges`, `at most ${MAX_VOCABULARY}`);
  const merges = lines.map((line) => readMergeLine(line, place));
  return { vocab: readVocab(parseObject(files.vocab, `${where}/vocab.json`)), merges, addedTokens: [] };
}

function readVocab(json: Json): Readonly<Record<string, number>> {
  for (const [, id] of json.entries("tokens", 1, MAX_VOCABULARY)) readId(id);
  return json.value as Readonly<Record<string, number>>;
}

/** Whether a text encoder has the token is for whoever knows both (`checkVocabulary`). */
const readId = (json: Json): number => json.integer(0, MAX_VOCABULARY - 1);

function readMergeLine(line: string, place: Json): readonly [string, string] {
  const parts = line.split(" ");
  if (parts.length !== 2) throw place.error(`the merge ${show(line)}`, "two parts with a space between them");
  return [parts[0], parts[1]];
}

function readPair(json: Json): readonly [string, string] {
  const [left, right] = json.items(2, 2).map((part) => part.string());
  return [left!, right!];
}

/** A special token as a string (then matched as typed) or with its flags. */
function readToken(json: Json): Omit<AddedToken, "id"> {
  const isText = typeof json.value === "string";
  if (!isText && !isObject(json.value)) json.fail("a token's text");
  const flag = (key: string): boolean => !isText && json.get(key).value === true;
  return {
    content: (isText ? json : json.get("content")).matching(/^./su, "a token's text"),
    special: true,
    normalized: flag("normalized"),
    lstrip: flag("lstrip"),
    rstrip: flag("rstrip"),
    single_word: flag("single_word"),
  };
}

const sourceOf = (where: string): JsonSource => ({
  where,
  code: "invalid-model",
  advice: "Save the tokenizer again.",
});

function parseObject(text: string, where: string): Json {
  const json = readJson(text, sourceOf(where), { most: MAX_CHARACTERS, what: "a JSON object" });
  json.object();
  return json;
}
