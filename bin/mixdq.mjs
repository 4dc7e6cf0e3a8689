#!/usr/bin/env node
// Starts the command line. In a checkout it is built first, when src/ or shaders/ have changed since; an installed
// package brings the build along.
import { existsSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), "..");
let build = path.join(root, "dist-cli/release");
if (existsSync(path.join(root, "vite.config.ts"))) {
  const { freshBuild } = await import("./build.mjs");
  build = await freshBuild(root);
}
await import(pathToFileURL(path.join(build, "mixdq.mjs")).href); // runs as it is imported
