/**
 * The near side of the thread boundary: a Pipeline whose work happens in a worker. Errors come back as MixdqError with
 * their code; an AbortSignal becomes a cancel message; a worker that dies fails everything that waits for it, and one
 * that does not answer a cancel is ended.
 */
import { proxy, type Remote, wrap } from "comlink";
import { MixdqError, throwIfAborted } from "../base/errors.ts";
import { atMost, settled } from "../base/queue.ts";
import type { Pipeline } from "../pipeline.ts";
import type { EngineInfo, LoadProgress } from "../base/types.ts";
import type { EngineWorker, Outcome, PageServices, StartRequest } from "./protocol.ts";
import { startWorker } from "./start.ts";

/** How long a worker may take to free its GPU memory before it is ended anyway. */
const DISPOSE_MS = 2000;

/**
 * How long a worker may take to hear a cancel before it is ended. Its thread is only ever that busy with onnxruntime-web's
 * WebAssembly, which computes a whole step at a stretch, or with a driver that hangs.
 */
const CANCEL_MS = 1000;

interface Hooks {
  onProgress?: (progress: LoadProgress) => void;
  signal?: AbortSignal;
  page: PageServices;
}

/** Throws what the load throws, and `aborted`; the worker is ended then, a busy one CANCEL_MS after the abort. */
export async function loadInWorker(request: StartRequest, { onProgress, signal, page }: Hooks): Promise<Pipeline> {
  const { workerUrl, ...rest } = request;
  const load = async (signal: AbortSignal | undefined): Promise<{ thread: Thread; info: EngineInfo }> => {
    const thread = new Thread(await startWorker(workerUrl, signal));
    try {
      const info = await thread.call(
        (engine, job) => engine.load(job, rest, proxy(onProgress ?? (() => {})), proxy(page)),
        signal,
        "must end",
      );
      throwIfAborted(signal);
      return { thread, info };
    } catch (error) {
      await thread.close();
      throw error;
    }
  };
  const loaded = await load(signal);
  let { thread } = loaded;
  return {
    info: loaded.info,
    async generate(options, { signal, onStep = () => {} } = {}) {
      // Ended for an abort, and so not what its caller takes for lost: the model is loaded once more.
      if (thread.wasDeaf) ({ thread } = await load(signal));
      return thread.call((engine, job) => engine.generate(job, options, proxy(onStep)), signal, "must answer");
    },
    dispose: () => thread.close(),
  };
}

/** A worker and everything that waits for it. */
class Thread {
  /** It was ended because it did not answer a cancel. */
  wasDeaf = false;
  readonly #worker: Worker;
  readonly #engine: Remote<EngineWorker>;
  /** Told when it ends. A promise to race against would keep every picture of every race. */
  readonly #waiting = new Set<(error: MixdqError) => void>();
  #over: MixdqError | undefined;
  #jobs = 0;

  constructor(worker: Worker) {
    this.#worker = worker;
    this.#engine = wrap<EngineWorker>(this.#worker);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const what = event.message ? `: ${event.message}` : "";
      this.#end(new MixdqError("device-lost", `The engine's worker stopped${what}. Create a new engine.`));
    };
    this.#worker.onmessageerror = () =>
      this.#end(
        new MixdqError("device-lost", "A message from the engine's worker was unreadable. Create a new engine."),
      );
    this.#watch().catch(() => {}); // then its end stays unheard
  }

  /**
   * A worker that is ended from outside (by the browser when its heap is full, by an extension) says nothing; but the lock
   * that it holds becomes free. A page that waits for a lock is not kept for the back button: with an engine's GPU memory
   * it had better not be.
   */
  async #watch(): Promise<void> {
    const { locks } = navigator; // not on pages without https, nor in sandboxed frames
    if (!locks) return;
    const name = `mixdq-engine ${crypto.randomUUID()}`;
    await this.#engine.holdLock(name);
    await locks.request(name, () => {});
    this.#end(new MixdqError("device-lost", "The engine's worker was ended from outside. Create a new engine."));
  }

  /**
   * A job's result. "must answer": after an abort the worker has to be listening within CANCEL_MS, or is ended; "must
   * end": the job has to be over by then.
   */
  async call<T>(
    send: (engine: Remote<EngineWorker>, job: number) => Promise<Outcome<T>>,
    signal: AbortSignal | undefined,
    afterAbort: "must answer" | "must end",
  ): Promise<T> {
    throwIfAborted(signal);
    const job = ++this.#jobs;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const cancel = (): void => {
      timer = setTimeout(() => {
        this.wasDeaf = true;
        this.#end(new MixdqError("aborted", "The run was cancelled."));
      }, CANCEL_MS);
      const answered = this.#engine.cancel(job);
      if (afterAbort === "must answer") void answered.then(() => clearTimeout(timer));
    };
    signal?.addEventListener("abort", cancel, { once: true });
    try {
      const outcome = await this.#unlessOver(send(this.#engine, job));
      if (outcome.ok) return outcome.value;
      throw new MixdqError(outcome.code, outcome.message);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", cancel);
    }
  }

  /** Ends it, after it has freed its GPU memory if that does not take long. Any number of times. */
  async close(): Promise<void> {
    if (this.#over) return;
    await atMost(DISPOSE_MS, settled(this.#unlessOver(this.#engine.dispose())));
    this.#end(new MixdqError("aborted", "The engine was disposed while it was working."));
  }

  #unlessOver<T>(work: Promise<T>): Promise<T> {
    if (this.#over) return Promise.reject(this.#over);
    return new Promise<T>((resolve, reject) => {
      this.#waiting.add(reject);
      work.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  #end(error: MixdqError): void {
    if (this.#over) return;
    this.#over = error;
    this.#worker.terminate();
    for (const reject of [...this.#waiting]) reject(error);
    this.#waiting.clear();
  }
}
