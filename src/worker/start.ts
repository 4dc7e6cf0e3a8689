/**
 * Starts the engine's worker wherever its script can be had. The worker is a file of its own, which Vite, webpack and
 * Turbopack find and emit. esbuild and Rollup leave the address as it is, so the file is missing beside their bundle; a
 * development server may have moved the code away from it; and a script of another origin (a CDN) may not become a worker.
 * In these cases the built package starts the same script from the copy of its text that it carries (source.ts).
 */
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { importing, isOffline } from "../base/offline.ts";
import { STARTED } from "./protocol.ts";

const OPTIONS = { type: "module", name: "mixdq-engine" } as const;
const SCRIPT = "The engine's worker script";

/**
 * A worker that has said that it runs. `address`: the absolute URL of its script instead of the one that bundlers find; then
 * nothing else is tried. Throws `unsupported` where no worker can be started, `aborted`; no worker is left then.
 */
export async function startWorker(address: string | undefined, signal: AbortSignal | undefined): Promise<Worker> {
  throwIfAborted(signal);
  const worker =
    (await started(
      // Bundlers find a worker by exactly this expression, options included.
      address === undefined
        ? () => new Worker(new URL("./engine.worker.ts", import.meta.url), { type: "module", name: "mixdq-engine" })
        : () => new Worker(address, OPTIONS),
      signal,
    )) ?? (address === undefined ? await startedFromText(signal) : undefined);
  if (!worker) throw notStarted(address);
  return worker;
}

/** undefined where the package has not been built, or a worker from a text is not allowed. */
async function startedFromText(signal: AbortSignal | undefined): Promise<Worker | undefined> {
  const { WORKER_SOURCE } = await importing(import("./source.ts"), SCRIPT);
  if (WORKER_SOURCE === undefined) return undefined;
  const url = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
  return started(() => new Worker(url, OPTIONS), signal).finally(() => URL.revokeObjectURL(url));
}

/** The worker, once its script runs; undefined where it cannot be fetched or is not allowed to. */
async function started(make: () => Worker, signal: AbortSignal | undefined): Promise<Worker | undefined> {
  let worker: Worker;
  try {
    worker = make();
  } catch {
    return undefined; // of another origin, or refused by a Content-Security-Policy
  }
  let onAbort = (): void => {};
  try {
    const isRunning = await new Promise<boolean>((resolve, reject) => {
      onAbort = () => reject(new MixdqError("aborted", "The run was cancelled."));
      signal?.addEventListener("abort", onAbort, { once: true });
      worker.onmessage = ({ data }) => data === STARTED && resolve(true);
      worker.onerror = (event) => {
        event.preventDefault();
        // A script that could not be fetched gives a plain Event without a message.
        if (!event.message) return resolve(false);
        reject(new MixdqError("unsupported", `The engine's worker could not be started: ${event.message}.`));
      };
    });
    if (!isRunning) worker.terminate();
    return isRunning ? worker : undefined;
  } catch (error) {
    worker.terminate();
    throw error;
  } finally {
    worker.onmessage = worker.onerror = null;
    signal?.removeEventListener("abort", onAbort);
  }
}

/** The event does not say whether the script could not be fetched or was not allowed to run. */
function notStarted(address: string | undefined): MixdqError {
  if (isOffline())
    return new MixdqError(
      "network",
      `${SCRIPT} could not be fetched: this device is offline. Connect it and try again.`,
    );
  const where = address === undefined ? "" : ` ${address}`;
  return new MixdqError(
    "unsupported",
    `${SCRIPT}${where} could not be started. Check the connection, that it is served from the page's own origin and that ` +
      "a Content-Security-Policy, if any, allows worker-src 'self'; workerUrl names a copy of the package's " +
      "lib/worker.js, worker: false runs without one.",
  );
}
