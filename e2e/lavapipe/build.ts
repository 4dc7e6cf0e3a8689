/** Compiles layer.c once per version of it, into node_modules/.cache; needs gcc and the Vulkan headers. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { copyFile, mkdir, readFile, rename } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { cacheFolder } from "../../src/node/chromium.ts";

export const LAYER_NAME = "VK_LAYER_MIXDQ_lavapipe";

const SOURCE = path.join(import.meta.dirname, "layer.c");

export async function buildLayer(): Promise<{ manifest: string } | { missing: string }> {
  const version = createHash("sha256")
    .update(await readFile(SOURCE))
    .digest("hex")
    .slice(0, 12);
  const folder = path.join(cacheFolder(), `lavapipe-layer-${version}`);
  const manifest = path.join(folder, "layer.json");
  if (existsSync(manifest)) return { manifest };

  await mkdir(folder, { recursive: true });
  const library = path.join(folder, "libVkLayer_lavapipe.so");
  const unfinished = `${library}.${process.pid}`;
  try {
    const flags = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden"];
    await promisify(execFile)(process.env.CC ?? "gcc", [...flags, "-o", unfinished, SOURCE]);
  } catch (error) {
    const line = String((error as { stderr?: string }).stderr || error).split("\n")[0];
    return { missing: `the Vulkan layer could not be compiled, it needs gcc and libvulkan-dev (${line})` };
  }
  await rename(unfinished, library);
  await copyFile(path.join(import.meta.dirname, "layer.json"), manifest); // last: it says that the rest is there
  return { manifest };
}
