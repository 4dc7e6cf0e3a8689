/** The float model as `mixdq calibrate` and `mixdq sensitivity` run it: to look into it. */
import { createRuntime } from "../runtime/backend.ts";
import { loadModel } from "../model/load.ts";
import type { LoadedModel } from "../model/loaded.ts";
import type { ModelDescription } from "../model/description.ts";
import type { ModelFiles } from "../weights/files.ts";
import { requestNodeGpu } from "../node/adapter.ts";
import type { Precision } from "../base/types.ts";
import type { Values } from "./flags.ts";
import { RUN_FLAGS, runFlags, type RunFlags } from "./options.ts";
import { invalidInput } from "../base/errors.ts";
import { progressLine } from "../node/progress.ts";

const FLOATS: readonly Precision[] = ["fp32", "fp16"];

/** fp32 unless the flags say fp16. `does` is what the command does to the model, for messages. Throws `invalid-input`. */
export function floatRunFlags(flags: Partial<Values<typeof RUN_FLAGS>>, does: string): RunFlags {
  const { precision = "fp32", config } = flags;
  if (!FLOATS.includes(precision) || config !== undefined)
    throw invalidInput(
      `${config === undefined ? `--precision ${precision}` : "--config"}: ${does} the float model, ` +
        `expected --precision ${FLOATS.join(" or ")} and no --config.`,
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
