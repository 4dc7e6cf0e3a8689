/**
 * The encoders on a GPU, and whole pictures from pictures there, against diffusers (e2e/golden/make_editing.py). Their
 * kernels in every form, strided convolutions padded at the end included, are kernels.spec.ts's; all other runs are computed by the kernels' CPU twins in src/model/editing.test.ts.
 */
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { readModel } from "../src/model/description.ts";
import {
  encoderInput,
  filesOf,
  floats,
  GOLDEN,
  psnr,
  relativeL2,
  requestOf,
  runs,
} from "../src/model/editing.testing.ts";
import { ModelGraphs } from "../src/model/graphs.ts";
import { toChannelsFirst, toChannelsLast } from "../src/model/layout.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type Intermediates } from "../src/pipeline.ts";
import { createRuntime } from "../src/runtime/backend.ts";
import { findComponent } from "../src/weights/folder.ts";

/** float32 sums in another order, over one network, and over up to 9 calls of the UNet. */
const ENCODER_TOLERANCE = 1e-4;
const LATENTS_TOLERANCE = 1e-3;
/** Range 2, dB. */
const LEAST_PSNR = 45;

let gpu: GPU;
beforeAll(async () => {
  gpu = await requestNodeGpu("auto");
});

describe("an encoder alone", () => {
  test.each(["sd15-ancestral", "postcard"])("%s", async (name) => {
    const files = await diskFiles(path.join(GOLDEN, name === "postcard" ? "../../models/postcard" : name));
    const description = await readModel(files);
    const { scale, latentChannels, kind } = description.vae;
    const size = { height: 48 / scale, width: 64 / scale };
    const component = new ModelGraphs(description, "fp32", undefined).encoderComponent(size);
    const runtime = await createRuntime({ backend: "webgpu", gpu });
    try {
      const weights = await findComponent(files, component.component, { precision: "fp32" });
      const network = await runtime.load({ ...component, weights });
      const pixels = toChannelsLast(encoderInput(), { channels: 3, width: 64, height: 48 });
      const [values] = Object.values(await network.run(component.graphs[0], { pixels }));
      const channels = (kind === "AutoencoderKL" ? 2 : 1) * latentChannels;
      const error = relativeL2(toChannelsFirst(values, { channels, ...size }), floats(`encode.${name}`));
      console.log(`${name}: ${error.toExponential(1)}`);
      expect(error).toBeLessThanOrEqual(ENCODER_TOLERANCE);
    } finally {
      await runtime.dispose();
    }
  });
});

const onGpu = runs.filter(({ name }) => ["xl-tiny", "xl-kl-statistics", "inpaint-keep"].includes(name));
test.each(onGpu.map((run) => [run.name, run] as const))("%s", async (name, run) => {
  const pipeline = await loadPipeline({ files: await filesOf(run), precision: "fp32", gpu });
  try {
    let seen: Intermediates | undefined;
    const picture = await pipeline.generate(requestOf(run), { onIntermediates: (values) => (seen = values) });
    const latents = relativeL2(seen!.finalLatents, floats(`${name}.final_latents`));
    const decibels = psnr(seen!.image, floats(`${name}.image`));
    console.log(`${name}: latents ${latents.toExponential(1)}, picture ${decibels.toFixed(0)} dB`);
    expect(latents).toBeLessThanOrEqual(LATENTS_TOLERANCE);
    expect(decibels).toBeGreaterThanOrEqual(LEAST_PSNR);
    expect(picture.parameters["strength"]).toBe(String(run.strength));
    expect(picture.warnings).toEqual([]);
  } finally {
    await pipeline.dispose();
  }
});
