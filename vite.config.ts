/** The page's build, its servers, and the test run. Relative base and no SPA fallback: any static host will do. */
import { createReadStream } from "node:fs";
import { cp, stat } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import path from "node:path";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

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
    // Two cores and software GPUs: one file at a time, and patience.
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 180_000,
    projects: [
      { extends: true, test: { name: "unit", include: ["src/**/*.test.ts"] } },
      { extends: true, test: { name: "e2e", include: ["e2e/**/*.spec.ts"] } },
      { extends: true, test: { name: "bench", include: ["bench/**/*.bench.ts"] } },
    ],
  },
});

/**
 * Serves models/ in dev and preview, and puts the default model into the build. Vite's public/ would copy every model
 * that lies there, and none of the others should ever be published by accident.
 */
function models(): Plugin {
  const serve = (request: IncomingMessage, response: ServerResponse, next: () => void): void => {
    const url = (request.url ?? "").split("?")[0];
    if (/%(?![0-9a-f]{2})/i.test(url)) return next();
    // Normalised as an absolute path first, ".." cannot lead out of models/.
    const file = path.join(root, "models", path.normalize(decodeURIComponent(url)));
    stat(file).then(
      (info) => {
        if (!info.isFile()) return next();
        response.setHeader("Content-Type", file.endsWith(".json") ? "application/json" : "application/octet-stream");
        response.setHeader("Content-Length", info.size);
        response.setHeader("Cache-Control", "no-cache");
        if (request.method === "HEAD") response.end();
        else createReadStream(file).pipe(response);
      },
      () => next(),
    );
  };
  return {
    name: "mixdq-models",
    configureServer: (server) => void server.middlewares.use("/models", serve),
    configurePreviewServer: (server) => void server.middlewares.use("/models", serve),
    async writeBundle(options) {
      if (this.environment.name !== "client") return;
      const target = path.join(options.dir ?? path.join(root, "dist"), "models/postcard");
      await cp(path.join(root, "models/postcard"), target, {
        recursive: true,
        // What the model was made by and measured with is for developers, not for visitors.
        filter: (source) => !/^(recipe|quantization|reference\..*)$/.test(path.basename(source)),
      });
    },
  };
}
