/**
 * The judge of a model's pictures: a small network that reads a scene's attributes from a picture, beside the model
 * whose scenes it knows. This file reads what lies in its folder; reader.ts shows it pictures.
 *
 *     judge.json               what its numbers mean, and how often it is right
 *     judge.onnx               pixels [N, 3, size, size] in 0..1 -> logits [N, L], features [N, F]
 *     statistics.safetensors   mean [F] and covariance [F, F] of the features of true pictures it was not trained on
 *     prompts.jsonl            fixed prompts, one a line, with the attributes that each states
 */
import { MixdqError } from "../../base/errors.ts";
import { isObject, show } from "../../base/json.ts";
import { readFloats } from "../../weights/convert.ts";
import { parseSafetensors } from "../../weights/safetensors.ts";
import type { Gaussian } from "./frechet.ts";

/** One thing the judge tells apart; its classes' logits follow those of the attribute before. */
export interface JudgedAttribute {
  readonly name: string;
  readonly values: readonly string[];
}

export interface JudgeDescription {
  /** Pixels along each side of what it looks at. */
  readonly size: number;
  readonly attributes: readonly JudgedAttribute[];
  /** Length of a feature vector. */
  readonly features: number;
  /** Share 0..1 of true pictures read rightly: by attribute, and their mean. */
  readonly accuracy: Readonly<Record<string, number>>;
  /** Pictures that the accuracy was measured on. */
  readonly heldOut: number;
}

export const JUDGE_FILES = {
  description: "judge.json",
  network: "judge.onnx",
  statistics: "statistics.safetensors",
  prompts: "prompts.jsonl",
} as const;

/** Pixels a side: twice what a picture of this family has. */
const MAX_SIZE = 2048;
/** The eigenvalues of a covariance this wide take a minute. */
const MAX_FEATURES = 1024;
const MAX_ATTRIBUTES = 256;
const MAX_VALUES = 1024;

/** judge.json, checked. `where` is the file, for messages. Throws `invalid-model`. */
export function readDescription(text: string, where: string): JudgeDescription {
  const json = parseJson(text, where);
  if (!isObject(json) || json["format"] !== "mixdq-judge" || json["version"] !== 1)
    throw broken(where, `format ${show(pick(json, "format"))}, version ${show(pick(json, "version"))}`, FORMAT);
  const { size, attributes, features, accuracy, heldOut } = json;
  if (!isCount(size, MAX_SIZE)) throw broken(where, `"size" ${show(size)}`, `pixels from 1 to ${MAX_SIZE}`);
  if (!isCount(features, MAX_FEATURES))
    throw broken(where, `"features" ${show(features)}`, `a whole number from 1 to ${MAX_FEATURES}`);
  if (!isCount(heldOut, Number.MAX_SAFE_INTEGER))
    throw broken(where, `"heldOut" ${show(heldOut)}`, "the number of pictures that the accuracy was measured on");
  if (!Array.isArray(attributes) || attributes.length < 1 || attributes.length > MAX_ATTRIBUTES)
    throw broken(where, `"attributes" ${show(attributes)}`, `a list of 1 to ${MAX_ATTRIBUTES} attributes`);
  const read = attributes.map((attribute: unknown) => readAttribute(attribute, where));
  const names = read.map(({ name }) => name);
  if (new Set(names).size < names.length) throw broken(where, `the attributes ${names.join(", ")}`, "each name once");
  if (!isObject(accuracy) || !Object.values(accuracy).every(isShare) || !("mean" in accuracy))
    throw broken(where, `"accuracy" ${show(accuracy)}`, '"mean" and one share from 0 to 1 for each attribute');
  return { size, attributes: read, features, accuracy: accuracy as Record<string, number>, heldOut };
}

const FORMAT = 'format "mixdq-judge", version 1';

function readAttribute(attribute: unknown, where: string): JudgedAttribute {
  const [name, values] = [pick(attribute, "name"), pick(attribute, "values")];
  const isList = Array.isArray(values) && values.length >= 2 && values.length <= MAX_VALUES;
  if (typeof name !== "string" || name === "" || !isList || !values.every((value) => typeof value === "string"))
    throw broken(where, `the attribute ${show(attribute)}`, `a name and 2 to ${MAX_VALUES} values, all texts`);
  if (new Set(values).size < values.length) throw broken(where, `the values of ${name} ${show(values)}`, "each once");
  return { name, values };
}

/** statistics.safetensors, checked. Throws `invalid-model`, `integrity`. */
export function readStatistics(bytes: Uint8Array, features: number, where: string): Gaussian {
  const tensors = parseSafetensors(bytes, where);
  const take = (name: string, shape: readonly number[]): Float64Array => {
    const tensor = tensors.get(name);
    const expected = `"${name}" [${shape.join(", ")}], as judge.json's ${features} features have it`;
    if (!tensor) throw broken(where, `the tensors ${[...tensors.keys()].join(", ") || "none"}`, expected);
    if (tensor.shape.join() !== shape.join()) throw broken(where, `"${name}" [${tensor.shape.join(", ")}]`, expected);
    const values = Float64Array.from(readFloats(tensor, `${where}: ${name}`));
    const at = values.findIndex((value) => !Number.isFinite(value));
    if (at >= 0) throw broken(where, `${values[at]} at ${at} of "${name}"`, "finite numbers");
    return values;
  };
  const statistics = { mean: take("mean", [features]), covariance: take("covariance", [features, features]) };
  assertSymmetric(statistics.covariance, features, where);
  return statistics;
}

function assertSymmetric(covariance: Float64Array, size: number, where: string): void {
  const largest = covariance.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let i = 0; i < size; i++)
    for (let j = 0; j < i; j++) {
      const [lower, upper] = [covariance[i * size + j]!, covariance[j * size + i]!];
      if (Math.abs(lower - upper) > 1e-4 * largest)
        throw broken(where, `a covariance with ${lower} at [${i}, ${j}] and ${upper} at [${j}, ${i}]`, "equal ones");
    }
}

/** The judge's folder is one thing: no file of it can be repaired alone. */
function broken(where: string, got: string, expected: string): MixdqError {
  return new MixdqError(
    "invalid-model",
    `${where}: got ${got}, expected ${expected}. Take all files of the judge from one model, or make them again.`,
  );
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw broken(where, `what is not JSON (${(error as Error).message})`, FORMAT);
  }
}

function pick(value: unknown, key: string): unknown {
  return isObject(value) ? value[key] : undefined;
}

function isCount(value: unknown, most: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= most;
}

function isShare(value: unknown): boolean {
  return typeof value === "number" && value >= 0 && value <= 1;
}
