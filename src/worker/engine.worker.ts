/**
 * The far side of the thread boundary: the pipeline, behind the protocol. It keeps no queue of its own (queue.ts on
 * the near side sends one job at a time); what it adds is cancellation by message, because an AbortSignal cannot cross.
 */
import { expose, transfer } from "comlink";
import { MixdqError } from "../base/errors.ts";
import { type Pipeline, loadPipeline } from "../pipeline.ts";
import { httpFiles } from "../weights/http.ts";
import { STARTED, type EngineWorker, type Outcome } from "./protocol.ts";

const jobs = new Map<number, AbortController>();
let pipeline: Pipeline | undefined;

async function run<T>(job: number, work: (signal: AbortSignal) => Promise<T>): Promise<Outcome<T>> {
  const controller = new AbortController();
  jobs.set(job, controller);
  try {
    return { ok: true, value: await work(controller.signal) };
  } catch (error) {
    // A fetch that is aborted throws the browser's own AbortError: what the caller asked for decides the code.
    if (controller.signal.aborted) return { ok: false, code: "aborted", message: "The run was cancelled." };
    if (error instanceof MixdqError) return { ok: false, code: error.code, message: error.message };
    console.error(error);
    return { ok: false, code: "invalid-output", message: `The engine stopped unexpectedly: ${String(error)}` };
  } finally {
    jobs.delete(job);
  }
}

const worker: EngineWorker = {
  load: (job, { model, ...options }, onProgress) =>
    run(job, async (signal) => {
      pipeline = await loadPipeline({ ...options, files: httpFiles(model, options), onProgress, signal });
      return pipeline.info;
    }),

  generate: (job, request, onStep) =>
    run(job, async (signal) => {
      if (!pipeline) throw new MixdqError("invalid-input", "generate was called before the model was loaded.");
      return await pipeline.generate(request, { signal, onStep });
    }).then((outcome) => (outcome.ok ? transfer(outcome, [outcome.value.data.buffer]) : outcome)),

  cancel: (job) => jobs.get(job)?.abort(),

  dispose: async () => {
    for (const controller of jobs.values()) controller.abort();
    await pipeline?.dispose();
    pipeline = undefined;
  },
};

expose(worker);
postMessage(STARTED);
