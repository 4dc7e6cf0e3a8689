/** Every reader of what somebody else wrote, with valid files to begin from and what becomes of a file that it takes. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { parseSteps } from "../../src/cli/auto/stepsFile.ts";
import { buildUNet, readUNetConfig } from "../../src/diffusion/unet.ts";
import { buildVaeDecoder, readVaeConfig } from "../../src/diffusion/vae.ts";
import { readSensitivity, writeSensitivity } from "../../src/mixdq/allocation/sensitivity.ts";
import { RANGE_RULES, readCalibration, readRanges, writeCalibration } from "../../src/mixdq/calibration/file.ts";
import { readDescription, readStatistics } from "../../src/mixdq/quality/judge.ts";
import { readJudgedPrompts, readPromptLines } from "../../src/mixdq/quality/prompts.ts";
import { readModel } from "../../src/model/description.ts";
import { attachRanges, parseMixdqConfig, writeMixdqConfig } from "../../src/quant/config.ts";
import { importMixdqYaml } from "../../src/quant/mixdqYaml.ts";
import { buildTextEncoder } from "../../src/text/encoder.ts";
import { readSettings, writeSettings } from "../../src/ui/settings.ts";
import { readFloats } from "../../src/weights/convert.ts";
import { findComponent, parseIndex } from "../../src/weights/folder.ts";
import { openModel, openPack } from "../../src/weights/pack.ts";
import { isInsteadOf, isNote } from "../../src/weights/sniff.ts";
import { parseSafetensors, streamTensors } from "../../src/weights/safetensors.ts";
import type { Chance } from "./chance.ts";
import {
  COMMAND_LINE,
  drain,
  expectThat,
  HALF,
  open,
  PROMPTS,
  runFlagsOf,
  runScheduler,
  runTokenizer,
} from "./checks.ts";
import { bytesOf, content, folderOf, only, textOf, type Files } from "./files.ts";
import {
  bitWidths,
  configs,
  INDEX,
  INTEGERS,
  listedSeed,
  modelSeeds,
  packSeed,
  POSTCARD,
  safetensorsSeeds,
  schedulers,
  shardedSeed,
  smallerOf,
  STEPS,
  text,
  tokenizerSeeds,
  yamlSeeds,
} from "./seeds.ts";

export interface Target {
  readonly name: string;
  /** How many of the inputs, in proportion. */
  readonly weight: number;
  readonly seeds: readonly Files[];
  /** Reads the files and does what a caller would do first; throws what the reader throws. */
  run(files: Files, chance: Chance): unknown;
}

/** What weights lie in. */
const WEIGHTS: readonly Target[] = [
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
      const isFloat = (name: string): boolean => !INTEGERS.includes(name);
      const wanted = chance.oneIn(2) ? isFloat : (name: string) => isFloat(name) && name.endsWith("weight");
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
    name: "list of files",
    weight: 3,
    seeds: [listedSeed],
    run: async (files) => {
      const model = await openModel(folderOf(files, 100, true));
      for (const name of files.keys()) {
        isInsteadOf(name, (await model.files.text(name)) ?? "");
        isNote(bytesOf(files, name));
      }
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
];

/** What a folder says about its model. */
const CONFIGS: readonly Target[] = [
  {
    name: "tokenizer",
    weight: 4,
    seeds: tokenizerSeeds,
    run: runTokenizer,
  },
  { name: "scheduler_config.json", weight: 8, seeds: [...configs("scheduler"), ...schedulers], run: runScheduler },
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
    seeds: modelSeeds(),
    run: async (files) => {
      const model = await readModel(folderOf(files, 1000, true));
      const [height, width] = model.unet.sampleSize;
      expectThat(height > 0 && width > 0 && model.defaultSteps >= 1, "it has no size or no steps");
      model.createScheduler(model.defaultSteps);
      for (const { tokenizer } of model.textEncoders) tokenizer.encode(PROMPTS[0]);
    },
  },
];

/** What the method writes and reads. */
const METHOD: readonly Target[] = [
  {
    name: "mixdq.json",
    weight: 6,
    seeds: bitWidths.map((json) => only("mixdq.json", json)),
    run: (files) => {
      const config = parseMixdqConfig(textOf(files, "mixdq.json"), "mixdq.json");
      parseMixdqConfig(writeMixdqConfig(config), "what was written");
    },
  },
  {
    name: "MixDQ's YAML",
    weight: 3,
    seeds: yamlSeeds,
    run: (files) => importMixdqYaml(textOf(files, "weights.yaml"), content(files, "acts.yaml")),
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
    seeds: [only("steps.json", STEPS)],
    run: (files) => parseSteps(textOf(files, "steps.json"), "steps.json"),
  },
];

const JUDGE = text(POSTCARD, "judge/judge.json");
const { attributes, features } = readDescription(JUDGE, "judge.json");

/** What people write, and the judge that they bring. */
const PEOPLE: readonly Target[] = [
  {
    name: "judge",
    weight: 4,
    seeds: [only("judge.json", JUDGE)],
    run: (files) => readDescription(textOf(files, "judge.json"), "judge.json"),
  },
  {
    name: "judge's statistics",
    weight: 2,
    seeds: [
      only("statistics.safetensors", new Uint8Array(readFileSync(path.join(POSTCARD, "judge/statistics.safetensors")))),
    ],
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

export const TARGETS: readonly Target[] = [...WEIGHTS, ...CONFIGS, ...METHOD, ...PEOPLE];
