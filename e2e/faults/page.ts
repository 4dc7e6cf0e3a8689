/** A page as an app has it, steered by the test through `window.faults`: engines by name, and what became of each call. */
import * as mixdq from "../../src/index.ts";
import { createEngine, type Engine, type EngineOptions, type GenerateOptions } from "../../src/index.ts";
import { defineMixdqImage } from "../../src/element.ts";

/** What a call came to: "ok" or the error's code. */
export interface Outcome {
  readonly code: string;
  readonly message: string;
  /** SHA-256 of the picture's pixels. */
  readonly digest?: string;
}

/** A moment: so many events into a call, or so many milliseconds. */
export interface Moment {
  readonly events?: number;
  readonly ms?: number;
}

export class Faults {
  /** Events of loading and of pictures since the page was opened; the test waits for them. */
  readonly events: string[] = [];
  /** Of the load that was heard of last. */
  loadedBytes = 0;
  readonly #engines = new Map<string, Engine>();
  readonly #calls = new Map<string, Promise<Outcome>>();

  create(name: string, options: EngineOptions, abort?: Moment): Promise<Outcome> {
    return this.#cancellable(abort, async (signal) => {
      const onProgress: EngineOptions["onProgress"] = ({ status, file, loadedBytes }) => {
        this.loadedBytes = loadedBytes;
        this.#note(`${status} ${file ?? ""}`);
      };
      this.#engines.set(name, await createEngine({ ...options, onProgress, signal }));
      return undefined;
    });
  }

  generate(name: string, options: GenerateOptions, abort?: Moment): Promise<Outcome> {
    return this.#cancellable(abort, async (signal) => {
      const onStep: GenerateOptions["onStep"] = ({ type }) => this.#note(type);
      return (await this.#engines.get(name)!.generate({ ...options, onStep, signal })).data;
    });
  }

  /** Calls that the test does something beside of; `ended` tells what became of them. */
  begin(call: string, work: "create" | "generate", ...args: [string, EngineOptions & GenerateOptions, Moment?]): void {
    this.#calls.set(call, this[work](...args));
  }

  ended(call: string): Promise<Outcome> {
    return this.#calls.get(call)!;
  }

  /** A request with every key that is typed; each cancels the one before. */
  async type(name: string, options: GenerateOptions, keys: number, everyMs: number): Promise<Outcome[]> {
    const outcomes: Promise<Outcome>[] = [];
    let controller = new AbortController();
    for (let key = 1; key <= keys; key++) {
      controller.abort();
      controller = new AbortController();
      const { signal } = controller;
      const request = { ...options, prompt: options.prompt.slice(0, key), signal };
      outcomes.push(outcomeOf(async () => (await this.#engines.get(name)!.generate(request)).data));
      await new Promise((resolve) => setTimeout(resolve, everyMs));
    }
    return Promise.all(outcomes);
  }

  /** As a browser ends a worker, without a word to whoever made it. */
  endWorkers(): void {
    for (const worker of workers) worker.terminate();
  }

  dispose(name: string): Promise<Outcome> {
    return outcomeOf(async () => {
      await this.#engines.get(name)!.dispose();
      return undefined;
    });
  }

  /** Cancels whatever runs now. */
  abortAll(): void {
    for (const controller of [...this.#running]) controller.abort();
  }

  readonly #running = new Set<AbortController>();
  readonly #listeners = new Set<() => void>();

  #note(event: string): void {
    this.events.push(event);
    for (const listener of [...this.#listeners]) listener();
  }

  async #cancellable(abort: Moment | undefined, work: (signal: AbortSignal) => ReturnType<Work>): Promise<Outcome> {
    const controller = new AbortController();
    this.#running.add(controller);
    let left = abort?.events ?? Infinity;
    const listener = (): void => {
      if (--left === 0) controller.abort();
    };
    this.#listeners.add(listener);
    const timer = abort?.ms !== undefined && setTimeout(() => controller.abort(), abort.ms);
    try {
      return await outcomeOf(() => work(controller.signal));
    } finally {
      if (timer !== false) clearTimeout(timer);
      this.#listeners.delete(listener);
      this.#running.delete(controller);
    }
  }
}

type Work = () => Promise<Uint8ClampedArray<ArrayBuffer> | undefined>;

async function outcomeOf(work: Work): Promise<Outcome> {
  try {
    const pixels = await work();
    if (!pixels) return { code: "ok", message: "" };
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", pixels));
    return { code: "ok", message: "", digest: [...hash].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
  } catch (error) {
    // Without a type it is a failure of the test.
    const { name, code, message } = error as { name: string; code?: string; message: string };
    return { code: name === "MixdqError" ? code! : `untyped ${name}`, message };
  }
}

/** Workers that were made, for ending them from outside. */
const workers: Worker[] = [];
window.Worker = class extends Worker {
  constructor(...args: ConstructorParameters<typeof Worker>) {
    super(...args);
    workers.push(this);
  }
};

Object.assign(window, { faults: new Faults(), mixdq });
defineMixdqImage();
