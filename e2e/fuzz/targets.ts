/** Every reader of what somebody else wrote, with valid files to begin from and what becomes of a file that it takes. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { Config, parseConfigText } from "../../src/base/config.ts";
import { parseSteps } from "../../src/cli/auto/stepsFile.ts";
import { oneOf, readFlags, RUN_FLAGS, runFlags, weightFlags } from "../../src/cli/options.ts";
import { createScheduler } from "../../src/diffusion/scheduler.ts";
import { buildUNet, readUNetConfig } from "../../src/diffusion/unet.ts";
import { buildVaeDecoder, readVaeConfig } from "../../src/diffusion/vae.ts";
import { readSensitivity, writeSensitivity } from "../../src/mixdq/allocation/sensitivity.ts";
import { RANGE_RULES, readCalibration, readRanges, writeCalibration } from "../../src/mixdq/calibration/file.ts";
import { readDescription, readStatistics } from "../../src/mixdq/quality/judge.ts";
import { readJudgedPrompts, readPromptLines } from "../../src/mixdq/quality/prompts.ts";
import { readModel } from "../../src/model/description.ts";
import { attachRanges, parseMixdqConfig, weightQuantOf, writeMixdqConfig } from "../../src/quant/config.ts";
import { importMixdqYaml } from "../../src/quant/mixdqYaml.ts";
import { buildTextEncoder } from "../../src/text/encoder.ts";
import { createTokenizer } from "../../src/text/tokenizer.ts";
import { readSettings, writeSettings } from "../../src/ui/settings.ts";
import { readFloats } from "../../src/weights/convert.ts";
import type { ModelFiles } from "../../src/weights/files.ts";
import { findComponent, parseIndex } from "../../src/weights/folder.ts";
import { openPack } from "../../src/weights/pack.ts";
import { PackWriter } from "../../src/weights/packWriter.ts";
import { parseSafetensors, streamTensors, writeSafetensors } from "../../src/weights/safetensors.ts";
import type { Chance } from "./chance.ts";
import type { Files } from "./mutate.ts";

export interface Target {
  readonly name: string;
  /** How many of the inputs, in proportion. */
  readonly weight: number;
  readonly seeds: readonly Files[];
  /** Reads the files and does what a caller would do first; throws what the reader throws. */
  run(files: Files, chance: Chance): unknown;
}

const ROOT = path.resolve(import.meta.dirname, "../..");
const GOLDEN = path.join(ROOT, "e2e/golden");
const POSTCARD = path.join(ROOT, "models/postcard");
const MODELS = ["lcm-sd15", "sd15-ancestral", "sd21-turbo", "sd21-v", "sdxl-euler-cfg"];

const text = (...parts: string[]): string => readFileSync(path.join(...parts), "utf8");
const only = (name: string, content: string | Uint8Array): Files => new Map([[name, content]]);
const textOf = (files: Files, name: string): string => content(files, name) ?? "";

function content(files: Files, name: string): string | undefined {
  const found = files.get(name);
  return typeof found === "string" || found === undefined ? found : new TextDecoder().decode(found);
}

function bytesOf(files: Files, name: string): Uint8Array<ArrayBuffer> {
  const found = files.get(name) ?? "";
  return typeof found === "string" ? new TextEncoder().encode(found) : new Uint8Array(found);
}

/** A folder in memory, in pieces of `chunk` bytes, whose sizes are known where `isSized`. */
function folderOf(files: Files, chunk: number, isSized: boolean): ModelFiles {
  return {
    location: "model",
    text: async (name) => content(files, name),
    open: async (name) => {
      if (!files.has(name)) return undefined;
      const bytes = bytesOf(files, name);
      let at = 0;
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) =>
          at < bytes.length ? controller.enqueue(bytes.slice(at, (at += chunk))) : controller.close(),
      });
      return { bytes: isSized ? bytes.length : 0, body };
    },
  };
}

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

function expectThat(condition: boolean, what: string): void {
  if (!condition) throw new Error(`taken, although ${what}`);
}

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

const safetensorsSeeds = [
  only("x.safetensors", SMALL),
  only("x.safetensors", new Uint8Array(readFileSync(path.join(GOLDEN, "unet-sd15/io.safetensors")))),
];

