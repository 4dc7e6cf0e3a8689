/**
 * What stands beside an adapter's tensors: PEFT's settings, in the metadata of a file that diffusers saved or in the
 * adapter_config.json of a folder of PEFT's.
 */
import { readJson, type Json } from "../base/json.ts";
import type { Component } from "./spellings/spelling.ts";

/** How a layer's low-rank product is scaled. */
export interface Scaling {
  /** The alpha of a layer; undefined where nothing says one. */
  alphaOf(path: string): number | undefined;
  /** Of layers without a rank (LoKr with whole matrices). */
  readonly rank: number | undefined;
  /** rsLoRA (arXiv 2312.03732): alpha is divided by the rank's square root. */
  readonly isRankStabilized: boolean;
}

/** diffusers' name of the metadata entry. */
const METADATA_KEY = "lora_adapter_metadata";
const MAX_CHARACTERS = 2 ** 24;
const MAX_PATTERNS = 100_000;
const KNOWN_TYPES = ["LORA", "LOHA", "LOKR"] as const;

/** By component; from the metadata of a file. Throws `invalid-model`. */
export function scalingOfMetadata(
  metadata: ReadonlyMap<string, string>,
  where: string,
): (component: Component) => Scaling | undefined {
  const text = metadata.get(METADATA_KEY);
  if (text === undefined) return () => undefined;
  const json = read(text, `${where}: ${METADATA_KEY}`);
  return (component) => {
    const keys = Object.keys(json.object()).filter((key) => key.startsWith(`${component}.`));
    if (keys.length === 0) return undefined;
    return scalingOf((key) => json.get(`${component}.${key}`));
  };
}

/** From the text of adapter_config.json. Throws `invalid-model`. */
export function scalingOfConfig(text: string, where: string): Scaling {
  const json = read(text, where);
  json.get("peft_type").or("LORA").oneOf(KNOWN_TYPES);
  json.get("fan_in_fan_out").or(false).oneOf([false]);
  return scalingOf((key) => json.get(key));
}

function scalingOf(get: (key: string) => Json): Scaling {
  // LoRA's and LoHa's names for the same.
  const shared = get("lora_alpha").isMissing ? get("alpha") : get("lora_alpha");
  const alpha = shared.isMissing ? undefined : shared.number();
  const patterns = get("alpha_pattern")
    .or({})
    .entries("patterns", 0, MAX_PATTERNS)
    .map(([pattern, value]) => ({ pattern, value: value.number() }));
  const rank = get("r");
  return {
    alphaOf: (path) => patterns.find(({ pattern }) => path === pattern || path.endsWith(`.${pattern}`))?.value ?? alpha,
    rank: rank.isMissing ? undefined : rank.integer(1, 2 ** 20),
    isRankStabilized: get("use_rslora").or(false).boolean(),
  };
}

const read = (text: string, where: string): Json =>
  readJson(
    text,
    { where, code: "invalid-model", advice: "Save the LoRA again." },
    { most: MAX_CHARACTERS, what: "PEFT's settings" },
  );
