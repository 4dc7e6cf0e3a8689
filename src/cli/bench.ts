/** `mixdq bench`: a picture of the default size, checked against itself, then timed; --debug 2 prints a table by kernel. */
import { requestNodeGpu } from "../node/adapter.ts";
import { loadPipeline } from "../pipeline.ts";
import { modelFiles } from "../node/modelFiles.ts";
import { command } from "./command.ts";
import { integer, withDefault } from "./flags.ts";
import { modelFlag } from "./defaults.ts";
import { RUN_FLAGS, runFlags, type RunFlags } from "./options.ts";

const PROMPT = "a red house by the sea at sunset with two pine trees";

export const bench = command({
  name: "bench",
  summary: "times a picture of the default size, which is checked against itself first",
  flags: {
    runs: withDefault(integer("pictures to time after a warm-up"), 5),
    model: modelFlag(),
    ...RUN_FLAGS,
  },
  run: async ({ runs, model, ...flags }) => timePictures(runs, model, runFlags(flags)),
});

async function timePictures(runs: number, model: string, run: RunFlags): Promise<void> {
  const pipeline = await loadPipeline({
    ...run,
    ...(run.backend === "webgpu" && { gpu: await requestNodeGpu(run.adapter) }),
    files: await modelFiles(model),
  });
  const first = await pipeline.generate({ prompt: PROMPT, seed: 1 });
  const rows: Record<string, number[]> = { encodeMs: [], unetMs: [], decodeMs: [], totalMs: [] };
  for (let i = 0; i < runs; i++) {
    const image = await pipeline.generate({ prompt: PROMPT, seed: 1 });
    if (image.data.some((value, at) => value !== first.data[at]))
      throw new Error("two runs with the same seed gave different pictures: nothing was timed");
    for (const [name, times] of Object.entries(rows)) times.push(image.stats[name as keyof typeof image.stats]);
  }
  console.log(
    `${first.width}x${first.height}, ${first.stats.steps} step(s), ${run.precision}, ${pipeline.info.adapter}`,
  );
  for (const [name, times] of Object.entries(rows)) {
    const sorted = times.toSorted((a, b) => a - b);
    const median = sorted[Math.floor(sorted.length / 2)];
    console.log(
      `${name.padEnd(10)} median ${median.toFixed(1)} ms, ${sorted[0].toFixed(1)} to ${sorted.at(-1)!.toFixed(1)}`,
    );
  }
}
