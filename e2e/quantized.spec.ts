/**
 * Quantized UNets against diffusers with rounded weights and inputs (e2e/golden/make_quantized.py): bits from 2 to 8,
 * symmetric or not, groups of 64, split shortcuts, the BOS cache, layers that stay in floats or keep a float input.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { firstTokens, readUNet, unetInputs } from "../src/cli/unet.ts";
import { buildUNet } from "../src/diffusion/unet.ts";
import { SIMPLE, TILED } from "../src/kernels/choices.ts";
import { createRuntime } from "../src/runtime/backend.ts";
import { parseMixdqConfig } from "../src/quant/config.ts";
import { quantizedStorage, type Runtime } from "../src/runtime/network.ts";
import { toChannelsFirst } from "../src/model/layout.ts";
import { quantizeGraph } from "../src/graph/quantize.ts";
import { readFloats } from "../src/weights/convert.ts";
import { findComponent } from "../src/weights/folder.ts";
import { parseSafetensors } from "../src/weights/safetensors.ts";
import { testAdapters } from "./adapters.ts";

const GOLDEN = path.join(import.meta.dirname, "golden");
const CASES = readdirSync(path.join(GOLDEN, "quantized"))
  .filter((name) => name.endsWith(".json"))
  .map((name) => path.basename(name, ".json"));

/** The tiled variant is some 80 pipelines: four minutes of a core. */
const PATIENCE_MS = 1_800_000;

/**
 * Relative L2. Integer weights over float inputs: sums in another order. Over integer inputs the sums are exact, but a float
 * between two layers may fall to the other side of the edge between two codes, and one code is 1/255 of a range.
 */
const TOLERANCE = { floats: 1e-4, codes: 2e-2 };

const read = (file: string) => parseSafetensors(readFileSync(file), file);

/** One case in the variant that a GPU gets; SwiftShader compiles that in half the time that lavapipe takes. */
const SETUPS = [
  { on: "lavapipe", kernels: SIMPLE, precisions: ["fp32", "w8a8"], cases: CASES },
  { on: "swiftshader", kernels: SIMPLE, precisions: ["fp32", "w8a8"], cases: CASES },
  { on: "swiftshader", kernels: TILED, precisions: ["w8a8"], cases: ["w4a8"] },
] as const;

describe.each(await testAdapters())("on $title", ({ name: adapter, isMissing }) => {
  // A machine without this adapter (the title says why); CI requires lavapipe, so that none is lost there unseen.
  if (isMissing) return void test.skip("every quantized case", () => {});
  const setups = SETUPS.filter(({ on }) => on === adapter).flatMap(({ kernels, precisions, cases }) =>
    precisions.map((precision) => ({ variant: kernels.int8, kernels, precision, cases })),
  );
  describe.each(setups)("$variant kernels in $precision", ({ kernels, precision, cases }) => {
    let runtime: Runtime;
    beforeAll(async () => {
      runtime = await createRuntime({ backend: "webgpu", gpu: await requestNodeGpu(adapter), kernels });
    });
    afterAll(() => runtime.dispose());

    test.each(cases)("%s", { timeout: PATIENCE_MS }, async (name) => {
      const file = path.join(GOLDEN, "quantized", `${name}.json`);
      const quantization = parseMixdqConfig(readFileSync(file, "utf8"), file);
      const folder = path.join(GOLDEN, quantization.model);
      const files = await diskFiles(folder);
      const config = await readUNet(files);
      const { shape, inputs } = unetInputs(config, read(path.join(folder, "io.safetensors")), name);
      const { weights: storage, activations } = quantizedStorage(precision);
      const weights = await findComponent(files, "unet", { precision });
      const bos = firstTokens(inputs["encoder_hidden_states"], shape);
      const build = () =>
        quantizeGraph(buildUNet(config, shape, "unet", activations), quantization, { bosImages: bos.length });
      const graph = { key: "unet", build };
      const unet = await runtime.load({ component: "unet", weights, storage, bos, graphs: [graph] });
      const { out_sample } = await unet.run(graph, inputs);
      await unet.dispose();

      const expected = readFloats(read(file.replace(".json", ".safetensors")).get("out_sample")!, name);
      const { batch, height, width } = shape;
      const perImage = expected.length / batch;
      let [error, energy] = [0, 0];
      for (let image = 0; image < batch; image++) {
        const got = toChannelsFirst(out_sample!.subarray(image * perImage, (image + 1) * perImage), {
          channels: config.outChannels,
          height,
          width,
        });
        got.forEach((value, i) => {
          error += (value - expected[image * perImage + i]) ** 2;
          energy += expected[image * perImage + i] ** 2;
        });
      }
      const relative = Math.sqrt(error / energy);
      console.log(`${name} ${precision} on ${adapter}: ${relative.toExponential(1)}`);
      const hasCodes = [...quantization.layers.values()].some(({ act }) => act !== undefined);
      expect(relative).toBeLessThan(hasCodes ? TOLERANCE.codes : TOLERANCE.floats);
    });
  });
});
