/** C sources of tests, compiled once per version into node_modules/.cache; needs gcc and the Vulkan headers. */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readFile, rename } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { cacheFolder } from "../src/node/chromium.ts";

/** `lib<name>.so` of one C file, in a folder of its own; or why there is none. */
export async function buildLibrary(name: string, source: string): Promise<{ library: string } | { missing: string }> {
  const version = createHash("sha256")
    .update(await readFile(source))
    .digest("hex")
    .slice(0, 12);
  const folder = path.join(cacheFolder(), `${name}-${version}`);
  const library = path.join(folder, `lib${name}.so`);
  if (existsSync(library)) return { library };

  await mkdir(folder, { recursive: true });
  const unfinished = `${library}.${process.pid}`;
  try {
    const flags = ["-O2", "-fPIC", "-shared", "-fvisibility=hidden"];
    await promisify(execFile)(process.env.CC ?? "gcc", [...flags, "-o", unfinished, source]);
  } catch (error) {
    const line = String((error as { stderr?: string }).stderr || error).split("\n")[0];
    return { missing: `${path.basename(source)} could not be compiled, it needs gcc and libvulkan-dev (${line})` };
  }
  await rename(unfinished, library);
  return { library };
}
