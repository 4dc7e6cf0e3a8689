/**
 * The list of a folder's files, in manifest.json: {"format": "mixdq-files", "version": 1, "files": {path: {"bytes": n}}}.
 * With it nothing is asked for that is not there (which browsers write to their consoles as errors), and sizes cost no
 * requests. The page's build and its servers make it; folders without one are probed.
 */
import { isObject, Json } from "../base/json.ts";
import { tryJsonText } from "../base/jsonText.ts";
import type { ModelFiles } from "./files.ts";

const LIST_FORMAT = "mixdq-files";
const VERSION = 1;
/** A model's folder has a few dozen. */
const MAX_FILES = 10_000;
const MAX_CHARACTERS = 2 ** 22;

/** Paths to sizes in bytes. */
export type FileList = ReadonlyMap<string, number>;

export function writeFileList(files: FileList): string {
  const lines = Array.from(files, ([path, bytes]) => `\n    ${JSON.stringify(path)}: {"bytes": ${bytes}}`);
  return `{"format": "${LIST_FORMAT}", "version": ${VERSION},\n  "files": {${lines.join(",")}}\n}\n`;
}

/** From the text of manifest.json; undefined where that is no list. Throws `invalid-model` for one that is wrong. */
export function readFileList(text: string, where: string): FileList | undefined {
  // Whoever expects something else there says what is wrong with it.
  const json = text.length <= MAX_CHARACTERS ? tryJsonText(text) : undefined;
  if (!isObject(json) || json["format"] !== LIST_FORMAT) return undefined;
  const list = new Json(json, { where, code: "invalid-model", advice: "Write the list again, or delete it." });
  list.get("version").oneOf([VERSION]);
  const files = list.get("files").entries("files", 0, MAX_FILES);
  return new Map(files.map(([path, file]) => [path, file.get("bytes").integer(0, Number.MAX_SAFE_INTEGER)]));
}

/** The same files, without asking for any that the list does not name. */
export function listedFiles(files: ModelFiles, list: FileList): ModelFiles {
  return {
    location: files.location,
    refusalOf: (path) => files.refusalOf?.(path),
    reserve: async (bytes, signal) => files.reserve?.(bytes, signal),
    forget: async (path) => files.forget?.(path),
    text: async (path, signal) => (list.has(path) ? files.text(path, signal) : undefined),
    open: async (path, signal) => (list.has(path) ? files.open(path, signal) : undefined),
    size: async (path) => list.get(path),
  };
}
