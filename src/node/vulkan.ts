/**
 * Software Vulkan drivers on this machine, and how to load one that is not installed.
 *
 * A driver that was only unpacked (no root) lies with its libraries where the dynamic linker does not look, and
 * LD_LIBRARY_PATH is read when a process starts. Restarting Node for that would break debuggers and test workers, so
 * the libraries are loaded by path instead: once a library is in the process, everything that asks for its name gets it.
 */
import { existsSync, readdirSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { cacheFolder, unpackChromium } from "./chromium.ts";

export interface VulkanDriver {
  readonly name: "lavapipe" | "swiftshader";
  /** The driver's manifest, for VK_ICD_FILENAMES. */
  readonly icd: string;
  /** Folders with its libraries; empty if the system finds them. */
  readonly libraries: readonly string[];
}

const ICD_FOLDERS = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
const CHROMIUM_FOLDERS = ["/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome"];

/** The one fetched by e2e/lavapipe/get.sh first, because it is as new as the engine wants; then the system's. */
export function findLavapipe(): VulkanDriver | undefined {
  const fetched = path.join(cacheFolder(), "lavapipe");
  const icd = path.join(fetched, "lvp_icd.json");
  if (existsSync(icd)) {
    const machine = process.arch === "arm64" ? "aarch64-linux-gnu" : "x86_64-linux-gnu";
    const libraries = ["usr/lib", "lib"].map((folder) => path.join(fetched, "root", folder, machine));
    return { name: "lavapipe", icd, libraries };
  }
  for (const folder of ICD_FOLDERS) {
    const file = existsSync(folder) && readdirSync(folder).find((name) => /^lvp_icd.*\.json$/.test(name));
    if (file) return { name: "lavapipe", icd: path.join(folder, file), libraries: [] };
  }
  return undefined;
}

/** Every Chromium brings it along. */
export async function findSwiftShader(): Promise<VulkanDriver | undefined> {
  const hasDriver = (folder: string): boolean => existsSync(path.join(folder, "vk_swiftshader_icd.json"));
  const folder = CHROMIUM_FOLDERS.find(hasDriver) ?? (await unpackChromium())?.folder;
  if (!folder || !hasDriver(folder)) return undefined;
  return { name: "swiftshader", icd: path.join(folder, "vk_swiftshader_icd.json"), libraries: [folder] };
}

/** Makes this driver the one that the next Vulkan instance of this process finds. */
export function useDriver(driver: VulkanDriver): void {
  process.env.VK_ICD_FILENAMES = driver.icd;
  const library = driver.name === "lavapipe" ? "libvulkan_lvp.so" : "libvk_swiftshader.so";
  for (const name of ["libvulkan.so.1", library]) {
    const file = driver.libraries.map((folder) => path.join(folder, name)).find((file) => existsSync(file));
    if (file) preload(file, driver.libraries);
  }
}

/** dlopen's flag for "stays loaded" on Linux: Node closes what turns out not to be a module of its own. */
const RTLD_NODELETE = 0x1000;

/** Loads a shared library and, first, those of its dependencies that only these folders have. */
function preload(file: string, folders: readonly string[]): boolean {
  for (;;) {
    let message = "";
    try {
      process.dlopen({ exports: {} }, file, os.constants.dlopen.RTLD_LAZY | RTLD_NODELETE);
    } catch (error) {
      message = String(error instanceof Error ? error.message : error);
    }
    if (message === "" || message.includes("did not self-register")) return true;
    const missing = /^(\S+): cannot open shared object file/.exec(message)?.[1];
    const found = folders
      .map((folder) => path.join(folder, missing ?? ""))
      .find((path) => path !== file && existsSync(path));
    if (!missing || !found || !preload(found, folders)) return false;
  }
}
