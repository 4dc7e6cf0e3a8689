/** Valid files of every kind: those of the repository where it has them. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseMixdqConfig } from "../../src/quant/config.ts";
import { writeFileList } from "../../src/weights/fileList.ts";
import { PackWriter } from "../../src/weights/packWriter.ts";
import { writeSafetensors } from "../../src/weights/safetensors.ts";
import { only, type Files } from "./files.ts";

const ROOT = path.resolve(import.meta.dirname, "../..");
const GOLDEN = path.join(ROOT, "e2e/golden");
export const POSTCARD = path.join(ROOT, "models/postcard");
const MODELS = ["lcm-sd15", "sd15-ancestral", "sd21-turbo", "sd21-v", "sdxl-euler-cfg"];

export const text = (...parts: string[]): string => readFileSync(path.join(...parts), "utf8");

/** The files of a folder below it, up to a size, without those of which there are many of a kind. */
function folder(root: string, most: number): Map<string, string | Uint8Array> {
  const files = new Map<string, string | Uint8Array>();
  for (const entry of readdirSync(root, { recursive: true, withFileTypes: true })) {
    const file = path.join(entry.parentPath, entry.name);
    const name = path.relative(root, file).split(path.sep).join("/");
    if (entry.isFile() && /\.(json|txt)$/.test(name) && !name.startsWith("io.")) {
      const content = text(file);
      if (content.length <= most) files.set(name, content);
    }
  }
  return files;
}

export const modelSeeds = (): Files[] => MODELS.map((model) => folder(path.join(GOLDEN, model), 40_000));

const SMALL = writeSafetensors(
  {
    "a.weight": { dtype: "F32", shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
    "b.weight": { dtype: "F16", shape: [2, 2, 1, 1], data: Uint16Array.of(0x3c00, 0x4000, 0x4200, 1) },
    "b.bias": { dtype: "BF16", shape: [3], data: Uint16Array.of(0x3f80, 0, 1) },
    ids: { dtype: "I64", shape: [2], data: BigInt64Array.of(7n, -8n) },
    nothing: { dtype: "F32", shape: [0], data: new Float32Array() },
  },
  { format: "pt" },
);

/** What is no weight in these: a reader of weights steps over it, as it does over a text encoder's `position_ids`. */
export const INTEGERS: readonly string[] = ["ids", "timestep"];
export const safetensorsSeeds = [
  only("x.safetensors", SMALL),
  only("x.safetensors", new Uint8Array(readFileSync(path.join(GOLDEN, "unet-sd15/io.safetensors")))),
];

const SHARDED = ["a", "b"].map((name, i): [string, Uint8Array] => [
  `unet/diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`,
  writeSafetensors({ [`${name}.weight`]: { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) } }),
]);
export const INDEX = "unet/diffusion_pytorch_model.safetensors.index.json";
export const shardedSeed: Files = new Map<string, string | Uint8Array>([
  ...SHARDED,
  [
    INDEX,
    JSON.stringify({
      metadata: { total_size: 16 },
      weight_map: Object.fromEntries(SHARDED.map(([file], i) => [`${"ab"[i]}.weight`, path.basename(file)])),
    }),
  ],
]);

/** A folder that says what is in it. */
export const listedSeed: Files = new Map([
  ["a.json", "{}"],
  ["b/c.txt", "x y"],
  [
    "manifest.json",
    writeFileList(
      new Map([
        ["a.json", 2],
        ["b/c.txt", 3],
      ]),
    ),
  ],
]);

