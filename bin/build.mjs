// Builds src/cli/mixdq.ts for Node. Each state of the sources has a folder of its own, dist-cli/<state>, written aside
// and moved into place in one step: runs side by side never see half a build, and never each other's.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import path from "node:path";

const SOURCES = ["src", "shaders", "package-lock.json", "bin/build.mjs"];
const KEPT_BUILDS = 3;

/** The folder of the build that belongs to the sources as they are now. */
export async function freshBuild(root) {
  const builds = path.join(root, "dist-cli");
  const folder = path.join(builds, stateOf(root));
  if (existsSync(folder)) return folder;

  const aside = path.join(builds, `.building-${process.pid}`);
  try {
    await buildCli(root, aside);
    renameSync(aside, folder);
  } catch (error) {
    if (!existsSync(folder)) throw error; // somebody else was faster
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
  removeOldBuilds(builds);
  return folder;
}

export async function buildCli(root, outDir) {
  const { build } = await import("vite");
  await build({
    root,
    configFile: false,
    publicDir: false,
    logLevel: "error",
    build: {
      ssr: path.join(root, "src/cli/mixdq.ts"),
      outDir,
      emptyOutDir: true,
      target: "node20",
      rollupOptions: { output: { entryFileNames: "mixdq.mjs", chunkFileNames: "[name]-[hash].mjs" } },
    },
  });
}

/** Names, sizes and times of all sources; tests and the page are not part of the command line. */
function stateOf(root) {
  const hash = createHash("sha256");
  const visit = (file) => {
    const info = statSync(file);
    if (info.isDirectory()) {
      if (path.basename(file) !== "ui") for (const name of readdirSync(file).sort()) visit(path.join(file, name));
    } else if (!file.includes(".test.")) {
      hash.update(`${file}\0${info.size}\0${info.mtimeMs}\n`);
    }
  };
  for (const source of SOURCES) if (existsSync(path.join(root, source))) visit(path.join(root, source));
  return hash.digest("hex").slice(0, 16);
}

/** Not at once: a run that started from an older build may still be loading parts of it. */
function removeOldBuilds(builds) {
  const age = (name) => statSync(path.join(builds, name)).mtimeMs;
  const states = readdirSync(builds).filter((name) => /^[0-9a-f]{16}$/.test(name));
  for (const name of states.sort((a, b) => age(b) - age(a)).slice(KEPT_BUILDS)) {
    rmSync(path.join(builds, name), { recursive: true, force: true });
  }
}
