/**
 * The far side of the thread boundary: the pipeline, behind the protocol. It keeps no queue of its own (queue.ts on
 * the near side sends one job at a time); what it adds is cancellation by message, because an AbortSignal cannot cross.
 */
import { expose, type ProxyMethods, releaseProxy, transfer } from "comlink";
import { asMixdqError, MixdqError } from "../base/errors.ts";
import { httpModel } from "../checkpoint/http.ts";
import { type Pipeline, loadPipeline } from "../pipeline.ts";
import { STARTED, type EngineWorker, type Outcome } from "./protocol.ts";

const jobs = new Map<number, AbortController>();
let pipeline: Pipeline | undefined;

/** `callback` is Comlink's, with a port of its own, which would else stay open until some garbage collection. */
async function run<T>(job: number, callback: unknown, work: (signal: AbortSignal) => Promise<T>): Promise<Outcome<T>> {
  const controller = new AbortController();
  jobs.set(job, controller);
  try {
    return { ok: true, value: await work(controller.signal) };
  } catch (error) {
    // A fetch that is aborted throws the browser's own AbortError: what the caller asked for decides the code.
    if (controller.signal.aborted) return { ok: false, code: "aborted", message: "The run was cancelled." };
    if (!(error instanceof MixdqError)) console.error(error);
    const { code, message } = asMixdqError(error);
    return { ok: false, code, message };
  } finally {
    jobs.delete(job);
    (callback as ProxyMethods)[releaseProxy]();
  }
}

const worker: EngineWorker = {
  load: (job, { model, parts, ...options }, onProgress) =>
    run(job, onProgress, async (signal) => {
      const files = await httpModel(model, parts, options, signal);
      pipeline = await loadPipeline({ ...options, files, onProgress, signal });
      return pipeline.info;
    }),

  generate: (job, request, onStep) =>
    run(job, onStep, async (signal) => {
      if (!pipeline) throw new MixdqError("invalid-input", "generate was called before the model was loaded.");
      return await pipeline.generate(request, { signal, onStep });
    }).then((outcome) => (outcome.ok ? transfer(outcome, [outcome.value.data.buffer]) : outcome)),

  cancel: (job) => jobs.get(job)?.abort(),

  dispose: async () => {
    for (const controller of jobs.values()) controller.abort();
    await pipeline?.dispose();
    pipeline = undefined;
  },

  holdLock: (name) =>
    new Promise((held, refused) => {
      const hold = (): Promise<never> => {
        held();
        return new Promise(() => {});
      };
      navigator.locks.request(name, hold).catch(refused);
    }),
};

expose(worker);
postMessage(STARTED);
