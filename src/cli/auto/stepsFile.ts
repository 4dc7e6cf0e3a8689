/** steps.json: what a chain of commands has made, and of what. */
import { infoOf, type KnownFile } from "../../node/fileDigests.ts";
import { readText } from "../../node/inputFiles.ts";
import { writeWhole } from "../../node/outputFiles.ts";
import { invalidInput } from "../../base/errors.ts";

const FORMAT = "mixdq-steps";
const VERSION = 1;
/** A few KB in reality. */
const MAX_BYTES = 2 ** 24;

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
  const refuse = (what: string) =>
    invalidInput(`${file}: ${what}, expected what mixdq auto writes. Choose another --out, or move it away.`);
  const { format, version, steps, files } = parse(await readText(file, { most: MAX_BYTES }));
  if (format !== FORMAT) throw refuse("got something else");
  if (version !== VERSION) throw refuse(`got version ${JSON.stringify(version)}`);
  const [entries, known] = [new Map(Object.entries(Object(steps))), new Map(Object.entries(Object(files)))];
  for (const [name, entry] of entries) if (!isEntry(entry)) throw refuse(`got a damaged step "${name}"`);
  for (const [name, one] of known) if (!isKnown(one)) throw refuse(`got a damaged file "${name}"`);
  return { entries: entries as Map<string, Entry>, known: known as Map<string, KnownFile> };
}

function parse(content: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(content)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

const isText = (value: unknown): value is string => typeof value === "string";

function isEntry(value: unknown): value is Entry {
  const { args, inputs, outputs, seconds, begun } = Object(value) as Record<string, unknown>;
  return (
    Array.isArray(args) &&
    args.every((run) => Array.isArray(run) && run.every(isText)) &&
    isRecord(inputs) &&
    Object.values(inputs).every(isText) &&
    isRecord(outputs) &&
    Object.values(outputs).every((sha256) => sha256 === null || isText(sha256)) &&
    typeof seconds === "number" &&
    isText(begun) &&
    !Number.isNaN(Date.parse(begun))
  );
}

function isKnown(value: unknown): value is KnownFile {
  const { bytes, changedMs, sha256 } = Object(value) as Record<string, unknown>;
  return typeof bytes === "number" && typeof changedMs === "number" && isText(sha256);
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
