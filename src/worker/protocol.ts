/**
 * What crosses the thread boundary: plain data, and callbacks that Comlink proxies. Both sides agree without either
 * importing the other.
 */
import type { ErrorCode } from "../base/errors.ts";
import type {
  Backend,
  EngineInfo,
  GenerateRequest,
  LoadProgress,
  Precision,
  RawImage,
  StepEvent,
} from "../base/types.ts";

export interface LoadRequest {
  /** Absolute: a relative URL would be resolved against the worker's script, not against the page. */
  readonly model: string;
  /** Default: fp16, of a pack what it was made for. */
  readonly precision: Precision | undefined;
  /** Absolute URL of a bit-width configuration. */
  readonly config: string | undefined;
  readonly backend: Backend;
  /** Absolute URL of the folder with onnxruntime-web's modules. */
  readonly ortUrl: string | undefined;
  readonly stallMs: number | undefined;
  readonly debug: number;
}

/** What it takes to start a worker and load. */
export interface StartRequest extends LoadRequest {
  /** Absolute URL of the worker's script instead of the one that bundlers find. */
  readonly workerUrl: string | undefined;
}

/** The first message from a worker: its script was found and runs. */
export const STARTED = "mixdq-engine: started";

/** Comlink would turn a thrown error into one without its code, so errors cross as data. */
export type Outcome<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly code: ErrorCode; readonly message: string };

export interface EngineWorker {
  load(job: number, request: LoadRequest, onProgress: (progress: LoadProgress) => void): Promise<Outcome<EngineInfo>>;
  generate(job: number, request: GenerateRequest, onStep: (event: StepEvent) => void): Promise<Outcome<RawImage>>;
  /** Stops a load or a generate; it then ends with `aborted`. Unknown numbers are jobs that have just ended. */
  cancel(job: number): void;
  dispose(): Promise<void>;
  /** Takes a Web Lock for as long as the worker lives; resolves when it is held. */
  holdLock(name: string): Promise<void>;
}
