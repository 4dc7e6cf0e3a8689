/**
 * GPUs whose own compilers run here without them: Mesa's drivers for AMD and Intel, which lie beside the lavapipe that
 * e2e/lavapipe/get.sh fetches, over layer.c and intelKernel.c. What other drivers make of a shader (Windows', Apple's,
 * NVIDIA's) is not known by it.
 */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { cacheFolder } from "../../src/node/chromium.ts";
import { buildLibrary } from "../native.ts";

export interface StaticGpu {
  /** Of the architecture, for people. */
  readonly name: string;
  readonly vendor: "amd" | "intel";
  /** What Mesa (RADV_FORCE_FAMILY), or intelKernel.c, calls it. */
  readonly key: string;
  /** A part of the adapter's description. */
  readonly adapter: string;
}

export const GPUS: readonly StaticGpu[] = [
  { name: "RDNA 2", vendor: "amd", key: "NAVI21", adapter: "navi21" },
  { name: "RDNA 3", vendor: "amd", key: "NAVI31", adapter: "navi31" },
  { name: "RDNA 4", vendor: "amd", key: "GFX1201", adapter: "gfx1201" },
  { name: "Arc A770", vendor: "intel", key: "dg2", adapter: "dg2" },
  { name: "Lunar Lake", vendor: "intel", key: "lnl", adapter: "lnl" },
];

const MESA = path.join(cacheFolder(), "lavapipe/root/usr/lib/x86_64-linux-gnu");
const DRIVERS = { amd: "libvulkan_radeon.so", intel: "libvulkan_intel.so" };
const LAYER = "VK_LAYER_MIXDQ_static";

/** The environment in which a new process finds these GPUs instead of those of the machine. */
export interface StaticDrivers {
  environment(gpu: StaticGpu): NodeJS.ProcessEnv;
}

/** Compiles what it takes; or says what is missing. */
export async function staticDrivers(): Promise<StaticDrivers | { missing: string }> {
  for (const driver of Object.values(DRIVERS))
    if (!existsSync(path.join(MESA, driver))) return { missing: `no ${driver}: run e2e/lavapipe/get.sh` };
  const layer = await buildLibrary("VkLayer_static", path.join(import.meta.dirname, "layer.c"));
  if ("missing" in layer) return layer;
  const kernel = await buildLibrary("intelKernel", path.join(import.meta.dirname, "intelKernel.c"));
  if ("missing" in kernel) return kernel;
  const folder = path.dirname(layer.library);
  const icd = (vendor: StaticGpu["vendor"]): string => path.join(folder, `${vendor}.json`);
  await writeFile(path.join(folder, "layer.json"), layerManifest(layer.library));
  for (const vendor of ["amd", "intel"] as const)
    await writeFile(icd(vendor), driverManifest(path.join(MESA, DRIVERS[vendor])));
  return {
    environment: ({ vendor, key }) => ({
      ...process.env,
      XDG_RUNTIME_DIR: os.tmpdir(),
      LD_LIBRARY_PATH: MESA,
      VK_ICD_FILENAMES: icd(vendor),
      VK_LAYER_PATH: folder,
      VK_INSTANCE_LAYERS: LAYER,
      MESA_SHADER_CACHE_DISABLE: "true",
      ...(vendor === "amd"
        ? { RADV_FORCE_FAMILY: key, RADV_DEBUG: "nocache" }
        : { MIXDQ_STATIC_GPU: key, LD_PRELOAD: kernel.library }),
    }),
  };
}

const layerManifest = (library: string): string =>
  JSON.stringify({
    file_format_version: "1.2.0",
    layer: {
      name: LAYER,
      type: "GLOBAL",
      library_path: library,
      api_version: "1.3.0",
      implementation_version: "1",
      description: "Writes down what a GPU's compiler makes of shaders; runs nothing",
    },
  });

const driverManifest = (library: string): string =>
  JSON.stringify({ file_format_version: "1.0.0", ICD: { library_path: library, api_version: "1.3.0" } });