const SHARDED = ["a", "b"].map((name, i): [string, Uint8Array] => [
  `unet/diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`,
  writeSafetensors({ [`${name}.weight`]: { dtype: "F32", shape: [2], data: Float32Array.of(1, 2) } }),
]);
const INDEX = "unet/diffusion_pytorch_model.safetensors.index.json";
const shardedSeed: Files = new Map<string, string | Uint8Array>([
  ...SHARDED,
  [
    INDEX,
    JSON.stringify({
      metadata: { total_size: 16 },
      weight_map: Object.fromEntries(SHARDED.map(([file], i) => [`${"ab"[i]}.weight`, path.basename(file)])),
    }),
  ],
]);

async function packSeed(shardBytes: number): Promise<Files> {
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

const configs = (component: string): Files[] =>
  [...readdirSync(GOLDEN).map((model) => path.join(GOLDEN, model)), POSTCARD].flatMap((model) => {
    try {
      const name = component === "scheduler" ? "scheduler_config.json" : "config.json";
      return [only("config.json", text(model, component, name))];
    } catch {
      return []; // this golden has no such component
    }
  });

const open = (files: Files): Config =>
  new Config("config.json", parseConfigText(textOf(files, "config.json"), "config.json"));

const bitWidths = ["w4a16.json", "w3.66a16.json", "w8a8.json"].map((name) =>
  smallerOf(text(POSTCARD, "quantization", name), 40),
);
const yamlOf = (json: string, key: "weightBits" | "actBits"): string =>
  Array.from(parseMixdqConfig(json, "seed").layers, ([layer, bits]) => `model.${layer}: ${bits[key]}`).join("\n");

const tokenizerOf = (model: string, names: readonly string[]): Files =>
  new Map(names.map((name) => [name, text(GOLDEN, model, "tokenizer", name)]));

const TOKENIZER = {
  tokenizerJson: "tokenizer.json",
  vocab: "vocab.json",
  merges: "merges.txt",
  config: "tokenizer_config.json",
  specialTokensMap: "special_tokens_map.json",
  addedTokens: "added_tokens.json",
} as const;

const PROMPTS = ["a red house by the sea", "", "naïve <|endoftext|> constructor __proto__ <x> 😀 3.5!"];

function runTokenizer(files: Files): void {
  const texts = Object.fromEntries(Object.entries(TOKENIZER).map(([key, name]) => [key, content(files, name)]));
  const tokenizer = createTokenizer(texts, "tokenizer");
  for (const prompt of PROMPTS) {
    const { ids, eosIndex } = tokenizer.encode(prompt);
    expectThat(ids.length === tokenizer.length, "it gives another number of ids");
    expectThat(
      ids.every((id) => id >= 0 && id <= tokenizer.largestId),
      `it gives ids beyond its largest, ${tokenizer.largestId}`,
    );
    expectThat(eosIndex >= 0, "there is no end token");
  }
}

function runScheduler(files: Files): void {
  const config = open(files);
  const scheduler = createScheduler(config.values, config.where)(3);
  const isFinite = (values: Float32Array): boolean => values.every(Number.isFinite);
  expectThat(isFinite(scheduler.timesteps), "its timesteps are not finite");
  expectThat(scheduler.initNoiseSigma > 0 && scheduler.initNoiseSigma < Infinity, "its noise is nothing or infinite");
  let sample = Float32Array.of(scheduler.initNoiseSigma, -scheduler.initNoiseSigma);
  for (const i of scheduler.timesteps.keys()) {
    const input = scheduler.scaleModelInput(sample, i);
    sample = new Float32Array(scheduler.step(input, i, sample, () => Float32Array.of(0.5, -0.5)).prev);
    expectThat(isFinite(sample), `step ${i} makes numbers that are not finite`);
  }
}

const HALF = { batch: 1, height: 8, width: 8, tokens: 77 };

/** `--name value` a line. */
const COMMAND_LINE =
  "--model\nx\n--precision\nw4a8\n--backend\nwebgpu\n--kernels\ntiled\n--debug\n1\n--group\n64\n--symmetric";

function runFlagsOf(files: Files): void {
  const options = {
    ...RUN_FLAGS,
    "weight-range": { type: "string" },
    group: { type: "string" },
    symmetric: { type: "boolean" },
  } as const;
  const { flags } = readFlags(textOf(files, "arguments.txt").split("\n"), options);
  runFlags(flags);
  weightFlags(flags);
  oneOf(flags, "model", ["x"]);
}

async function drain(tensors: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of tensors) void _;
}