export async function packSeed(shardBytes: number): Promise<Files> {
  const files = new Map<string, string | Uint8Array>();
  const writer = new PackWriter({ write: async (name, bytes) => void files.set(name, bytes.slice()) }, shardBytes);
  await writer.file("unet/config.json", "{}");
  await writer.file("mixdq.json", text(POSTCARD, "quantization/w4a16.json").slice(0, 300));
  await writer.component("unet");
  await writer.tensor({ name: "conv_in.weight", format: "F16", shape: [4, 8] }, new Uint16Array(32));
  await writer.tensor({ name: "mid.weight", format: "U4", shape: [8, 32] }, new Uint8Array(128));
  await writer.tensor({ name: "mid.parameters", format: "U32", shape: [1, 8, 4] }, new Uint32Array(32));
  await writer.component("vae");
  await writer.tensor({ name: "decoder.weight", format: "F32", shape: [40, 3] }, new Float32Array(120), 12);
  await writer.finish({ model: "m", config: "mixdq.json", licence: null, bos: [Float32Array.of(0.1, -2)] });
  return files;
}

export const configs = (component: string): Files[] =>
  [...readdirSync(GOLDEN).map((model) => path.join(GOLDEN, model)), POSTCARD].flatMap((model) => {
    try {
      const name = component === "scheduler" ? "scheduler_config.json" : "config.json";
      return [only("config.json", text(model, component, name))];
    } catch {
      return []; // this golden has no such component
    }
  });

/** One for every class and setting that the runs of e2e/golden/schedulers have. */
export const schedulers: readonly Files[] = (
  JSON.parse(text(GOLDEN, "schedulers", "io.json")) as { readonly config?: object }[]
).flatMap(({ config }) => (config ? [only("config.json", JSON.stringify(config))] : []));

export const bitWidths = ["w4a16.json", "w3.66a16.json", "w8a8.json"].map((name) =>
  smallerOf(text(POSTCARD, "quantization", name), 40),
);
const yamlOf = (json: string, key: "weightBits" | "actBits"): string =>
  Array.from(parseMixdqConfig(json, "seed").layers, ([layer, bits]) => `model.${layer}: ${bits[key]}`).join("\n");

const tokenizerOf = (model: string, names: readonly string[]): Files =>
  new Map(names.map((name) => [name, text(GOLDEN, model, "tokenizer", name)]));

export const yamlSeeds: readonly Files[] = bitWidths.flatMap((json): Files[] => {
  const [weights, acts] = [yamlOf(json, "weightBits"), yamlOf(json, "actBits")];
  const flow = `{${weights.split("\n").slice(0, 30).join(", ")}}`;
  const bits = new Map([
    ["weights.yaml", weights],
    ["acts.yaml", acts],
  ]);
  return [bits, only("weights.yaml", weights), only("weights.yaml", flow)];
});

export const tokenizerSeeds: readonly Files[] = [
  tokenizerOf("lcm-sd15", ["tokenizer.json", "tokenizer_config.json"]),
  tokenizerOf("sd15-ancestral", ["vocab.json", "merges.txt", "tokenizer_config.json"]),
  new Map([
    ...tokenizerOf("sd15-ancestral", ["vocab.json", "merges.txt", "tokenizer_config.json"]),
    ["special_tokens_map.json", '{"bos_token": {"content": "<|startoftext|>", "lstrip": false}, "pad_token": "!"}'],
    ["added_tokens.json", '{"<x>": 600, "<x>_1": 601}'],
  ]),
];

export const STEPS = JSON.stringify({
  format: "mixdq-steps",
  version: 1,
  steps: {
    calibrate: {
      args: [["calibrate", "--out", "x"]],
      inputs: { model: "ab" },
      outputs: { x: null, y: "cd" },
      seconds: 1.5,
      begun: "2025-01-01T00:00:00.000Z",
    },
  },
  files: { weights: { bytes: 5, changedMs: 1.5, sha256: "ef" } },
});

/** The same with so many layers: a change anywhere in a file is then likelier to be one that counts. */
export function smallerOf(json: string, layers: number): string {
  const file = JSON.parse(json) as { layers: Record<string, unknown> };
  return JSON.stringify({ ...file, layers: Object.fromEntries(Object.entries(file.layers).slice(0, layers)) });
}
