/** What fails without a network besides the model's files: the page's own scripts that are fetched when they are needed. */
import { MixdqError } from "./errors.ts";

/**
 * Whether the browser knows that it has no network. To be asked after a failure only: a server on this machine answers
 * without one.
 */
export function isOffline(): boolean {
  return (globalThis.navigator as Navigator | undefined)?.onLine === false;
}

/** `code` is an import(); throws `network` where it could not be fetched. `what` it is, for messages. */
export async function importing<T>(code: Promise<T>, what: string): Promise<T> {
  try {
    return await code;
  } catch (cause) {
    // Each browser has words of its own; errors of the code itself are left alone.
    const isFetch = cause instanceof TypeError && /fetch|import|load(ing)? (failed|module)/i.test(cause.message);
    if (!isFetch) throw cause;
    const why = isOffline() ? "this device is offline" : `the server does not give it (${cause.message})`;
    const advice = isOffline() ? "Connect it and try again." : "Reload the page.";
    throw new MixdqError("network", `${what} could not be fetched: ${why}. ${advice}`, { cause });
  }
}
