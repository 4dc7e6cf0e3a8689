/**
 * One engine for everything on a page that wants the same model in the same way: its weights are the larger part of what
 * a picture needs. Its users' pictures take turns, and the last user to let go ends it. One that is wanted again
 * before the task is over (a component that StrictMode mounts twice, or that takes another's place) never ended.
 */
import { checkOptions, GENERATE_OPTIONS } from "./api/options.ts";
import { MixdqError, throwIfAborted } from "./base/errors.ts";
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
  /**
   * Once loaded, and after the pictures that others asked for before. An abort is answered at once, also while it waits.
   * Of one user's requests the newest wins: it cancels the one before, unless that will be there in a moment (SOON_MS).
   * So whoever asks with every key that is typed sees pictures while typing, where they take less than that.
   */
  generate(options: GenerateOptions): Promise<GeneratedImage>;
  /** Cancels this user's pictures. */
  cancel(): void;
  /** Lets go, once, and cancels. */
  release(): void;
}

/** Equal for options that one engine can serve. */
export function engineKey(options: SharedOptions): string {
  const { model, precision, config, backend, cache, worker, workerUrl, ortUrl, debug } = options;
  return JSON.stringify([model, precision, config, backend, cache, worker, workerUrl, ortUrl, debug]);
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
  const requests = new Requests(shared);
  let isHeld = true;
  shared.users++;
  shared.listeners.add(onProgress);
  return {
    key,
    engine: shared.engine,
    get isBroken() {
      return shared.isBroken;
    },
    generate: (request) => requests.add(request),
    cancel: () => requests.cancel(),
    release: () => {
      if (!isHeld) return;
      isHeld = false;
      if (!shared.isBroken) requests.cancel(); // else they fail by themselves, and say why
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

/** A picture that takes no longer is worth waiting for: cancelling it could take a quarter as long, and shows nothing. */
const SOON_MS = 1000;

interface Running {
  readonly own: AbortController;
  /** When the picture should be there, in performance.now's milliseconds. */
  readonly end: number;
}

/** A picture that nobody waits for any more may be a little late, but not very. */
function cancelUnlessSoon({ own, end }: Running): void {
  const left = end - performance.now();
  if (Math.abs(left) > SOON_MS) own.abort();
  else setTimeout(() => own.abort(), left + SOON_MS);
}

/** What one user asked for: at most one picture that is being made, and one that waits for its turn. */
class Requests {
  readonly #shared: Shared;
  #waiting: AbortController | undefined;
  #running: Running | undefined;

  constructor(shared: Shared) {
    this.#shared = shared;
  }

  async add(options: GenerateOptions): Promise<GeneratedImage> {
    checkOptions("generate", options, GENERATE_OPTIONS); // before a model is waited for
    const own = new AbortController();
    this.#waiting?.abort();
    this.#waiting = own;
    if (this.#running) cancelUnlessSoon(this.#running);
    const signal = options.signal ? AbortSignal.any([options.signal, own.signal]) : own.signal;
    const onBegin = (): void => {
      if (this.#waiting === own) this.#waiting = undefined;
      this.#running = { own, end: performance.now() + this.#shared.expectedMs(options) };
    };
    try {
      return await this.#shared.generate({ ...options, signal }, onBegin);
    } finally {
      if (this.#waiting === own) this.#waiting = undefined;
      if (this.#running?.own === own) this.#running = undefined;
    }
  }

  cancel(): void {
    this.#waiting?.abort();
    this.#running?.own.abort();
  }
}

/** What decides how long a picture takes. */
const workOf = ({ numInferenceSteps, width, height }: GenerateOptions): string =>
  JSON.stringify([numInferenceSteps, width, height]);

class Shared {
  readonly engine: Promise<Engine>;
  readonly listeners = new Set<(progress: LoadProgress) => void>();
  users = 0;
  isBroken = false;
  readonly #loading = new AbortController();
  /** The picture before; an engine makes one at a time. */
  #turn: Promise<void> = Promise.resolve();
  /** How long the last picture took. */
  #last: { readonly work: string; readonly ms: number } | undefined;

  constructor(options: SharedOptions) {
    const { signal } = this.#loading;
    const onProgress = (progress: LoadProgress): void => this.listeners.forEach((listener) => listener(progress));
    // A microtask later, when those that this one replaces have been let go.
    this.engine = Promise.resolve()
      .then(() => freed)
      .then(() => createEngine({ ...options, signal, onProgress }));
    this.engine.catch(() => (this.isBroken = true));
  }

  /** `onBegin`: its turn has come. */
  generate(options: GenerateOptions, onBegin: () => void): Promise<GeneratedImage> {
    const { signal } = options;
    const picture = this.#turn.then(async () => {
      const engine = await this.engine;
      throwIfAborted(signal);
      onBegin();
      const began = performance.now();
      const image = await engine.generate(options);
      this.#last = { work: workOf(options), ms: performance.now() - began };
      return image;
    });
    this.#turn = picture.then(
      () => {},
      (error) => {
        // After anything else the engine makes the next picture.
        if (error instanceof MixdqError && error.code === "device-lost") this.isBroken = true;
      },
    );
    return unlessAborted(picture, signal);
  }

  /** Infinity where no such picture was made just before. */
  expectedMs(options: GenerateOptions): number {
    return this.#last?.work === workOf(options) ? this.#last.ms : Infinity;
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
