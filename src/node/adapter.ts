/**
 * WebGPU in Node: the `webgpu` package (Dawn), on a real GPU if there is one, else on a software driver that this
 * machine has. The only room that imports it.
 */
import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { MixdqError } from "../base/errors.ts";
import { importOptional } from "../base/optional.ts";
import type { AdapterChoice } from "./adapterChoice.ts";
import { type VulkanDriver, findLavapipe, findSwiftShader, useDriver } from "./vulkan.ts";

export async function requestNodeGpu(choice: AdapterChoice = "auto"): Promise<GPU> {
  if (DRIVER_FROM_OUTSIDE?.split(path.delimiter).every((file) => !existsSync(file))) return refuse(choice);
  const { create, globals } = await importDawn();
  Object.assign(globalThis, globals); // GPUBufferUsage and friends
  process.env.XDG_RUNTIME_DIR ??= os.tmpdir(); // Mesa complains on stderr without one

  const open = async (flags: string[] = []): Promise<Opened | undefined> => {
    const gpu = create(flags);
    kept.push(gpu);
    const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
    return adapter ? { gpu, info: adapter.info } : undefined;
  };
  const openDriver = async (driver: VulkanDriver | undefined): Promise<GPU | undefined> => {
    if (!driver) return undefined;
    if (!DRIVER_FROM_OUTSIDE) useDriver(driver);
    const opened = await open();
    return opened && isDriver(opened.info, driver.name) ? opened.gpu : undefined;
  };
  const openHardware = async (): Promise<GPU | undefined> => {
    // Where no device file exists, asking would only make every software driver print its complaints.
    if (process.platform === "linux" && !GPU_FILES.some((file) => existsSync(file))) return undefined;
    const opened = await open();
    return opened && !opened.info.isFallbackAdapter ? opened.gpu : undefined;
  };

  switch (choice) {
    case "gpu":
      return (await openHardware()) ?? refuse(choice);
    case "lavapipe":
      return (await openDriver(findLavapipe())) ?? refuse(choice);
    case "swiftshader":
      return (await openDriver(await findSwiftShader())) ?? refuse(choice);
    case "auto":
      if (DRIVER_FROM_OUTSIDE) return (await open())?.gpu ?? refuse(choice);
      return (
        (await openHardware()) ??
        (await openDriver(findLavapipe())) ??
        (await openDriver(await findSwiftShader())) ??
        refuse(choice)
      );
    default:
      try {
        return (await open([`adapter=${choice}`]))?.gpu ?? refuse(choice);
      } catch (error) {
        if (error instanceof MixdqError) throw error;
        // Dawn's message is the list of what there is.
        throw new MixdqError("unsupported", `WebGPU in Node, --adapter ${choice}: ${(error as Error).message.trim()}`);
      }
  }
}

/** Dawn's devices do not keep their instance alive: once it is collected, the next call on a device crashes. */
const kept: GPU[] = [];

interface Opened {
  readonly gpu: GPU;
  readonly info: GPUAdapterInfo;
}

/** Whoever sets these means it: then no other driver is looked for. */
const DRIVER_FROM_OUTSIDE = process.env.VK_ICD_FILENAMES ?? process.env.VK_DRIVER_FILES;

const GPU_FILES = ["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/kgsl-3d0"];

function isDriver(info: GPUAdapterInfo, name: VulkanDriver["name"]): boolean {
  return name === "swiftshader" ? info.architecture === "swiftshader" : info.description.includes("llvmpipe");
}

/**
 * Ends the process after everything written so far has left it. By its own documentation the webgpu package keeps Node
 * running for as long as anything refers to its GPU object, and native objects that are left to the garbage collector
 * are torn down in no order. Leaving at once depends on neither.
 */
export async function exitWithDawn(code: number): Promise<never> {
  await Promise.all([process.stdout, process.stderr].map((stream) => new Promise((done) => stream.write("", done))));
  process.exit(code);
}

function importDawn(): Promise<typeof import("webgpu")> {
  return importOptional(() => import("webgpu"), "webgpu", `WebGPU in Node on ${process.platform}-${process.arch}`);
}

function refuse(choice: string): never {
  const looked: Record<string, string> = {
    auto: "no GPU driver, no lavapipe (mesa-vulkan-drivers) and no SwiftShader (part of every Chromium) was found",
    gpu: "no hardware GPU was found; --adapter auto also takes a software adapter",
    lavapipe: "no lavapipe that WebGPU can use was found (Mesa 23 or newer, lvp_icd*.json in /usr/share/vulkan/icd.d)",
    swiftshader: "no SwiftShader was found (vk_swiftshader_icd.json beside a Chromium, or npm's @sparticuz/chromium)",
  };
  const where = `WebGPU in Node, --adapter ${choice}`;
  if (DRIVER_FROM_OUTSIDE !== undefined)
    throw new MixdqError(
      "unsupported",
      `${where}: VK_ICD_FILENAMES or VK_DRIVER_FILES names the driver ${DRIVER_FROM_OUTSIDE}, and no such adapter comes from ` +
        `it. Unset the variable, or name a Vulkan driver's .json file that exists.`,
    );
  if (!looked[choice])
    throw new MixdqError(
      "unsupported",
      `${where}: no adapter of this machine has that in its name. Use auto, gpu, lavapipe, swiftshader, or a part of an ` +
        `adapter's name.`,
    );
  throw new MixdqError(
    "unsupported",
    `${where}: ${looked[choice]}. Install a graphics driver, or on Debian and Ubuntu a software one: ` +
      `apt-get install mesa-vulkan-drivers, or apt-get install chromium.`,
  );
}