export async function makeTargets(): Promise<Target[]> {
  const judge = text(POSTCARD, "judge/judge.json");
  const { attributes, features } = readDescription(judge, "judge.json");
  const statistics = new Uint8Array(readFileSync(path.join(POSTCARD, "judge/statistics.safetensors")));
  const models = MODELS.map((model) => folder(path.join(GOLDEN, model), 40_000));
  const steps = JSON.stringify({
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
  return [
    {
      name: "safetensors, whole",
      weight: 10,
      seeds: safetensorsSeeds,
      run: (files) => {
        for (const [name, tensor] of parseSafetensors(bytesOf(files, "x.safetensors"), "x.safetensors"))
          readFloats(tensor, name);
      },
    },
    {
      name: "safetensors, streamed",
      weight: 5,
      seeds: safetensorsSeeds,
      run: async (files, chance) => {
        const wanted = chance.oneIn(2) ? () => true : (name: string) => name.endsWith("weight");
        const stream = await folderOf(files, chance.of([7, 100, 2 ** 20]), chance.oneIn(2)).open("x.safetensors");
        await drain(streamTensors(stream!, "x.safetensors", { wanted }));
      },
    },
    {
      name: "shard index",
      weight: 5,
      seeds: [shardedSeed],
      run: async (files, chance) => {
        parseIndex(textOf(files, INDEX), INDEX);
        const weights = await findComponent(folderOf(files, 100, chance.oneIn(2)), "unet", { precision: "fp32" });
        await drain(weights.tensors());
      },
    },
    {
      name: "pack",
      weight: 4,
      seeds: [await packSeed(1024), await packSeed(128)],
      run: async (files, chance) => {
        const pack = await openPack(folderOf(files, 100, chance.oneIn(2)));
        for (const name of pack?.manifest.components.keys() ?? []) await drain(pack!.component(name).parts());
        for (const name of pack?.manifest.files.keys() ?? []) await pack!.files.text(name);
      },
    },
    {
      name: "mixdq.json",
      weight: 6,
      seeds: bitWidths.map((json) => only("mixdq.json", json)),
      run: (files) => {
        const config = parseMixdqConfig(textOf(files, "mixdq.json"), "mixdq.json");
        for (const name of config.layers.keys()) weightQuantOf(config, name);
        parseMixdqConfig(writeMixdqConfig(config), "what was written");
      },
    },
    {
      name: "MixDQ's YAML",
      weight: 3,
      seeds: bitWidths.flatMap((json): Files[] => {
        const [weights, acts] = [yamlOf(json, "weightBits"), yamlOf(json, "actBits")];
        const flow = `{${weights.split("\n").slice(0, 30).join(", ")}}`;
        const bits = new Map([
          ["weights.yaml", weights],
          ["acts.yaml", acts],
        ]);
        return [bits, only("weights.yaml", weights), only("weights.yaml", flow)];
      }),
      run: (files) => importMixdqYaml(textOf(files, "weights.yaml"), content(files, "acts.yaml")),
    },
    {
      name: "tokenizer",
      weight: 4,
      seeds: [
        tokenizerOf("lcm-sd15", ["tokenizer.json", "tokenizer_config.json"]),
        tokenizerOf("sd15-ancestral", ["vocab.json", "merges.txt", "tokenizer_config.json"]),
        new Map([
          ...tokenizerOf("sd15-ancestral", ["vocab.json", "merges.txt", "tokenizer_config.json"]),
          [
            "special_tokens_map.json",
            '{"bos_token": {"content": "<|startoftext|>", "lstrip": false}, "pad_token": "!"}',
          ],
          ["added_tokens.json", '{"<x>": 600, "<x>_1": 601}'],
        ]),
      ],
      run: runTokenizer,
    },
    { name: "scheduler_config.json", weight: 8, seeds: configs("scheduler"), run: runScheduler },
    {
      name: "unet/config.json",
      weight: 8,
      seeds: configs("unet"),
      run: (files) => buildUNet(readUNetConfig(open(files)), HALF, "unet", "f16"),
    },
    {
      name: "vae/config.json",
      weight: 6,
      seeds: configs("vae"),
      run: (files) => buildVaeDecoder(readVaeConfig(open(files)), HALF, "f16"),
    },
    {
      name: "text_encoder/config.json",
      weight: 5,
      seeds: [...configs("text_encoder"), ...configs("text_encoder_2")],
      run: (files, chance) =>
        buildTextEncoder(open(files), { batch: 1, state: "last", projects: chance.oneIn(2) }, "f32"),
    },
    {
      name: "a model's folder",
      weight: 3,
      seeds: models,
      run: async (files) => {
        const model = await readModel(folderOf(files, 1000, true));
        const [height, width] = model.unet.sampleSize;
        expectThat(height > 0 && width > 0 && model.defaultSteps >= 1, "it has no size or no steps");
        model.createScheduler(model.defaultSteps);
        for (const { tokenizer } of model.textEncoders) tokenizer.encode(PROMPTS[0]!);
      },
    },
    {
      name: "sensitivity.json",
      weight: 4,
      seeds: [only("sensitivity.json", smallerOf(text(POSTCARD, "quantization/sensitivity.json"), 40))],
      run: (files) => writeSensitivity(readSensitivity(textOf(files, "sensitivity.json"), "sensitivity.json")),
    },
    {
      name: "calibration.json",
      weight: 4,
      seeds: [only("calibration.json", smallerOf(text(POSTCARD, "quantization/calibration.json"), 40))],
      run: (files, chance) => {
        const json = textOf(files, "calibration.json");
        const { layers } = readRanges(json, "calibration.json", chance.of(RANGE_RULES));
        attachRanges(new Map([...layers.keys()].map((name) => [name, { weightBits: 4, actBits: 8 }])), layers);
        writeCalibration(readCalibration(json, "calibration.json"));
      },
    },
    {
      name: "steps.json",
      weight: 4,
      seeds: [only("steps.json", steps)],
      run: (files) => parseSteps(textOf(files, "steps.json"), "steps.json"),
    },
    {
      name: "judge",
      weight: 4,
      seeds: [only("judge.json", judge)],
      run: (files) => readDescription(textOf(files, "judge.json"), "judge.json"),
    },
    {
      name: "judge's statistics",
      weight: 2,
      seeds: [only("statistics.safetensors", statistics)],
      run: (files) => readStatistics(bytesOf(files, "statistics.safetensors"), features, "statistics.safetensors"),
    },
    {
      name: "prompts",
      weight: 4,
      seeds: [only("prompts.jsonl", text(POSTCARD, "judge/prompts.jsonl").split("\n").slice(0, 20).join("\n"))],
      run: (files, chance) => {
        const lines = textOf(files, "prompts.jsonl");
        return chance.oneIn(2)
          ? readJudgedPrompts(lines, attributes, "prompts.jsonl")
          : readPromptLines(lines, "prompts.jsonl");
      },
    },
    {
      name: "the page's address",
      weight: 6,
      seeds: [
        "?prompt=a+red+house&seed=7&steps=4&w=512&h=512&guidance=1.5&mode=compare&precision=w8a8&backend=ort-wasm",
        "?model=https%3A%2F%2Fx%2Fy&config=&amplify=8&split=50&debug=2&negative=x&seed=",
      ].map((query) => only("address.query", query)),
      run: (files) => {
        const settings = readSettings(textOf(files, "address.query"));
        for (const value of Object.values(settings))
          expectThat(typeof value !== "number" || Number.isFinite(value), "a setting is not finite");
        const again = readSettings(writeSettings(settings));
        expectThat(JSON.stringify(again) === JSON.stringify(settings), "what was written is read as something else");
      },
    },
    { name: "flags", weight: 3, seeds: [only("arguments.txt", COMMAND_LINE)], run: runFlagsOf },
  ];
}

/** The same with so many layers: a change anywhere in a file is then likelier to be one that counts. */
function smallerOf(json: string, layers: number): string {
  const file = JSON.parse(json) as { layers: Record<string, unknown> };
  return JSON.stringify({ ...file, layers: Object.fromEntries(Object.entries(file.layers).slice(0, layers)) });
}
