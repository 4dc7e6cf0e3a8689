/**
 * The near side of the thread boundary: a Pipeline whose work happens in a worker. Errors come back as MixdqError with
 * their code; an AbortSignal becomes a cancel message; a worker that dies fails everything that waits for it.
 */
import { proxy, releaseProxy, wrap } from "comlink";
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import type { Pipeline } from "../pipeline.ts";
import type { LoadProgress } from "../base/types.ts";
import type { EngineWorker, Outcome, StartRequest } from "./protocol.ts";
import { startWorker } from "./start.ts";

/** How long a worker may take to free its GPU memory before it is ended anyway. */
const DISPOSE_MS = 2000;

interface Hooks {
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
}

export async function loadInWorker(request: StartRequest, { onProgress, signal }: Hooks): Promise<Pipeline> {
  const { workerUrl, ...rest } = request;
  const worker = await startWorker(workerUrl, signal);
  const engine = wrap<EngineWorker>(worker);
  const ended = endOf(worker);
  let jobs = 0;

  async function call<T>(send: (job: number) => Promise<Outcome<T>>, abort: AbortSignal | undefined): Promise<T> {
    throwIfAborted(abort);
    const job = ++jobs;
    const cancel = () => void engine.cancel(job);
    abort?.addEventListener("abort", cancel, { once: true });
    try {
      const outcome = await Promise.race([send(job), ended.promise]);
      if (outcome.ok) return outcome.value;
      throw new MixdqError(outcome.code, outcome.message);
    } finally {
      abort?.removeEventListener("abort", cancel);
    }
  }

  function stop(): void {
    ended.reject(new MixdqError("aborted", "The engine was disposed while it was working."));
    engine[releaseProxy]();
    worker.terminate();
  }

  try {
    const info = await call((job) => engine.load(job, rest, proxy(onProgress ?? (() => {}))), signal);
    return {
      info,
      generate: (options, hooks = {}) =>
        call((job) => engine.generate(job, options, proxy(hooks.onStep ?? (() => {}))), hooks.signal),
      dispose: async () => {
        await Promise.race([engine.dispose(), ended.promise, sleep(DISPOSE_MS)]).catch(() => {});
        stop();
      },
    };
  } catch (error) {
    stop();
    throw error;
  }
}

interface End {
  /** Rejects when the worker dies or is stopped, and never resolves. */
  readonly promise: Promise<never>;
  readonly reject: (error: MixdqError) => void;
}

function endOf(worker: Worker): End {
  let reject: End["reject"] = () => {};
  const promise = new Promise<never>((_, rejectPromise) => (reject = rejectPromise));
  promise.catch(() => {}); // whoever waits gets it; nobody waiting is not an error
  worker.onerror = (event) => {
    event.preventDefault();
    const what = event.message ? `: ${event.message}` : "";
    reject(new MixdqError("device-lost", `The engine's worker stopped${what}. Create a new engine.`));
  };
  worker.onmessageerror = () =>
    reject(new MixdqError("device-lost", "A message from the engine's worker was unreadable. Create a new engine."));
  return { promise, reject };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
