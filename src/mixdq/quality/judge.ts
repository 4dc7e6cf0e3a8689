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
import { readJson, type Json } from "../../base/json.ts";
import { printable, show } from "../../base/printable.ts";
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
const MAX_CHARACTERS = 2 ** 22;
const ADVICE = "Take all files of the judge from one model, or make them again.";

/** judge.json, checked. `where` is the file, for messages. Throws `invalid-model`. */
export function readDescription(text: string, where: string): JudgeDescription {
  const source = { where, code: "invalid-model", advice: ADVICE } as const;
  const json = readJson(text, source, { most: MAX_CHARACTERS, what: "a judge.json", uniqueKeys: true });
  json.get("format").oneOf(["mixdq-judge"]);
  json.get("version").oneOf([1]);
  const attributes = json.get("attributes");
  const read = attributes.items(1, MAX_ATTRIBUTES).map(readAttribute);
  const names = read.map(({ name }) => name);
  if (new Set(names).size < names.length) throw attributes.inside(show(names), "each name once");
  const accuracy = json.get("accuracy");
  accuracy.get("mean").number(0, 1);
  return {
    size: json.get("size").integer(1, MAX_SIZE),
    attributes: read,
    features: json.get("features").integer(1, MAX_FEATURES),
    accuracy: Object.fromEntries(
      accuracy.entries("shares", 1, MAX_ATTRIBUTES + 1).map(([name, share]) => [name, share.number(0, 1)]),
    ),
    heldOut: json.get("heldOut").integer(1, Number.MAX_SAFE_INTEGER),
  };
}

function readAttribute(json: Json): JudgedAttribute {
  const name = json.get("name").matching(/^./s, "a name");
  const list = json.get("values");
  const values = list.items(2, MAX_VALUES).map((value) => value.string());
  if (new Set(values).size < values.length) throw list.inside(show(values), "each once");
  return { name, values };
}

/** statistics.safetensors, checked. Throws `invalid-model`, `integrity`. */
export function readStatistics(bytes: Uint8Array, features: number, where: string): Gaussian {
  const tensors = parseSafetensors(bytes, where);
  const take = (name: string, shape: readonly number[]): Float64Array => {
    const tensor = tensors.get(name);
    const expected = `"${name}" [${shape.join(", ")}], as judge.json's ${features} features have it`;
    if (!tensor) throw broken(where, `the tensors ${printable([...tensors.keys()].join(", ")) || "none"}`, expected);
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
      const [lower, upper] = [covariance[i * size + j], covariance[j * size + i]];
      if (Math.abs(lower - upper) > 1e-4 * largest)
        throw broken(where, `a covariance with ${lower} at [${i}, ${j}] and ${upper} at [${j}, ${i}]`, "equal ones");
    }
}

/** The judge's folder is one thing: no file of it can be repaired alone. */
function broken(where: string, got: string, expected: string): MixdqError {
  return new MixdqError("invalid-model", `${where}: got ${got}, expected ${expected}. ${ADVICE}`);
}
