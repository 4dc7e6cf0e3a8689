/** The layer that lets Chromium's WebGPU run on lavapipe, compiled. */
import { copyFile } from "node:fs/promises";
import path from "node:path";
import { buildLibrary } from "../native.ts";

export const LAYER_NAME = "VK_LAYER_MIXDQ_lavapipe";

export async function buildLayer(): Promise<{ manifest: string } | { missing: string }> {
  const built = await buildLibrary("VkLayer_lavapipe", path.join(import.meta.dirname, "layer.c"));
  if ("missing" in built) return built;
  const manifest = path.join(path.dirname(built.library), "layer.json");
  await copyFile(path.join(import.meta.dirname, "layer.json"), manifest);
  return { manifest };
}
