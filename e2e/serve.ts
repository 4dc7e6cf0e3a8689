/** The page for tests: built by Vite and served by its preview server, as `npm start` does. */
import { existsSync } from "node:fs";
import path from "node:path";
import { build, preview } from "vite";
import { outDirOf } from "./outDir.ts";

const ROOT = path.resolve(import.meta.dirname, "..");

export interface ServedPage {
  /** Ends in a slash. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Builds into its own folder, so that a test run never swaps the files under somebody's `npm start`. The port counts
 * up from 4173 when that is taken; none of those that Chromium refuses (5060, 6000, …) is near.
 */
export async function servePage(): Promise<ServedPage> {
  const outDir = outDirOf("e2e-dist");
  const configFile = path.join(ROOT, "vite.config.ts");
  await build({ root: ROOT, configFile, logLevel: "error", build: { outDir, emptyOutDir: true } });
  if (!existsSync(path.join(outDir, "index.html"))) throw new Error(`e2e: the build wrote no ${outDir}/index.html`);
  const server = await preview({
    root: ROOT,
    configFile,
    logLevel: "error",
    build: { outDir },
    preview: { port: 4173, host: "127.0.0.1" },
  });
  const url = server.resolvedUrls?.local[0];
  if (!url) throw new Error("e2e: the preview server has no address");
  return { url, close: () => server.close() };
}
