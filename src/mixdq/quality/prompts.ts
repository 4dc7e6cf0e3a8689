/** Lists of prompts: plain ones, a line each, and a judge's, which say what must be in the picture. */
import { MixdqError } from "../../base/errors.ts";
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
    const { prompt, attributes } = parsed(line, at);
    const checked = checkedPrompt(prompt, at);
    const isStated = typeof attributes === "object" && attributes !== null && !Array.isArray(attributes);
    const stated = isStated ? Object.entries(attributes) : [];
    if (stated.length === 0)
      throw invalid(at, `"attributes" ${JSON.stringify(attributes) ?? "missing"}`, "what the prompt states");
    for (const [name, value] of stated) {
      const values = valuesOf.get(name);
      if (!values)
        throw invalid(at, `the attribute "${name}"`, `one of judge.json's: ${[...valuesOf.keys()].join(", ")}`);
      if (!values.includes(value as string))
        throw invalid(at, `${JSON.stringify(value)} for "${name}"`, `one of judge.json's: ${values.join(", ")}`);
    }
    return { prompt: checked, attributes: attributes as Attributes };
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

function parsed(line: string, at: string): { prompt?: unknown; attributes?: unknown } {
  try {
    return (JSON.parse(line) as object | null) ?? {};
  } catch (error) {
    throw invalid(at, `what is not JSON (${(error as Error).message})`, '{"prompt": "...", "attributes": {...}}');
  }
}

function checkedPrompt(prompt: unknown, at: string): string {
  if (typeof prompt !== "string" || prompt === "")
    throw invalid(at, `"prompt" ${JSON.stringify(prompt) ?? "missing"}`, "a text");
  if (prompt.length > MAX_PROMPT_LENGTH)
    throw invalid(at, `a prompt of ${prompt.length} characters`, `at most ${MAX_PROMPT_LENGTH}`);
  return prompt;
}

function invalid(where: string, got: string, expected: string): MixdqError {
  return new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. Correct the file.`);
}
