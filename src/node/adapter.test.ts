import { expect, test } from "vitest";
import { requestNodeGpu } from "./adapter.ts";
import { findSwiftShader } from "./vulkan.ts";

const info = async (gpu: GPU): Promise<GPUAdapterInfo | undefined> => (await gpu.requestAdapter())?.info;

test("auto finds something on every machine that can run the tests", async () => {
  expect(await info(await requestNodeGpu("auto"))).toBeDefined();
});

// SwiftShader comes with a Chromium, which a machine may lack.
test.skipIf(!(await findSwiftShader()))("swiftshader is SwiftShader, also after another adapter was used", async () => {
  expect((await info(await requestNodeGpu("swiftshader")))?.architecture).toBe("swiftshader");
});

const hasLavapipe = await requestNodeGpu("lavapipe").then(
  () => true,
  () => false, // none, or one that is too old for WebGPU
);

// Mesa 23 or newer, which a machine may lack; e2e/adapters.ts requires it in CI.
test.skipIf(!hasLavapipe)("lavapipe is lavapipe, with 16-bit floats", async () => {
  const adapter = await (await requestNodeGpu("lavapipe")).requestAdapter();
  expect(adapter?.info.description).toContain("llvmpipe");
  expect(adapter?.features.has("shader-f16")).toBe(true);
});

test("an adapter that is not there is refused by name", async () => {
  const wanted = requestNodeGpu("Voodoo 2");
  await expect(wanted).rejects.toMatchObject({ code: "unsupported", message: expect.stringContaining("Voodoo 2") });
});
