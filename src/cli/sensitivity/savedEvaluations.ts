/**
 * What a measurement has found so far, beside its output: a line a finding, written before the next one is begun, so that
 * a run that is killed at any moment has lost at most the one it was at.
 */
import { open, readFile, rm, type FileHandle } from "node:fs/promises";
import type { MixdqError } from "../../base/errors.ts";
import { tryJsonText } from "../../base/jsonText.ts";
import { show } from "../../base/printable.ts";
import type { Findings } from "../../mixdq/sensitivity/probe.ts";
import { keyOf, type Evaluation } from "../../mixdq/sensitivity/sites.ts";
import { writeWhole } from "../../node/outputFiles.ts";
import { invalidInput } from "../../base/errors.ts";

/** Everything that must be the same for a measurement to go on. */
export type RunIdentity = Readonly<Record<string, unknown>>;

const FORMAT = "mixdq-sensitivity-partial";

export class SavedEvaluations {
  /** undefined: nothing is kept, for an output that is no file. */
  readonly #file: string | undefined;
  readonly #known: ReadonlyMap<string, Evaluation>;
  readonly #findings = new Map<string, Findings>();
  #handle: FileHandle | undefined;

  /** `evaluations` are all of the run. */
  constructor(file: string | undefined, evaluations: readonly Evaluation[]) {
    this.#file = file;
    this.#known = new Map(evaluations.map((evaluation) => [keyOf(evaluation), evaluation]));
  }

  /** Begins the file, or takes up one that was left. Throws `invalid-input` where that is of another run, or damaged. */
  async begin(run: RunIdentity): Promise<void> {
    if (this.#file === undefined) return;
    const content = await readFile(this.#file, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw invalidInput(`${this.#file} cannot be read: ${error.message}.`);
    });
    if (content !== undefined) this.#take(content, run);
    // Written anew: a line that was cut short must not run into the next one.
    const lines = Array.from(this.#findings, ([key, findings]) => this.#line(this.#known.get(key)!, findings));
    const head = JSON.stringify({ format: FORMAT, run });
    await writeWhole(this.#file, new TextEncoder().encode([head, ...lines, ""].join("\n")));
    this.#handle = await open(this.#file, "a");
  }

  #take(content: string, run: RunIdentity): void {
    const lines = content.split("\n");
    lines.pop(); // "" after the last newline, or a line that was being written
    const { format, run: then } = Object(tryJsonText(lines[0] ?? "")) as Record<string, unknown>;
    if (format !== FORMAT || typeof then !== "object" || then === null)
      throw this.#refusal("got something else than a measurement that was interrupted.");
    for (const [key, value] of Object.entries(run)) {
      const was = (then as RunIdentity)[key];
      if (JSON.stringify(was) !== JSON.stringify(value))
        throw this.#refusal(
          `a measurement was interrupted here that had ${key} ${show(was)}, this one has ${show(value)}. ` +
            "Give it the same model, files and flags to go on with it.",
        );
    }
    for (const [i, line] of lines.slice(1).entries()) {
      const { path, side, bits, sqnr, x0, ssim } = Object(tryJsonText(line)) as Record<string, unknown>;
      const key = keyOf({ path, side, bits } as Evaluation);
      const numbers = [sqnr, x0, ssim ?? 0].every(Number.isFinite);
      if (!this.#known.has(key) || !numbers) throw this.#refusal(`line ${i + 2} is not a finding of this run.`);
      this.#findings.set(key, { sqnr, x0, ssim } as Findings);
    }
  }

  #refusal(what: string): MixdqError {
    return invalidInput(`${this.#file}: ${what} Delete it to start anew.`);
  }

  get(evaluation: Evaluation): Findings | undefined {
    return this.#findings.get(keyOf(evaluation));
  }

  async add(evaluation: Evaluation, findings: Findings): Promise<void> {
    this.#findings.set(keyOf(evaluation), findings);
    await this.#handle?.write(`${this.#line(evaluation, findings)}\n`).catch((error: Error) => {
      throw invalidInput(`${this.#file} cannot be written: ${error.message}. Make room, and start the command again.`);
    });
  }

  #line(evaluation: Evaluation, findings: Findings): string {
    return JSON.stringify({ ...evaluation, ...findings });
  }

  /** Closes the file; it stays where it is. */
  async close(): Promise<void> {
    await this.#handle?.close();
    this.#handle = undefined;
  }

  async remove(): Promise<void> {
    await this.close();
    if (this.#file !== undefined) await rm(this.#file, { force: true });
  }
}
