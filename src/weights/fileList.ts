/**
 * The list of a folder's files, in manifest.json: {"format": "mixdq-files", "version": 1, "files": {path: {"bytes": n}}}.
 * With it nothing is asked for that is not there (which browsers write to their consoles as errors), and sizes cost no
 * requests. The page's build and its servers make it; folders without one are probed.
 */
import { MixdqError } from "../base/errors.ts";
import { isObject, show } from "../base/json.ts";
import type { ModelFiles } from "./files.ts";

const LIST_FORMAT = "mixdq-files";
const VERSION = 1;

/** Paths to sizes in bytes. */
export type FileList = ReadonlyMap<string, number>;

export function writeFileList(files: FileList): string {
  const lines = Array.from(files, ([path, bytes]) => `\n    ${JSON.stringify(path)}: {"bytes": ${bytes}}`);
  return `{"format": "${LIST_FORMAT}", "version": ${VERSION},\n  "files": {${lines.join(",")}}\n}\n`;
}

/** From the text of manifest.json; undefined where that is no list. Throws `invalid-model` for one that is wrong. */
export function readFileList(text: string, where: string): FileList | undefined {
  const json = parse(text);
  if (!isObject(json) || json["format"] !== LIST_FORMAT) return undefined;
  const wrong = (got: string, expected: string): MixdqError =>
    new MixdqError("invalid-model", `${where}: got ${got}, expected ${expected}. Write the list again, or delete it.`);
  const { version, files } = json;
  if (version !== VERSION) throw wrong(`version ${show(version)}`, String(VERSION));
  if (!isObject(files)) throw wrong(`files ${show(files)}`, "paths with their bytes");
  return new Map(
    Object.entries(files).map(([path, entry]) => {
      const bytes = isObject(entry) ? entry["bytes"] : undefined;
      if (!Number.isSafeInteger(bytes) || (bytes as number) < 0)
        throw wrong(`${show(entry)} for ${show(path)}`, "its bytes");
      return [path, bytes as number];
    }),
  );
}

/** The same files, without asking for any that the list does not name. */
export function listedFiles(files: ModelFiles, list: FileList): ModelFiles {
  return {
    location: files.location,
    refusalOf: (path) => files.refusalOf?.(path),
    text: async (path, signal) => (list.has(path) ? files.text(path, signal) : undefined),
    open: async (path, signal) => (list.has(path) ? files.open(path, signal) : undefined),
    size: async (path) => list.get(path),
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Whoever expects something else there says what is wrong.
    return undefined;
  }
}
