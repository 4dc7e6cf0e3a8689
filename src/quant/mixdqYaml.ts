/** Bit-width files as the MixDQ authors publish them: flat YAML, `model.<module path>: bits`. */
import { parse } from "yaml";
import { MixdqError } from "../base/errors.ts";
import { isModulePath, MAX_LAYERS, type ConfigActBits, type ConfigWeightBits, type LayerBits } from "./config.ts";

/** A published file has 51 KB. */
const MAX_CHARACTERS = 2 ** 24;

/**
 * Bits per layer from a weight file and, where there is one, an activation file; scales come from calibration
 * (`attachRanges`). With an activation file, a layer that is missing from either is left out and so stays in 16-bit
 * float: that is how the authors' inference script protects the layers that the activation file does not name. Without
 * one, inputs are not quantized (weight-only). Throws `invalid-input`.
 */
export function importMixdqYaml(weightYaml: string, actYaml?: string): Map<string, LayerBits> {
  const weights = readBits<ConfigWeightBits>(weightYaml, "weight bits (YAML)", [2, 3, 4, 8, 16]);
  const acts = actYaml === undefined ? undefined : readBits<ConfigActBits>(actYaml, "act bits (YAML)", [4, 8, 16]);
  const layers = new Map<string, LayerBits>();
  for (const [path, weightBits] of weights) {
    const actBits = acts === undefined ? 16 : acts.get(path);
    if (actBits !== undefined && weightBits !== 16) layers.set(path, { weightBits, actBits });
  }
  return layers;
}

function readBits<Bits extends number>(text: string, where: string, allowed: readonly Bits[]): Map<string, Bits> {
  if (text.length > MAX_CHARACTERS) throw invalid(where, `${text.length} characters`, `at most ${MAX_CHARACTERS}`);
  let content: unknown;
  try {
    // Maps, not objects: a layer may be called anything. No aliases: a published file has none, a bomb has many.
    content = parse(text, { mapAsMap: true, maxAliasCount: 0, logLevel: "error" });
  } catch (error) {
    throw invalid(where, `no valid YAML (${(error as Error).message.split("\n")[0]})`, "lines of `layer: bits`");
  }
  if (!(content instanceof Map)) throw invalid(where, "something else", "lines of `layer: bits`");
  if (content.size > MAX_LAYERS) throw invalid(where, `${content.size} layers`, `at most ${MAX_LAYERS}`);
  const bits = new Map<string, Bits>();
  for (const [key, value] of content) {
    const path = String(key).replace(/^model\./, "");
    if (!isModulePath(path)) throw invalid(where, `the layer ${JSON.stringify(path.slice(0, 80))}`, "module paths");
    if (!allowed.includes(value as Bits))
      throw invalid(`${where}: ${path}`, JSON.stringify(value) ?? "nothing", allowed.join(", "));
    if (bits.has(path)) throw invalid(`${where}: ${path}`, "two entries", "one");
    bits.set(path, value as Bits);
  }
  return bits;
}

const invalid = (where: string, got: string, expected: string): MixdqError =>
  new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. Use a file published with MixDQ.`);
