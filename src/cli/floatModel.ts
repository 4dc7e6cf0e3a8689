/** The float model as `mixdq calibrate` and `mixdq sensitivity` run it: to look into it. */
import { createRuntime } from "../runtime/backend.ts";
import { loadModel } from "../model/load.ts";
import type { LoadedModel } from "../model/loaded.ts";
import type { ModelDescription } from "../model/description.ts";
import type { ModelFiles } from "../weights/files.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import { runFlags, text, type Flags, type RunFlags } from "./options.ts";
import { invalidInput } from "../base/errors.ts";
import { progressLine } from "../node/progress.ts";

const PRECISIONS = ["fp32", "fp16"];

/** fp32 unless the flags say fp16. `does` is what the command does to the model, for messages. Throws `invalid-input`. */
export function floatRunFlags(flags: Flags, does: string): RunFlags {
  const precision = text(flags, "precision") ?? "fp32";
  if (!PRECISIONS.includes(precision) || flags["config"] !== undefined)
    throw invalidInput(
      `${flags["config"] === undefined ? `--precision ${precision}` : "--config"}: ${does} the float model, ` +
        `expected --precision ${PRECISIONS.join(" or ")} and no --config.`,
    );
  const run = runFlags({ ...flags, precision });
  if (run.backend !== "webgpu")
    throw invalidInput(`--backend ${run.backend}: ${does} the float model tensor by tensor, only webgpu allows that.`);
  return run;
}

/** All of the model on the GPU, with a line about it while it loads. */
export async function loadFloatModel(
  description: ModelDescription,
  files: ModelFiles,
  run: RunFlags,
): Promise<LoadedModel> {
  const loading = progressLine();
  const runtime = await createRuntime({ ...run, gpu: await requestNodeGpu(run.adapter) });
  const model = await loadModel(description, runtime, {
    files,
    precision: run.precision,
    onProgress: ({ status, loadedBytes, progress, file }) =>
      loading.show(`${status} ${progress.toFixed(0)} % ${(loadedBytes / 1e6).toFixed(1)} MB ${file ?? ""}`),
  });
  loading.end();
  return model;
}
