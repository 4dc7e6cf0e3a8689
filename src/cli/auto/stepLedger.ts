/**
 * The ledger of a chain of commands, steps.json: what it has made in a folder, and of what. It tells a step that is
 * complete from one that was killed and from one whose flags or files have changed since, whenever the process ended.
 */
import { readdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import type { Step } from "./autoSteps.ts";
import { FileDigests, infoOf, type Source } from "../../node/fileDigests.ts";
import { assertWritable, writeWhole } from "../../node/outputFiles.ts";
import { invalidInput } from "../../base/errors.ts";
import { readSteps, writeSteps, type Entry } from "./stepsFile.ts";

export const STEPS_FILE = "steps.json";

export type State =
  /** `seconds` of all runs that it took. */
  | { readonly is: "complete"; readonly seconds: number }
  | { readonly is: "new" | "interrupted" }
  | { readonly is: "outdated"; readonly why: string };

export class StepLedger {
  readonly #folder: string;
  readonly #entries: Map<string, Entry>;
  readonly #digests: FileDigests;

  private constructor(folder: string, entries: Map<string, Entry>, digests: FileDigests) {
    this.#folder = folder;
    this.#entries = entries;
    this.#digests = digests;
  }

  /**
   * `steps` are all that will be asked for. Throws `invalid-input` where the folder cannot be written, or holds files of
   * theirs that no chain has made.
   */
  static async open(folder: string, steps: readonly Step[]): Promise<StepLedger> {
    const file = path.join(folder, STEPS_FILE);
    await assertWritable(file);
    const { entries, known } = await readSteps(file);
    for (const { name, outputs } of steps)
      for (const output of entries.has(name) ? [] : outputs.flatMap((output) => [output, partialOf(output)]))
        if (await infoOf(path.join(folder, output)))
          throw invalidInput(
            `${path.join(folder, output)}: is there already, and not of a chain that was begun in this folder. Choose ` +
              "another --out, or move it away.",
          );
    return new StepLedger(folder, new Map(entries), new FileDigests(known));
  }

  /** Whether the step has to run, and why. */
  async stateOf(step: Step): Promise<State> {
    const entry = this.#entries.get(step.name);
    if (!entry) return { is: "new" };
    const why = [...changedFlags(entry.args, step.record), ...changedFiles(entry.inputs, await this.#inputsOf(step))];
    if (why.length > 0) return { is: "outdated", why: why.join(", ") };
    if (!isComplete(entry)) {
      // What is there appeared whole, after the step was noted as begun: the note that it is complete may be missing.
      for (const output of step.outputs)
        if (!(await this.#has(output)) || (await this.#has(partialOf(output)))) return { is: "interrupted" };
      return { is: "complete", seconds: await this.complete(step, await this.#lastWritten(step)) };
    }
    const changed = changedFiles(entry.outputs, await this.#outputsOf(step));
    if (changed.length > 0) return { is: "outdated", why: changed.join(", ") };
    return { is: "complete", seconds: entry.seconds };
  }

  /**
   * Makes room for what the step will write, and notes that it is begun. What a chain wrote and nobody has changed is
   * deleted, anything else moved aside: returns where to. A step that was interrupted keeps what it has so far.
   */
  async begin(step: Step, state: State): Promise<readonly string[]> {
    const inputs = await this.#inputsOf(step);
    const entry = this.#entries.get(step.name);
    const seconds = entry && state.is === "interrupted" ? secondsOf(entry, await this.#lastWritten(step)) : 0;
    const kept: string[] = [];
    for (const name of new Set([...step.outputs, ...Object.keys(entry?.outputs ?? {})])) {
      const hasBegun = entry !== undefined && !isComplete(entry);
      if (state.is !== "interrupted") kept.push(...(await this.#clear(partialOf(name), hasBegun)));
      kept.push(...(await this.#clear(name, await this.#isOurs(name, entry))));
    }
    await this.#removeLeftovers([STEPS_FILE, ...step.outputs]);
    const outputs = Object.fromEntries(step.outputs.map((name) => [name, null]));
    await this.#note(step.name, { args: step.record, inputs, outputs, seconds, begun: new Date().toISOString() });
    for (const [name, text] of Object.entries(step.texts))
      await writeWhole(this.#at(name), new TextEncoder().encode(text));
    return kept;
  }

  /** Notes what came out by `end`, in milliseconds; returns the seconds of all runs that it took. */
  async complete(step: Step, end: number): Promise<number> {
    const entry = this.#entries.get(step.name)!;
    const seconds = secondsOf(entry, end);
    await this.#note(step.name, { ...entry, outputs: await this.#outputsOf(step), seconds });
    return seconds;
  }

  /** The last sign of life of a run that was killed, in milliseconds; 0 where it left none. */
  async #lastWritten({ outputs }: Step): Promise<number> {
    const files = outputs.flatMap((output) => [output, partialOf(output)]);
    const infos = await Promise.all(files.map((file) => infoOf(this.#at(file))));
    return Math.max(0, ...infos.map((info) => info?.mtimeMs ?? 0));
  }

  /** Whether the chain wrote it, and nobody has changed it since. */
  async #isOurs(name: string, entry: Entry | undefined): Promise<boolean> {
    const written = entry?.outputs[name];
    if (written === undefined || written === null) return written === null;
    return written === (await this.#digests.of(name, { at: this.#at(name) }));
  }

  /** Deletes what is ours; moves aside what is not, and returns where it is then. */
  async #clear(name: string, isOurs: boolean): Promise<readonly string[]> {
    if (!(await this.#has(name))) return [];
    let place = `${name}.kept`;
    for (let i = 2; await this.#has(place); i++) place = `${name}.kept${i}`;
    try {
      await (isOurs ? rm(this.#at(name), { recursive: true }) : rename(this.#at(name), this.#at(place)));
    } catch (error) {
      throw invalidInput(`${this.#at(name)} cannot be replaced: ${(error as Error).message}. Choose another --out.`);
    }
    return isOurs ? [] : [place];
  }

  /** Files that were being written whole when the process was killed. */
  async #removeLeftovers(names: readonly string[]): Promise<void> {
    for (const file of await readdir(this.#folder).catch(() => []))
      if (names.some((name) => file.startsWith(name) && /^(\.partial)?\.\d+\.partial$/.test(file.slice(name.length))))
        await rm(this.#at(file));
  }

  async #note(name: string, entry: Entry): Promise<void> {
    this.#entries.set(name, entry);
    await writeSteps(this.#at(STEPS_FILE), { entries: this.#entries, known: this.#digests.known });
  }

  #at(name: string): string {
    return path.join(this.#folder, name);
  }

  async #has(name: string): Promise<boolean> {
    return (await infoOf(this.#at(name))) !== undefined;
  }

  #inputsOf({ inputs }: Step): Promise<Record<string, string>> {
    return this.#digestsOf(Object.entries(inputs));
  }

  #outputsOf({ outputs }: Step): Promise<Record<string, string>> {
    return this.#digestsOf(outputs.map((name) => [name, { at: this.#at(name) }]));
  }

  /** Those that are missing are left out. */
  async #digestsOf(sources: readonly (readonly [string, Source])[]): Promise<Record<string, string>> {
    const digests: Record<string, string> = {};
    for (const [name, source] of sources) {
      const digest = await this.#digests.of(name, source);
      if (digest !== undefined) digests[name] = digest;
    }
    return digests;
  }
}

/** What the commands that go on from one leave beside their output, and quantize while it writes. */
const partialOf = (output: string): string => `${output}.partial`;

/** Of the runs before, and of this one until `end`. */
function secondsOf({ seconds, begun }: Entry, end: number): number {
  return Number((seconds + Math.max(0, end - Date.parse(begun)) / 1000).toFixed(1));
}

const isComplete = ({ outputs }: Entry): boolean => Object.values(outputs).every((sha256) => sha256 !== null);

/** "--weight-bits was 4 and is 5", for each flag that differs. */
function changedFlags(was: Entry["args"], is: Entry["args"]): string[] {
  const [before, now] = [valuesOf(was), valuesOf(is)];
  const changes = [...new Set([...before.keys(), ...now.keys()])].flatMap((key) => {
    const [flag, old, value] = [key.split(" ")[0], before.get(key), now.get(key)];
    if (old === value) return [];
    if (old === undefined) return [`${flag} is new`];
    return [value === undefined ? `${flag} is gone` : `${flag} was ${old} and is ${value}`];
  });
  return [...new Set(changes)];
}

/** By "--flag RUN". */
function valuesOf(runs: Entry["args"]): Map<string, string> {
  return new Map(
    runs.flatMap((args, run) =>
      args.map((arg): [string, string] => {
        const [flag, ...value] = arg.split("=");
        return [`${flag} ${run}`, value.join("=")];
      }),
    ),
  );
}

/** "prompts has changed" or "is missing", for each that differs. */
function changedFiles(was: Readonly<Record<string, string | null>>, is: Readonly<Record<string, string>>): string[] {
  return [...new Set([...Object.keys(was), ...Object.keys(is)])]
    .filter((name) => was[name] !== is[name])
    .map(
      (name) => `${name} ${is[name] === undefined ? "is missing" : was[name] === undefined ? "is new" : "has changed"}`,
    );
}
