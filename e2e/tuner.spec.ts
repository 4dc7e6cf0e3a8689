/** The tuner runs only where there is a GPU; here it is made to, so that it is not first run on somebody's machine. */
import { expect, test } from "vitest";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { requestDevice } from "../src/gpu/device.ts";
import { chooseKernels, measureKernels, SIMPLE } from "../src/gpu/tuner.ts";

test("every form passes its check and is timed; a software adapter gets the simple ones unmeasured", async () => {
  const gpu = await requestDevice(await requestNodeGpu("auto"));
  try {
    const measured = await measureKernels(gpu, [9, 2]);
    expect(["direct", "tiled"]).toContain(measured.gemm);
    expect(["direct", "tiled"]).toContain(measured.attention);
    expect(await chooseKernels({ ...gpu, adapter: "google swiftshader" })).toEqual(SIMPLE);
  } finally {
    gpu.device.destroy();
  }
});
