/**
 * A Chromium to test in, found or unpacked, never downloaded, and how to start it on each software adapter.
 * Order: CHROME_PATH, Playwright's own, the system's, the optional npm package.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { type Browser, type LaunchOptions, chromium } from "playwright";
import { unpackChromium } from "../src/node/chromium.ts";
import { findLavapipe } from "../src/node/vulkan.ts";
import { LAYER_NAME, buildLayer } from "./lavapipe/build.ts";

export type BrowserAdapter = "swiftshader" | "lavapipe" | "none";

const SYSTEM_BROWSERS = [
  "/usr/lib/chromium/chromium",
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome-stable",
  "/usr/bin/google-chrome",
  "/opt/google/chrome/chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/** SwiftShader: the last three make a WebGPU canvas readable, compute would do without. */
const ARGS: Record<BrowserAdapter, string[]> = {
  swiftshader: [
    "--enable-unsafe-webgpu",
    "--ignore-gpu-blocklist",
    "--enable-features=Vulkan",
    "--use-vulkan=swiftshader",
    "--use-angle=swiftshader",
  ],
  lavapipe: ["--enable-unsafe-webgpu", "--ignore-gpu-blocklist", "--enable-features=Vulkan", "--use-angle=vulkan"],
  none: ["--disable-gpu", "--disable-software-rasterizer"],
};

export async function resolveBrowser(): Promise<LaunchOptions> {
  const { CHROME_PATH } = process.env;
  if (CHROME_PATH) return { executablePath: CHROME_PATH };
  const known = [chromium.executablePath(), ...SYSTEM_BROWSERS].find((file) => file && existsSync(file));
  if (known) return { executablePath: known };
  const unpacked = await unpackChromium();
  if (unpacked) {
    const LD_LIBRARY_PATH = [process.env.LD_LIBRARY_PATH, unpacked.libraries].filter(Boolean).join(":");
    return { executablePath: unpacked.executable, env: { LD_LIBRARY_PATH } };
  }
  throw new Error(
    "e2e: no Chromium found. Looked at CHROME_PATH, Playwright's own, the usual system paths and @sparticuz/chromium. " +
      "Install one (apt-get install chromium, or npx playwright install chromium) or set CHROME_PATH.",
  );
}

export async function launchBrowser(adapter: BrowserAdapter): Promise<Browser> {
  const found = await resolveBrowser();
  const layer = adapter === "lavapipe" ? await lavapipeEnvironment() : { env: {} };
  if ("missing" in layer) throw new Error(`e2e: no lavapipe in Chromium: ${layer.missing}`);
  // Chromium's sandbox refuses to run as root, which is what a container usually is.
  const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  const env = { ...process.env, ...found.env, ...layer.env } as Record<string, string>;
  return chromium.launch({ ...found, env, args: [...sandbox, ...ARGS[adapter]] });
}

/** Why lavapipe cannot be used in Chromium on this machine, or undefined if it can. */
export async function lavapipeMissing(): Promise<string | undefined> {
  const layer = await lavapipeEnvironment();
  return "missing" in layer ? layer.missing : undefined;
}

async function lavapipeEnvironment(): Promise<{ env: Record<string, string> } | { missing: string }> {
  const driver = findLavapipe();
  if (!driver)
    return { missing: "no lavapipe driver (install mesa-vulkan-drivers 23 or newer, or run e2e/lavapipe/get.sh)" };
  const layer = await buildLayer();
  if ("missing" in layer) return layer;
  const libraries = [process.env.LD_LIBRARY_PATH, ...driver.libraries].filter(Boolean).join(":");
  return {
    env: {
      VK_ICD_FILENAMES: driver.icd,
      VK_LAYER_PATH: path.dirname(layer.manifest),
      VK_INSTANCE_LAYERS: LAYER_NAME,
      ...(libraries ? { LD_LIBRARY_PATH: libraries } : {}),
    },
  };
}
