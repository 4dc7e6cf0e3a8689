/** Where a model's parts run: our kernels, or onnxruntime-web. Both run the same graphs and load the same tensors. */
import { OrtRuntime } from "./ortRuntime.ts";
import type { Runtime, RuntimeOptions } from "./network.ts";
import { WebGpuRuntime } from "./webgpuRuntime.ts";

export async function createRuntime(options: RuntimeOptions): Promise<Runtime> {
  const { backend, gpu, ortUrl } = options;
  return backend === "webgpu" ? WebGpuRuntime.create(options) : OrtRuntime.create(backend, gpu, ortUrl);
}
