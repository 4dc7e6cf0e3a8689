/**
 * `const { generate, image, status, error } = useMixdq({ model: "models/postcard", precision: "w4a8" })`: an engine for as
 * long as a component is mounted, and what it is doing as state. Importing this file does nothing, nor does rendering
 * on a server.
 *
 * The model begins to load when the component is mounted, because that is what takes long; with `enabled: false` not before
 * the first `generate`, for a page that should not download gigabytes unasked. Components with equal options share
 * one engine and take turns; changed options (by value) cancel what runs and replace the engine.
 */
import { useEffect, useMemo, useState, useSyncExternalStore } from "react";
import { asMixdqError, MixdqError, throwIfAborted } from "./base/errors.ts";
import { findOptionMistake, ENGINE_OPTIONS, YES_OR_NO, type OptionTypes } from "./api/options.ts";
import type { Engine, GeneratedImage } from "./index.ts";
import { type SharedEngine, type SharedOptions, acquire, engineKey } from "./sharedEngine.ts";
import type { GenerateOptions, LoadProgress, StepEvent } from "./base/types.ts";

/** What `useMixdq` takes: `createEngine`'s options, compared by value. */
export interface UseMixdqOptions extends SharedOptions {
  /** false: the model is loaded by the first `generate`, and `cancel` ends that too. Default: true. */
  enabled?: boolean;
}

/** ready: loaded, and nothing runs. idle: neither loaded nor asked for. After an error `generate` tries again. */
export type MixdqStatus = "idle" | "loading" | "ready" | "generating" | "error";

/** What the hook's engine is doing. */
export interface MixdqState {
  /** In one word. */
  readonly status: MixdqStatus;
  /** Of the model's loading. */
  readonly progress: LoadProgress | undefined;
  /** Of the picture that is being made. */
  readonly stage: StepEvent | undefined;
  /** The last picture; it stays until the next one is there, also when options change. */
  readonly image: GeneratedImage | undefined;
  /** Why the model did not load or the last picture failed. A cancelled one is no error. */
  readonly error: MixdqError | undefined;
  /** Once loaded, for its `info`. It is shared: pictures and its end are the hook's business. */
  readonly engine: Engine | undefined;
}

/** What `useMixdq` returns: state, and what to do with it. */
export interface Mixdq extends MixdqState {
  /**
   * One picture, which is also the next `image`. Cancels the one before, unless that will be there within a second: called
   * with every key that is typed, it shows pictures while typing. Throws MixdqError, `aborted` after a cancel; who reads
   * `error` instead need not catch. Like `cancel` it stays the same function while the options are equal.
   */
  readonly generate: (options: GenerateOptions) => Promise<GeneratedImage>;
  /** Cancels this component's picture, if one is being made. */
  readonly cancel: () => void;
}

const { signal: _signal, onProgress: _onProgress, ...SHARED_OPTIONS } = ENGINE_OPTIONS;
const HOOK_OPTIONS: OptionTypes<UseMixdqOptions> = { ...SHARED_OPTIONS, enabled: YES_OR_NO };

/** An engine for as long as the component is mounted. Options that cannot be are its `error`, `invalid-input`. */
export function useMixdq(given: UseMixdqOptions): Mixdq {
  const found = findOptionMistake("useMixdq", given, HOOK_OPTIONS);
  // The same object while it says the same: effects may depend on it.
  const mistake = useMemo(() => found, [found?.message]);
  const refuse = useMemo(() => () => refusal(mistake!), [mistake]);
  const { enabled = true, ...options } = mistake ? { ...NO_OPTIONS, enabled: false } : given;
  const mixdq = useStore(options, enabled);
  return mistake ? { ...mixdq, status: "error", error: mistake, generate: refuse } : mixdq;
}

/** Whoever reads `error` instead need not catch. */
function refusal(mistake: MixdqError): Promise<never> {
  const refused = Promise.reject<never>(mistake);
  refused.catch(() => {});
  return refused;
}

const NO_OPTIONS: SharedOptions = { model: "" };

