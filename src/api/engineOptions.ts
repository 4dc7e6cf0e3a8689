/** Options that every entry's createEngine has. */
import { BACKENDS, PRECISIONS } from "../base/choices.ts";
import { MixdqError } from "../base/errors.ts";
import type { EngineOptions } from "../base/types.ts";

/** Throws `invalid-input` for a choice or a number that there is not. */
export function checkEngineOptions(options: Pick<EngineOptions, "precision" | "backend" | "stallMs">): void {
  const { precision, backend = "webgpu", stallMs } = options;
  if (precision !== undefined && !PRECISIONS.includes(precision)) throw badChoice("precision", precision, PRECISIONS);
  if (!BACKENDS.includes(backend)) throw badChoice("backend", backend, BACKENDS);
  if (stallMs !== undefined && !(typeof stallMs === "number" && stallMs > 0))
    throw new MixdqError("invalid-input", `createEngine: stallMs is ${stallMs}, expected milliseconds greater than 0.`);
}

function badChoice(name: string, got: unknown, choices: readonly string[]): MixdqError {
  return new MixdqError(
    "invalid-input",
    `createEngine: ${name} is ${JSON.stringify(got)}, expected one of ${choices.join(", ")}.`,
  );
}
