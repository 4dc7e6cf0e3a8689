#!/usr/bin/env node
// Starts the command line. In a checkout it is built first, when src/ or shaders/ have changed since; an installed
// package brings the build along.
import { existsSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const root = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), "..");
let file = path.join(root, "lib/node/mixdq.js");
if (existsSync(path.join(root, "src/cli/mixdq.ts"))) {
  const { freshBuild } = await import("./build.mjs");
  file = path.join(await freshBuild(root), "mixdq.mjs");
}
await import(pathToFileURL(file).href); // runs as it is imported
