/**
 * One engine for everything on a page that wants the same model in the same way: its weights are the larger part of what
 * a picture needs. Its users' pictures take turns, and the last user to let go ends it. One that is wanted again
 * before the task is over (a component that StrictMode mounts twice, or that takes another's place) never ended.
 */
import { type ErrorCode, MixdqError, throwIfAborted } from "./base/errors.ts";
import { type Engine, type GeneratedImage, createEngine } from "./index.ts";
import type { EngineOptions, GenerateOptions, LoadProgress } from "./base/types.ts";

export type SharedOptions = Omit<EngineOptions, "signal" | "onProgress">;

/** One user's hold on an engine. */
export interface SharedEngine {
  /** engineKey of its options. */
  readonly key: string;
  readonly engine: Promise<Engine>;
  /** It never loaded, or lost its GPU: the next picture needs another. */
  readonly isBroken: boolean;
  /** Once loaded, and after the pictures that were asked for before. An abort is answered at once, also while it waits. */
  generate(options: GenerateOptions): Promise<GeneratedImage>;
  /** Lets go, once. Does not cancel a picture. */
  release(): void;
}

/** Equal for options that one engine can serve. */
export function engineKey(options: SharedOptions): string {
  const { model, precision, config, backend, worker, workerUrl, ortUrl, debug } = options;
  return JSON.stringify([model, precision, config, backend, worker, workerUrl, ortUrl, debug]);
}

const engines = new Map<string, Shared>();

/** Engines that were let go and still hold memory. Two at a time are more than a GPU may have room for. */
let freed: Promise<unknown> = Promise.resolve();

/** The engine of these options, which loads if nobody has it. While it loads, every user hears of the progress. */
export function acquire(options: SharedOptions, onProgress: (progress: LoadProgress) => void): SharedEngine {
  const key = engineKey(options);
  let known = engines.get(key);
  if (!known || known.isBroken) {
    known = new Shared(options);
    engines.set(key, known);
  }
  const shared = known;
  let isHeld = true;
  shared.users++;
  shared.listeners.add(onProgress);
  return {
    key,
    engine: shared.engine,
    get isBroken() {
      return shared.isBroken;
    },
    generate: (request) => shared.generate(request),
    release: () => {
      if (!isHeld) return;
      isHeld = false;
      shared.users--;
      shared.listeners.delete(onProgress);
      queueMicrotask(() => {
        if (shared.users > 0) return;
        if (engines.get(key) === shared) engines.delete(key);
        shared.end();
      });
    },
  };
}

/** After these an engine makes no more pictures. */
const LOST: readonly ErrorCode[] = ["device-lost", "out-of-memory"];

class Shared {
  readonly engine: Promise<Engine>;
  readonly listeners = new Set<(progress: LoadProgress) => void>();
  users = 0;
  isBroken = false;
  readonly #loading = new AbortController();
  /** The picture before; an engine makes one at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: SharedOptions) {
    const { signal } = this.#loading;
    const onProgress = (progress: LoadProgress): void => this.listeners.forEach((listener) => listener(progress));
    // A microtask later, when those that this one replaces have been let go.
    this.engine = Promise.resolve()
      .then(() => freed)
      .then(() => createEngine({ ...options, signal, onProgress }));
    this.engine.catch(() => (this.isBroken = true));
  }

  generate(options: GenerateOptions): Promise<GeneratedImage> {
    const { signal } = options;
    const picture = this.#turn.then(async () => {
      const engine = await this.engine;
      throwIfAborted(signal);
      return engine.generate(options);
    });
    this.#turn = picture.catch((error) => {
      if (error instanceof MixdqError && LOST.includes(error.code)) this.isBroken = true;
    });
    return unlessAborted(picture, signal);
  }

  end(): void {
    if (this.#loading.signal.aborted) return;
    this.#loading.abort();
    const end = this.engine.then((engine) => engine.dispose()).catch(() => {}); // whoever waited for it was told
    freed = Promise.all([freed, end]);
  }
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(new MixdqError("aborted", "The run was cancelled."));
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
