/** Packages that not everybody who installs this one needs: imported when they are used. */
import { MixdqError } from "./errors.ts";
import { importing } from "./offline.ts";

/**
 * The imported package, or `unsupported` with the command that installs it, `network` where a page cannot fetch it. `what` needs it, for the message; `instead`:
 * what else would do, as a sentence.
 */
export async function importOptional<T>(load: () => Promise<T>, name: string, what: string, instead = ""): Promise<T> {
  try {
    return await importing(load(), `The package ${name}`);
  } catch (cause) {
    if (cause instanceof MixdqError) throw cause;
    const reason = (cause instanceof Error ? cause.message : String(cause)).split("\n")[0].replace(/\.$/, "");
    const advice = `Run npm install ${name}${instead === "" ? "" : `, or ${instead}`}.`;
    throw new MixdqError("unsupported", `${what}: the package ${name} cannot be loaded (${reason}). ${advice}`, {
      cause,
    });
  }
}
