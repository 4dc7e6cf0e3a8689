/** An input: valid files, of which one or two were changed in a way that is likely for their kind. */
import { tryJsonText } from "../../src/base/jsonText.ts";
import type { Chance } from "./chance.ts";
import type { Files } from "./files.ts";
import { mutateLines, mutateSafetensors, mutateText } from "./mutateBytes.ts";
import { mutateJson, writeJson } from "./mutateJson.ts";

export function mutateFiles(files: Files, chance: Chance): Files {
  const changed = new Map(files);
  do {
    // A changed shard has another hash, and nothing of it is read.
    const names = [...changed.keys()].filter((name) => !name.endsWith(".bin") || chance.oneIn(30));
    const name = chance.of(names.length > 0 ? names : [...changed.keys()]);
    if (changed.size > 1 && chance.oneIn(25)) changed.delete(name);
    else changed.set(name, mutateFile(name, changed.get(name)!, chance));
  } while (chance.oneIn(4));
  return changed;
}

function mutateFile(name: string, content: string | Uint8Array, chance: Chance): string | Uint8Array {
  if (
    name.endsWith(".safetensors") &&
    typeof content !== "string" &&
    content.length > 8 &&
    parsed(headerOf(content)) !== undefined
  )
    return mutateSafetensors(content, parsed(headerOf(content)), chance);
  const text = typeof content === "string" ? content : new TextDecoder().decode(content);
  if (name.endsWith(".json")) {
    const json = parsed(text);
    return json === undefined || chance.oneIn(5) ? mutateText(text, chance) : writeJson(mutateJson(json, chance));
  }
  if (name.endsWith(".jsonl") && chance.oneIn(2)) {
    const lines = text.split("\n");
    const at = chance.below(lines.length);
    const json = parsed(lines[at]);
    if (json !== undefined) return lines.with(at, writeJson(mutateJson(json, chance))).join("\n");
  }
  return name.endsWith(".query") || chance.oneIn(5) ? mutateText(text, chance) : mutateLines(text, chance);
}

/** "" where the length before it says more than there is: a file may be changed twice. */
function headerOf(file: Uint8Array): string {
  const length = new DataView(file.buffer, file.byteOffset).getUint32(0, true);
  return length + 8 <= file.length ? new TextDecoder().decode(file.subarray(8, 8 + length)) : "";
}

/** Seeds are read again and again. */
const KNOWN = new Map<string, unknown>();

function parsed(text: string): unknown {
  if (KNOWN.has(text)) return KNOWN.get(text);
  // Not JSON.parse: a file may be changed twice, and what it takes of nesting would be too much for what follows here.
  const json = tryJsonText(text);
  if (KNOWN.size < 200) KNOWN.set(text, json);
  return json;
}
