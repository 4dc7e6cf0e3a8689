/** An engine: a pipeline that makes one picture at a time and can be asked, cancelled and disposed at any moment. */
import { GeneratedImage } from "./api/image.ts";
import { MixdqError } from "./base/errors.ts";
import type { EngineInfo, GenerateOptions, StepEvent } from "./base/types.ts";
import type { Pipeline } from "./pipeline.ts";
import { Queue } from "./worker/queue.ts";

/** What `stream` yields: the stages as they begin, then the picture. */
export type StreamEvent = StepEvent | { readonly type: "image"; readonly image: GeneratedImage };

export interface Engine {
  readonly info: EngineInfo;
  /** One picture. Throws MixdqError; `busy` while another one is being made (see worker/queue.ts). */
  generate(options: GenerateOptions): Promise<GeneratedImage>;
  /** The same as events. Leaving the loop early cancels the run. */
  stream(options: GenerateOptions): AsyncGenerator<StreamEvent, void, void>;
  /** Cancels what runs, frees the GPU memory and ends the worker. */
  dispose(): Promise<void>;
}

/**
 * The engine of the pipeline that `load` makes; an abort is answered at once.
 * @internal
 */
export async function engineOf(load: () => Promise<Pipeline>, signal: AbortSignal | undefined): Promise<Engine> {
  // Through a queue of its own only for its way of ending soon after an abort.
  return new QueuedEngine(await new Queue().run(load, signal));
}

class QueuedEngine implements Engine {
  readonly #pipeline: Pipeline;
  readonly #queue = new Queue();
  readonly #disposed = new AbortController();

  constructor(pipeline: Pipeline) {
    this.#pipeline = pipeline;
  }

  get info(): EngineInfo {
    return this.#pipeline.info;
  }

  async generate({ signal: ownSignal, onStep, ...options }: GenerateOptions): Promise<GeneratedImage> {
    if (this.#disposed.signal.aborted) {
      throw new MixdqError("invalid-input", "This engine was disposed; create a new one with createEngine.");
    }
    const signal = ownSignal ? AbortSignal.any([ownSignal, this.#disposed.signal]) : this.#disposed.signal;
    const raw = await this.#queue.run(() => this.#pipeline.generate(options, { signal, onStep }), signal);
    return new GeneratedImage(raw);
  }

  async *stream({ signal, onStep, ...options }: GenerateOptions): AsyncGenerator<StreamEvent, void, void> {
    const left = new AbortController();
    const events: StreamEvent[] = [];
    let wake = (): void => {};
    const push = (event: StreamEvent): void => {
      events.push(event);
      wake();
    };
    const finished = this.generate({
      ...options,
      signal: signal ? AbortSignal.any([signal, left.signal]) : left.signal,
      onStep: (event) => {
        onStep?.(event);
        push(event);
      },
    }).then((image) => push({ type: "image", image }));

    try {
      for (;;) {
        const arrived = new Promise<void>((resolve) => (wake = resolve));
        // A failure wins the race and leaves through the loop; a success has pushed the image.
        if (events.length === 0) await Promise.race([arrived, finished]);
        const event = events.shift();
        if (!event) continue;
        yield event;
        if (event.type === "image") return;
      }
    } finally {
      left.abort();
      await finished.catch(() => {});
    }
  }

  async dispose(): Promise<void> {
    this.#disposed.abort();
    await this.#queue.idle();
    await this.#pipeline.dispose();
  }
}
