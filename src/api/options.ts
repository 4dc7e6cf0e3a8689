/**
 * The options of the public functions, checked by name and by type before anything is done with them: a misspelt option
 * that is ignored in silence gives a picture that nobody asked for. What a number may be depends on the model, and is
 * checked where that is known (model/request.ts).
 */
import { BACKENDS, PRECISIONS } from "../base/choices.ts";
import { MixdqError, invalidInput } from "../base/errors.ts";
import { show } from "../base/printable.ts";
import { nearest, plain } from "../base/nearest.ts";
import { SEED_TEXT } from "../base/seed.ts";
import type { EngineOptions, GenerateOptions } from "../base/types.ts";
import type { SupportOptions } from "./support.ts";

/** What an option may be, and how that is said. */
export interface OptionType {
  readonly expected: string;
  accepts(value: unknown): boolean;
  readonly isRequired?: boolean;
}

export const TEXT: OptionType = { expected: "a text", accepts: (value) => typeof value === "string" };
export const YES_OR_NO: OptionType = { expected: "true or false", accepts: (value) => typeof value === "boolean" };
const NUMBER: OptionType = { expected: "a number", accepts: (value) => typeof value === "number" };
const MILLISECONDS: OptionType = {
  expected: "milliseconds greater than 0",
  accepts: (value) => typeof value === "number" && value > 0,
};
/** Which ones, base/seed.ts says. */
const SEED: OptionType = {
  expected: "a whole number, as a number, a bigint or its digits",
  accepts: (value) =>
    typeof value === "number" || typeof value === "bigint" || (typeof value === "string" && SEED_TEXT.test(value)),
};
const NUMBERS: OptionType = {
  expected: "a list of numbers",
  accepts: (value) => Array.isArray(value) && value.every((item) => typeof item === "number"),
};
const CALLBACK: OptionType = { expected: "a function", accepts: (value) => typeof value === "function" };
/** Also one of another window's or a library's. */
const SIGNAL: OptionType = {
  expected: "an AbortSignal",
  accepts: (value) => typeof value === "object" && value !== null && "aborted" in value && "addEventListener" in value,
};
const MODEL: OptionType = {
  expected:
    'the URL of a diffusers folder or of a pack, for example "models/postcard" or "https://host/name/resolve/main"',
  accepts: (value) => typeof value === "string" && value.trim() !== "",
};
const oneOf = (choices: readonly string[]): OptionType => ({
  expected: `one of ${choices.join(", ")}`,
  accepts: (value) => choices.includes(value as string),
});
const required = (type: OptionType): OptionType => ({ ...type, isRequired: true });

export type OptionTypes<T> = Readonly<Record<keyof T, OptionType>>;

export const ENGINE_OPTIONS: OptionTypes<EngineOptions> = {
  model: required(MODEL),
  precision: oneOf(PRECISIONS),
  config: TEXT,
  backend: oneOf(BACKENDS),
  onProgress: CALLBACK,
  signal: SIGNAL,
  stallMs: MILLISECONDS,
  worker: YES_OR_NO,
  workerUrl: TEXT,
  ortUrl: TEXT,
  debug: NUMBER,
};

export const GENERATE_OPTIONS: OptionTypes<GenerateOptions> = {
  prompt: required(TEXT),
  negativePrompt: TEXT,
  seed: SEED,
  numInferenceSteps: NUMBER,
  timesteps: NUMBERS,
  scheduler: TEXT,
  eta: NUMBER,
  guidanceScale: NUMBER,
  guidanceRescale: NUMBER,
  width: NUMBER,
  height: NUMBER,
  signal: SIGNAL,
  onStep: CALLBACK,
};

export const SUPPORT_OPTIONS: OptionTypes<SupportOptions> = {
  model: TEXT,
  backend: oneOf(BACKENDS),
  precision: oneOf(PRECISIONS),
  stallMs: MILLISECONDS,
  signal: SIGNAL,
};

/** Other libraries' words for ours (diffusers, transformers.js, web UIs), without case and separators. */
const SYNONYMS: Readonly<Record<string, readonly string[]>> = {
  model: ["modelId", "modelUrl", "url", "checkpoint", "repo", "pretrainedModelNameOrPath"],
  precision: ["dtype", "torchDtype", "quantization", "bits"],
  config: ["bitWidths", "mixdq", "quantizationConfig"],
  backend: ["device", "provider", "executionProvider"],
  onProgress: ["progressCallback", "progress", "callback"],
  signal: ["abortSignal", "abort", "controller", "abortController"],
  stallMs: ["timeout", "timeoutMs", "stallTimeout"],
  worker: ["useWorker"],
  debug: ["verbose", "logLevel"],
  prompt: ["text", "input"],
  negativePrompt: ["negative"],
  seed: ["generator", "randomSeed", "manualSeed"],
  numInferenceSteps: ["steps", "numSteps", "inferenceSteps", "samplingSteps", "numDenoisingSteps"],
  guidanceScale: ["guidance", "cfg", "cfgScale", "scale"],
  width: ["w"],
  height: ["h"],
  onStep: ["callbackOnStepEnd", "stepCallback", "callback", "onProgress"],
};

/** The known name that an unknown one most likely stands for. */
export function rightName<T extends string>(name: string, known: readonly T[]): T | undefined {
  const asked = plain(name);
  const isSynonym = (word: string): boolean => plain(word) === asked;
  return known.find((each) => SYNONYMS[each]?.some(isSynonym)) ?? nearest(name, known);
}

/** What is wrong with the options, if anything: `where` names the function for the message. */
export function findOptionMistake<T>(where: string, options: unknown, types: OptionTypes<T>): MixdqError | undefined {
  const known = Object.keys(types);
  if (typeof options !== "object" || options === null || Array.isArray(options))
    return invalidInput(`${where}: got ${shown(options)}, expected an object with ${known.join(", ")}.`);
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(types, name)) continue;
    const meant = rightName(name, known);
    const advice = meant === undefined ? `expected ${known.join(", ")}.` : `did you mean ${meant}?`;
    return invalidInput(`${where}: got an unknown option ${shown(name)}, ${advice}`);
  }
  for (const [name, type] of Object.entries<OptionType>(types)) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined && !type.isRequired) continue;
    if (!type.accepts(value)) return invalidInput(`${where}: ${name} is ${shown(value)}, expected ${type.expected}.`);
  }
  return undefined;
}

/** Throws `invalid-input` for an unknown option, a missing one, and a value of the wrong type. */
export function checkOptions<T>(where: string, options: unknown, types: OptionTypes<T>): asserts options is T {
  const mistake = findOptionMistake(where, options, types);
  if (mistake) throw mistake;
}

/**
 * An error about an option ("width: got 100, expected …"), in the words of a place where the option has another name: a flag
 * of the command line, an attribute of the element.
 */
export function renamed(error: unknown, names: Readonly<Record<string, string>>): unknown {
  if (!(error instanceof MixdqError) || error.code !== "invalid-input") return error;
  const [found, name] = /^(?:\w+: )?(\w+)(?=: got | is )/.exec(error.message) ?? [];
  if (found === undefined || name === undefined || !Object.hasOwn(names, name)) return error;
  const message = names[name] + error.message.slice(found.length);
  return new MixdqError(error.code, message, { cause: error });
}

/** A function's text says nothing about it. */
function shown(value: unknown): string {
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint") return `${value}n`;
  return value === undefined ? "undefined" : show(value);
}
