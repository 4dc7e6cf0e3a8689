/** Bit-width files as the MixDQ authors publish them: flat YAML, `model.<module path>: bits`. */
import { isMap, isScalar, parseDocument } from "yaml";
import { MixdqError } from "../base/errors.ts";
import { printable, show } from "../base/printable.ts";
import { isModulePath, MAX_LAYERS, type ConfigActBits, type ConfigWeightBits, type LayerBits } from "./config.ts";

/** A published file has 51 KB, 794 lines of the form below. */
const MAX_CHARACTERS = 2 ** 23;
/** Of YAML in any other form, of which the library reads a megabyte in 3 to 6 seconds; a published file in flow style fits. */
const MAX_OTHER_CHARACTERS = 2 ** 16;
const FLAT_LINE = /^([\w.-]+) *: +([1-9][0-9]?) *(?:#.*)?$/;
const EMPTY_LINE = /^\s*(?:#.*)?$/;

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
  const bits = new Map<string, Bits>();
  for (const [key, value] of readFlat(text) ?? readAnyYaml(text, where)) {
    const path = String(key).replace(/^model\./, "");
    if (!isModulePath(path)) throw invalid(where, `the layer ${show(path)}`, "module paths");
    const here = `${where}: ${printable(path)}`;
    if (!allowed.includes(value as Bits)) throw invalid(here, show(value), allowed.join(", "));
    if (bits.has(path)) throw invalid(here, "two entries", "one");
    bits.set(path, value as Bits);
    if (bits.size > MAX_LAYERS) throw invalid(where, `more than ${MAX_LAYERS} layers`, "fewer");
  }
  if (bits.size === 0) throw invalid(where, "nothing", LINES);
  return bits;
}

/** Keys and values line by line; undefined where a line has another form. Linear in the text. */
function readFlat(text: string): [string, number][] | undefined {
  const entries: [string, number][] = [];
  for (const line of text.split(/\r?\n/)) {
    if (EMPTY_LINE.test(line)) continue;
    const [, key, value] = FLAT_LINE.exec(line) ?? [];
    if (key === undefined) return undefined;
    entries.push([key, Number(value)]);
  }
  return entries;
}

/** The same of any mapping that YAML can write, within a size in which that is quick. Values may be anything. */
function readAnyYaml(text: string, where: string): [unknown, unknown][] {
  if (text.length > MAX_OTHER_CHARACTERS) {
    const got = `${text.length} characters that are not only ${LINES}`;
    throw invalid(where, got, `such lines alone, or at most ${MAX_OTHER_CHARACTERS} characters`);
  }
  let yaml: ReturnType<typeof parseDocument>;
  try {
    // Whether keys are unique is asked above: the library compares each with all before it.
    yaml = parseDocument(text, { uniqueKeys: false, prettyErrors: false, logLevel: "error" });
  } catch (cause) {
    throw invalid(where, `no valid YAML (${printable(String(cause))})`, LINES);
  }
  const [error] = yaml.errors;
  if (error) throw invalid(where, `no valid YAML (${printable(error.message.split("\n")[0])})`, LINES);
  if (!isMap(yaml.contents)) throw invalid(where, "something else", LINES);
  // An alias is no scalar: a published file has none, a bomb has many.
  const plain = (node: unknown): unknown => (isScalar(node) ? node.value : undefined);
  return yaml.contents.items.map(({ key, value }) => [plain(key), plain(value)]);
}

const LINES = "lines of `layer: bits`";

const invalid = (where: string, got: string, expected: string): MixdqError =>
  new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected}. Use a file published with MixDQ.`);