function useStore(options: SharedOptions, enabled: boolean): Mixdq {
  const [kept, setStore] = useState(() => new Store(options));
  let store = kept;
  if (store.key !== engineKey(options)) {
    // During the render: no component ever sees one engine's state with another's options.
    store = new Store(options, kept.state().image);
    setStore(store);
  }
  const state = useSyncExternalStore(store.subscribe, store.state, store.state);
  useEffect(store.mount, [store]);
  useEffect(() => {
    if (enabled) store.load();
  }, [store, enabled]);
  // Before it is mounted, and on a server, it is about to load.
  const status = state.status === "idle" && enabled ? "loading" : state.status;
  return { ...state, status, generate: store.generate, cancel: store.cancel };
}

const NOTHING: MixdqState = {
  status: "idle",
  progress: undefined,
  stage: undefined,
  image: undefined,
  error: undefined,
  engine: undefined,
};

/** What React calls an external store, for one set of options. It holds an engine only while it is mounted. */
class Store {
  readonly key: string;
  readonly #options: SharedOptions;
  readonly #listeners = new Set<() => void>();
  #state: MixdqState;
  #isMounted = false;
  /** The model is to be loaded whether or not there is a picture to make. */
  #isWanted = false;
  #held: SharedEngine | undefined;
  /** The request that was made last, until it has come to its end. */
  #newest: object | undefined;

  constructor(options: SharedOptions, image?: GeneratedImage) {
    this.key = engineKey(options);
    this.#options = options;
    this.#state = { ...NOTHING, image };
  }

  readonly state = (): MixdqState => this.#state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** Returns the way back; it may be mounted again (StrictMode does). */
  readonly mount = (): (() => void) => {
    this.#isMounted = true;
    return () => {
      this.#isMounted = false;
      this.cancel();
      this.#letGo();
    };
  };

  load(): void {
    this.#isWanted = true;
    this.#hold();
  }

  readonly generate = (options: GenerateOptions): Promise<GeneratedImage> => {
    const image = this.#generate(options);
    image.catch(() => {}); // it is in `error`
    return image;
  };

  readonly cancel = (): void => {
    if (!this.#newest) return;
    this.#newest = undefined;
    this.#held?.cancel();
    if (!this.#isWanted && !this.#state.engine) this.#letGo();
    this.#set({ stage: undefined });
  };

  async #generate({ onStep, ...request }: GenerateOptions): Promise<GeneratedImage> {
    const asked = (this.#newest = {});
    this.#set({ stage: undefined, error: undefined });
    try {
      await null; // an effect of a child's comes before ours, which mounts
      if (!this.#isMounted || this.#newest !== asked) throw new MixdqError("aborted", "The run was cancelled.");
      throwIfAborted(request.signal);
      const image = await this.#hold().generate({
        ...request,
        onStep: (stage) => {
          if (this.#newest) this.#set({ stage });
          onStep?.(stage);
        },
      });
      if (this.#newest === asked) this.#newest = undefined;
      this.#set({ stage: undefined, image });
      return image;
    } catch (thrown) {
      const error = asMixdqError(thrown);
      if (this.#newest !== asked) throw error; // cancelled, or another picture is wanted by now
      if (error.code === "aborted") this.cancel();
      else this.#fail(error);
      throw error;
    }
  }

  /** The engine, loading if need be. */
  #hold(): SharedEngine {
    if (this.#held && !this.#held.isBroken) return this.#held;
    this.#letGo();
    const held = acquire(this.#options, (progress) => this.#set({ progress }));
    this.#held = held;
    this.#set({ error: undefined });
    held.engine.then(
      (engine) => this.#held === held && this.#set({ engine }),
      (error) => this.#held === held && this.#fail(asMixdqError(error)),
    );
    return held;
  }

  #letGo(): void {
    this.#held?.release();
    this.#held = undefined;
    this.#set({ engine: undefined, progress: undefined });
  }

  #fail(error: MixdqError): void {
    this.#newest = undefined;
    if (this.#held?.isBroken) this.#letGo(); // what is left of it takes up memory
    this.#set({ stage: undefined, error });
  }

  #set(change: Partial<Omit<MixdqState, "status">>): void {
    const state = { ...this.#state, ...change };
    this.#state = { ...state, status: this.#statusOf(state) };
    for (const listener of this.#listeners) listener();
  }

  #statusOf({ error, engine }: MixdqState): MixdqStatus {
    if (error) return "error";
    if (!engine) return this.#held || this.#newest ? "loading" : "idle";
    return this.#newest ? "generating" : "ready";
  }
}
