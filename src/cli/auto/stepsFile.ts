/** steps.json: what a chain of commands has made, and of what. */
import { infoOf, type KnownFile } from "../../node/fileDigests.ts";
import { readText } from "../../node/inputFiles.ts";
import { writeWhole } from "../../node/outputFiles.ts";
import { readJson, type Json } from "../../base/json.ts";

const FORMAT = "mixdq-steps";
const VERSION = 1;
/** A few KB in reality. */
const MAX_BYTES = 2 ** 24;
const MAX_ENTRIES = 10_000;

/** A step as it was begun, and once it is complete, what came out. */
export interface Entry {
  readonly args: readonly (readonly string[])[];
  /** SHA-256 by name; of a folder, over its files' names and hashes. */
  readonly inputs: Readonly<Record<string, string>>;
  /** The same; null until the step is complete. */
  readonly outputs: Readonly<Record<string, string | null>>;
  /** Of all runs that it took; until the step is complete, of those that were stopped before. */
  readonly seconds: number;
  /** When its last run began, ISO 8601. */
  readonly begun: string;
}

export interface StepsFile {
  /** By the step's name. */
  readonly entries: ReadonlyMap<string, Entry>;
  /** Large files, so that they need not be read again. */
  readonly known: ReadonlyMap<string, KnownFile>;
}

/** Whole or not at all. */
export async function writeSteps(file: string, { entries, known }: StepsFile): Promise<void> {
  const [steps, files] = [Object.fromEntries(entries), Object.fromEntries(known)];
  const text = JSON.stringify({ format: FORMAT, version: VERSION, steps, files }, undefined, 2);
  await writeWhole(file, new TextEncoder().encode(`${text}\n`));
}

/** What steps.json says; nothing where there is none. Throws `invalid-input` for a file that is not one of ours. */
export async function readSteps(file: string): Promise<StepsFile> {
  if (!(await infoOf(file))) return { entries: new Map(), known: new Map() };
  return parseSteps(await readText(file, { most: MAX_BYTES }), file);
}

/** The same of its text. Throws `invalid-input`; `where` is the file, for messages. */
export function parseSteps(text: string, where: string): StepsFile {
  const source = { where, code: "invalid-input", advice: "Choose another --out, or move it away." } as const;
  const file = readJson(text, source, { most: MAX_BYTES, what: "what mixdq auto writes", uniqueKeys: true });
  file.get("format").oneOf([FORMAT]);
  file.get("version").oneOf([VERSION]);
  const read = <T>(key: string, readOne: (json: Json) => T): Map<string, T> =>
    new Map(
      file
        .get(key)
        .or({})
        .entries(key, 0, MAX_ENTRIES)
        .map(([name, json]) => [name, readOne(json)]),
    );
  return { entries: read("steps", readEntry), known: read("files", readKnown) };
}

function readEntry(json: Json): Entry {
  const begun = json.get("begun");
  if (Number.isNaN(Date.parse(begun.string()))) begun.fail("a time");
  return {
    args: json
      .get("args")
      .items(0, MAX_ENTRIES)
      .map((run) => run.items(0, MAX_ENTRIES).map((argument) => argument.string())),
    inputs: readRecord(json.get("inputs"), (sha256) => sha256.string()),
    outputs: readRecord(json.get("outputs"), (sha256) => (sha256.value === null ? null : sha256.string())),
    seconds: json.get("seconds").number(0),
    begun: begun.string(),
  };
}

function readKnown(json: Json): KnownFile {
  return {
    bytes: json.get("bytes").integer(0, Number.MAX_SAFE_INTEGER),
    changedMs: json.get("changedMs").number(),
    sha256: json.get("sha256").string(),
  };
}

const readRecord = <T>(json: Json, read: (value: Json) => T): Readonly<Record<string, T>> =>
  Object.fromEntries(json.entries("files", 0, MAX_ENTRIES).map(([name, value]) => [name, read(value)]));
