/** A calibration that can be killed: what it has recorded so far, in a file beside the output. */
import { readFile, rm } from "node:fs/promises";
import type { Recording, RecordingState } from "../mixdq/calibration/statistics.ts";
import type { MixdqError } from "../base/errors.ts";
import { tryJsonText } from "../base/jsonText.ts";
import { printable, show } from "../base/printable.ts";
import { writeWhole } from "../node/outputFiles.ts";
import { invalidInput } from "../base/errors.ts";

/** A recording of SDXL has about 6 MB: often enough to lose little, seldom enough to cost nothing. */
const SAVE_MS = 3000;

/** Everything that must be the same for a recording to go on. */
export type RunIdentity = Readonly<Record<string, string | number | boolean>>;

const PARTIAL_FORMAT = "mixdq-calibration-partial";

/** The recording so far, beside the output; nowhere without a file. */
export class SavedRun {
  readonly #file: string | undefined;
  /** Of the run that was interrupted, or empty. */
  #then: RunIdentity = {};
  #now: RunIdentity;
  #saved = -Infinity;

  constructor(file: string | undefined, now: RunIdentity) {
    this.#file = file;
    this.#now = now;
  }

  /** How many prompts have been recorded already. Throws `invalid-input` for a recording of another run. */
  async restore(recording: Recording): Promise<number> {
    if (this.#file === undefined) return 0;
    const content = await readFile(this.#file, "utf8").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return undefined;
      throw invalidInput(`${this.#file} cannot be read: ${error.message}.`);
    });
    if (content === undefined) return 0;
    const { format, run, done, tensors } = Object(tryJsonText(content)) as Record<string, unknown>;
    if (format !== PARTIAL_FORMAT || typeof run !== "object" || run === null)
      throw this.#refusal("got something else than a calibration that was interrupted.");
    this.#then = run as RunIdentity;
    this.#compare(this.#now);
    const prompts = this.#now["prompts"] as number;
    if (!Number.isSafeInteger(done) || (done as number) < 1 || (done as number) > prompts)
      throw this.#refusal(`got ${show(done)} prompts done, expected 1 to ${prompts}.`);
    if (typeof tensors !== "object" || tensors === null || !recording.restore(tensors as RecordingState))
      throw this.#refusal("the recording in it is damaged.");
    return done as number;
  }

  /** What is known of the run only later. Throws `invalid-input` where the interrupted one was another. */
  alsoWith(more: RunIdentity): void {
    if (Object.keys(this.#then).length > 0) this.#compare(more);
    this.#now = { ...this.#now, ...more };
  }

  #compare(now: RunIdentity): void {
    for (const [key, value] of Object.entries(now))
      if (this.#then[key] !== value)
        throw this.#refusal(
          `a calibration was interrupted here that had ${key} ${printable(String(this.#then[key]))}, this one has ${printable(String(value))}. ` +
            "Give it the same model, prompts and flags to go on with it.",
        );
  }

  #refusal(what: string): MixdqError {
    return invalidInput(`${this.#file}: ${what} Delete it to start anew.`);
  }

  /** Writes it, whole or not at all, unless that was just done. */
  async save(recording: Recording, done: number): Promise<void> {
    if (this.#file === undefined || performance.now() - this.#saved < SAVE_MS) return;
    const state = { format: PARTIAL_FORMAT, run: this.#now, done, tensors: recording.state() };
    await writeWhole(this.#file, new TextEncoder().encode(JSON.stringify(state)));
    this.#saved = performance.now();
  }

  async remove(): Promise<void> {
    if (this.#file !== undefined) await rm(this.#file, { force: true });
  }
}
