/** The page's build, its servers, and the test run. Relative base and no SPA fallback: any static host will do. */
import { cp, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { listFiles, serveModels } from "./src/node/modelServer.ts";
import { writeFileList } from "./src/weights/fileList.ts";

const root = import.meta.dirname;

export default defineConfig({
  base: "./",
  // A missing file must be a 404: an index.html in its place would be read as a broken model.
  appType: "mpa",
  plugins: [models()],
  worker: { format: "es" },
  // onnxruntime-web finds its .wasm beside its own module, which dev's dependency bundling would move.
  optimizeDeps: { exclude: ["onnxruntime-web"] },
  build: { target: "es2023", outDir: "dist", chunkSizeWarningLimit: 1000 },
  preview: { port: 4173 },
  test: {
    environment: "node",
    // Drivers compile on one core. Compiling for the first time on a busy machine takes minutes; the limit is for what hangs.
    maxWorkers: 2,
    testTimeout: 900_000,
    hookTimeout: 900_000,
    projects: [
      { extends: true, test: { name: "unit", include: ["{src,bench}/**/*.test.ts"] } },
      { extends: true, test: { name: "e2e", include: ["e2e/**/*.spec.ts"] } },
      { extends: true, test: { name: "examples", include: ["examples/*.spec.ts"], maxConcurrency: 2 } },
      { extends: true, test: { name: "bench", include: ["bench/**/*.bench.ts"] } },
    ],
  },
});

/**
 * Serves models/ in dev and preview, and puts the default model into the build, with a list of its files. Vite's public/
 * would copy every model that lies there, and none of the others should ever be published by accident.
 */
function models(): Plugin {
  const serve = serveModels(path.join(root, "models"));
  // What the model was made by and measured with is for developers, not for visitors.
  const isForVisitors = (name: string): boolean => !/^(recipe|quantization|reference\..*)$/.test(name);
  return {
    name: "mixdq-models",
    configureServer: (server) => void server.middlewares.use("/models", serve),
    configurePreviewServer: (server) => void server.middlewares.use("/models", serve),
    async writeBundle(options) {
      if (this.environment.name !== "client") return;
      const target = path.join(options.dir ?? path.join(root, "dist"), "models/postcard");
      await cp(path.join(root, "models/postcard"), target, {
        recursive: true,
        filter: (source) => isForVisitors(path.basename(source)),
      });
      await writeFile(path.join(target, "manifest.json"), writeFileList(await listFiles(target)));
    },
  };
}
