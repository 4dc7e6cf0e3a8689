/** What `mixdq plan` counts is what a run holds: its bytes against those of the buffers that are really made. */
import { expect, test } from "vitest";
import { readModel } from "../src/model/description.ts";
import { footprintOf } from "../src/model/footprint.ts";
import { chooseQuantization } from "../src/model/quantization.ts";
import { SIMPLE } from "../src/kernels/choices.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline } from "../src/pipeline.ts";

/** A GPU whose devices count the bytes of their buffers, from createBuffer to destroy. */
function countingGpu(gpu: GPU): { gpu: GPU; held: () => number; peak: () => number } {
  let held = 0;
  let peak = 0;
  const watch = (device: GPUDevice): GPUDevice => {
    const create = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const buffer = create(descriptor);
      peak = Math.max(peak, (held += descriptor.size));
      const destroy = buffer.destroy.bind(buffer);
      let isAlive = true;
      buffer.destroy = () => {
        if (isAlive) held -= descriptor.size;
        isAlive = false;
        return destroy();
      };
      return buffer;
    };
    return device;
  };
  const requestAdapter: GPU["requestAdapter"] = async (options) => {
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) return adapter;
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => watch(await requestDevice(descriptor));
    return adapter;
  };
  const { wgslLanguageFeatures } = gpu;
  return { gpu: { requestAdapter, wgslLanguageFeatures } as GPU, held: () => held, peak: () => peak };
}

test.for(["fp16", "w4a8"] as const)("the peak of a picture in %s", { timeout: 600_000 }, async (precision) => {
  const files = await diskFiles("models/postcard");
  const real = await requestNodeGpu("auto");
  const { gpu, held, peak } = countingGpu(real);
  const pipeline = await loadPipeline({ files, gpu, precision });
  const model = await readModel(files);
  const { config } = await chooseQuantization(files, undefined, { precision });
  const footprint = footprintOf(model, {
    precision,
    config,
    width: 64,
    height: 72,
    isGuided: false,
    caps: {
      shaderF16: pipeline.info.features.includes("shader-f16"),
      packedDot: real.wgslLanguageFeatures.has("packed_4x8_integer_dot_product"),
      maxWorkgroupsPerDimension: 65_535,
      ...SIMPLE,
    },
    limits: { maxBindingBytes: 2 ** 30, maxBufferBytes: 2 ** 30 },
  });
  const weightBytes = Object.values(footprint.components).reduce((sum, component) => sum + component.weightBytes, 0);
  // The last weight of a buffer is not padded to the next place.
  expect(pipeline.info.weightBytes).toBeLessThanOrEqual(weightBytes);
  expect(pipeline.info.weightBytes).toBeGreaterThan(0.999 * weightBytes);
  await pipeline.generate({ prompt: "a red house", seed: 1, width: 64, height: 72 });
  expect(peak()).toBeLessThanOrEqual(1.001 * footprint.peakBytes);
  expect(peak()).toBeGreaterThan(0.99 * footprint.peakBytes);
  await pipeline.dispose();
  expect(held()).toBe(0);
});
