/** An engine: a pipeline that makes one picture at a time and can be asked, cancelled and disposed at any moment. */
import { GeneratedImage } from "./api/image.ts";
import { readPicture, type ReadOptions } from "./api/inputImage.ts";
import { checkOptions, GENERATE_OPTIONS } from "./api/options.ts";
import { asMixdqError, MixdqError } from "./base/errors.ts";
import { atMost, Queue, settled, soonAfterAbort } from "./base/queue.ts";
import type { EngineInfo, GenerateOptions, GenerateRequest, RawImage, StepEvent } from "./base/types.ts";
import type { Pipeline } from "./pipeline.ts";

/** What `stream` yields: the stages as they begin, then the picture. */
export type StreamEvent =
  | StepEvent
  | {
      /** The picture is there. No event follows. */
      readonly type: "image";
      /** The picture. */
      readonly image: GeneratedImage;
    };

/** A loaded model that makes one picture at a time. */
export interface Engine {
  /** The model, its defaults, and what it runs on. */
  readonly info: EngineInfo;
  /**
   * One picture. Throws MixdqError; `busy` while another one is being made that was not aborted: abort it and ask in the
   * same breath, and the newest wins (see base/queue.ts). After all codes but `device-lost` the engine makes the next
   * picture, after `out-of-memory` a smaller one. Where a worker does not answer an abort within a second it is ended,
   * and the next picture loads the model again, with `onProgress`.
   */
  generate(options: GenerateOptions): Promise<GeneratedImage>;
  /** The same as events, the picture last. Leaving the loop early cancels the run. Throws as `generate`. */
  stream(options: GenerateOptions): AsyncGenerator<StreamEvent, void, void>;
  /** Cancels what runs, frees the GPU memory and ends the worker. */
  dispose(): Promise<void>;
}

/** Loads that were cancelled and still hold memory: the next one waits for them, but not for long. */
let cancelled: Promise<void> = Promise.resolve();
const PATIENCE_MS = 2000;

/**
 * The engine of the pipeline that `load` makes; `readPath` reads pictures that are named by a path. An abort is answered at once. Throws MixdqError; a pipeline that arrives
 * after that is disposed of.
 * @internal
 */
export async function engineOf(
  load: () => Promise<Pipeline>,
  signal: AbortSignal | undefined,
  readPath?: ReadOptions["readPath"],
): Promise<Engine> {
  const loading = atMost(PATIENCE_MS, cancelled).then(load);
  try {
    return new QueuedEngine(await soonAfterAbort(loading, signal), readPath);
  } catch (error) {
    const end = loading.then((pipeline) => pipeline.dispose());
    cancelled = settled(Promise.all([cancelled, settled(end)]));
    throw asMixdqError(error);
  }
}

/** The request with its pictures as bytes, which a worker can be sent. */
async function withPixels(
  { image, mask, ...rest }: Omit<GenerateOptions, "signal" | "onStep">,
  options: ReadOptions,
): Promise<GenerateRequest> {
  return {
    ...rest,
    ...(image !== undefined && { image: await readPicture(image, "image", options) }),
    ...(mask !== undefined && { mask: await readPicture(mask, "mask", options) }),
  };
}

class QueuedEngine implements Engine {
  readonly #pipeline: Pipeline;
  readonly #queue = new Queue();
  readonly #disposed = new AbortController();
  #end: Promise<void> | undefined;

  readonly #readPath: ReadOptions["readPath"];

  constructor(pipeline: Pipeline, readPath: ReadOptions["readPath"]) {
    this.#pipeline = pipeline;
    this.#readPath = readPath;
  }

  get info(): EngineInfo {
    return this.#pipeline.info;
  }

  async generate(given: GenerateOptions): Promise<GeneratedImage> {
    checkOptions("generate", given, GENERATE_OPTIONS);
    const { signal: ownSignal, onStep, ...options } = given;
    if (this.#disposed.signal.aborted) {
      throw new MixdqError("invalid-input", "This engine was disposed; create a new one with createEngine.");
    }
    const signal = ownSignal ? AbortSignal.any([ownSignal, this.#disposed.signal]) : this.#disposed.signal;
    const work = async (): Promise<RawImage> => {
      const request = await withPixels(options, { signal, readPath: this.#readPath });
      return this.#pipeline.generate(request, { signal, onStep });
    };
    const raw = await this.#queue.run(work, signal).catch((error: unknown) => {
      throw asMixdqError(error);
    });
    return new GeneratedImage(raw);
  }

  async *stream(given: GenerateOptions): AsyncGenerator<StreamEvent, void, void> {
    checkOptions("stream", given, GENERATE_OPTIONS);
    const { signal, onStep, ...options } = given;
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
    await (this.#end ??= this.#pipeline.dispose());
  }
}
