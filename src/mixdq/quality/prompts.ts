/** Lists of prompts: plain ones, a line each, and a judge's, which say what must be in the picture. */
import { MixdqError } from "../../base/errors.ts";
import { readJson } from "../../base/json.ts";
import { printable, show } from "../../base/printable.ts";
import type { Attributes } from "./alignment.ts";
import type { JudgedAttribute } from "./judge.ts";

export interface Prompt {
  readonly prompt: string;
  /** What the prompt states; undefined where nobody said. */
  readonly attributes: Attributes | undefined;
}

export const MAX_PROMPTS = 100_000;
/** Characters. CLIP reads 77 tokens, which is about 400. */
const MAX_PROMPT_LENGTH = 10_000;
/** Of a line with attributes. */
const MAX_LINE = 2 ** 20;
const LINE = '{"prompt": "...", "attributes": {...}}';
const ADVICE = "Correct the file.";

/** One prompt a line; empty lines are passed over. `where` is the file, for messages. Throws `invalid-input`. */
export function readPromptLines(text: string, where: string): Prompt[] {
  const lines = linesOf(text, where);
  return lines.map(({ line, at }) => ({ prompt: checkedPrompt(line.trim(), at), attributes: undefined }));
}

/**
 * One JSON object a line: {"prompt": "...", "attributes": {"time": "sunset", ...}}, the attributes and their values in
 * the judge's words, at least one a prompt. Throws `invalid-input`.
 */
export function readJudgedPrompts(text: string, known: readonly JudgedAttribute[], where: string): Prompt[] {
  const valuesOf = new Map(known.map(({ name, values }) => [name, values]));
  return linesOf(text, where).map(({ line, at }) => {
    const json = readJson(line, { where: at, code: "invalid-input", advice: ADVICE }, { most: MAX_LINE, what: LINE });
    const checked = checkedPrompt(json.get("prompt").string("a text"), at);
    const attributes = json.get("attributes");
    const stated: [string, string][] = attributes.entries("attributes", 1, valuesOf.size).map(([name, value]) => {
      const values = valuesOf.get(name);
      if (!values)
        throw attributes.inside(show(name), `one of judge.json's: ${printable([...valuesOf.keys()].join(", "))}`);
      if (!values.includes(value.value as string)) value.fail(`one of judge.json's: ${printable(values.join(", "))}`);
      return [name, value.value as string];
    });
    return { prompt: checked, attributes: Object.fromEntries(stated) };
  });
}

/** The lines that hold something, with their place for messages. */
function linesOf(text: string, where: string): { line: string; at: string }[] {
  const lines = text
    .replace(/^\ufeff/, "")
    .split(/\r?\n/)
    .map((line, i) => ({ line, at: `${where}, line ${i + 1}` }))
    .filter(({ line }) => line.trim() !== "");
  if (lines.length === 0) throw invalid(where, "no prompts", "one a line");
  if (lines.length > MAX_PROMPTS) throw invalid(where, `${lines.length} prompts`, `at most ${MAX_PROMPTS}`);
  return lines;
}

function checkedPrompt(prompt: string, at: string): string {
  if (prompt === "") throw invalid(at, `"prompt" ""`, "a text");
  if (prompt.length > MAX_PROMPT_LENGTH)
    throw invalid(at, `a prompt of ${prompt.length} characters`, `at most ${MAX_PROMPT_LENGTH}`);
  return prompt;
}

function invalid(where: string, got: string, expected: string): MixdqError {
  return new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. ${ADVICE}`);
}
