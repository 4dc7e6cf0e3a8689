/**
 * The one error type that leaves this package. `code` is stable and meant for programs; `message` is meant for
 * people and always says where, got, expected and what to do: one line of at most MAX_MESSAGE_BYTES (base/printable.ts),
 * in which nothing can act on a terminal, whatever names of a foreign file it repeats; addresses in it lose their
 * passwords and tokens.
 */
import { asMessage } from "./printable.ts";
import { redact } from "./redact.ts";

export const ERROR_CODES = [
  "unsupported",
  "out-of-memory",
  "device-lost",
  "integrity",
  "network",
  "quota",
  "busy",
  "aborted",
  "invalid-input",
  "invalid-output",
  "invalid-model",
] as const;

/**
 * Why something failed, for programs.
 *
 * - `unsupported`: this browser, adapter or build cannot do it.
 * - `out-of-memory`: the GPU or the process has too little; a smaller picture may follow.
 * - `device-lost`: the GPU, its driver or the worker is gone; only a new engine helps.
 * - `integrity`: a file is not the one that its digest names.
 * - `network`: the server fails, refuses or falls silent.
 * - `quota`: the browser's storage is full.
 * - `busy`: a picture is being made that was not aborted.
 * - `aborted`: a signal has fired.
 * - `invalid-input`: an option, a flag or a file that the caller gave.
 * - `invalid-output`: the model computed NaN or infinity.
 * - `invalid-model`: the model's files are damaged, or do not belong together.
 */
export type ErrorCode = (typeof ERROR_CODES)[number];

/**
 * The one error that this package throws. `message` is one line for people: where, what was got, what was expected, what to
 * do. Programs read `code`.
 */
export class MixdqError extends Error {
  /** Stable between versions. */
  readonly code: ErrorCode;

  /** `message` becomes one line without control characters, and addresses in it lose their passwords and tokens. */
  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(asMessage(redact(message)), options);
    this.name = "MixdqError";
    this.code = code;
  }
}

/** Throws `aborted` when the signal has fired; call it wherever work can stop. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new MixdqError("aborted", "The run was cancelled.");
}

/** What a person gave is wrong: where, got, expected, what to do. */
export function invalidInput(message: string): MixdqError {
  return new MixdqError("invalid-input", message);
}

/** What nobody foresaw, as the one error type: memory of JavaScript's that ran out, else a fault of ours. */
export function asMixdqError(error: unknown): MixdqError {
  if (error instanceof MixdqError) return error;
  const text = String(error);
  if (/allocation failed|out of memory|invalid (typed )?array length/i.test(text))
    return new MixdqError(
      "out-of-memory",
      `This browser tab or process has not enough memory (${text}). Close other tabs, or use a smaller size or precision.`,
      { cause: error },
    );
  return new MixdqError("invalid-output", `The engine stopped unexpectedly: ${text}`, { cause: error });
}
