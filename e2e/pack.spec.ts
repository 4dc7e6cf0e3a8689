/**
 * Packs: written by `mixdq quantize`, loaded by the engine. A picture from a pack is bit for bit the one from the model
 * with the same configuration; a pack that is damaged or contradicts itself is refused, and leaves nothing behind.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { BrokenModel, emptyFolder, expectError, printed, refusal } from "./broken.ts";
import { writeCalibration } from "../src/mixdq/calibration/file.ts";
import { quantizableLayers } from "../src/mixdq/calibration/layers.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { inspect } from "../src/cli/inspect/inspect.ts";
import { quantize } from "../src/cli/quantize.ts";
import { readUNet, unet } from "../src/cli/unet.ts";
import { buildUNet } from "../src/diffusion/unet.ts";
import { ModelGraphs } from "../src/model/graphs.ts";
import { readModel } from "../src/model/description.ts";
import { rememberingFiles, writePack } from "../src/mixdq/pack/packing.ts";
import type { MixdqError } from "../src/base/errors.ts";
import { SIMPLE } from "../src/kernels/choices.ts";
import { loadPipeline, type Intermediates } from "../src/pipeline.ts";
import { readMixdqConfig, writeMixdqConfig, type LayerConfig, type MixdqConfig } from "../src/quant/config.ts";
import type { Precision } from "../src/base/types.ts";
import type { ModelFiles } from "../src/weights/files.ts";
import { openPack } from "../src/weights/pack.ts";
import { readManifest, writeManifest, type PackManifest } from "../src/weights/packManifest.ts";
import { sha256 } from "../src/weights/sha256.ts";

const GOLDEN = path.join(import.meta.dirname, "golden");
/** The tuner may measure, and choose otherwise another time; the other variant of kernels takes long to compile. */
const ADAPTER = ["--kernels", "direct"];
/** Without guidance: what it compares with is zeros in SDXL, which a cached BOS token refuses. */
const REQUEST = {
  prompt: "a red house by the sea",
  seed: 7,
  width: 64,
  height: 64,
  numInferenceSteps: 2,
  guidanceScale: 0,
};

type Files = Map<string, Uint8Array<ArrayBuffer>>;

/** A pack in memory. */
function filesOf(files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): ModelFiles {
  return {
    location: "memory",
    text: async (name) => (files.has(name) && new TextDecoder().decode(files.get(name))) || undefined,
    async open(name) {
      const bytes = files.get(name);
      return bytes && { bytes: 0, body: new Blob([bytes]).stream() };
    },
  };
}

type Chosen = (path: string, index: number) => Pick<LayerConfig, "weightBits" | "actBits"> | undefined;

/** A configuration with made-up input ranges for the layers that are chosen. */
async function madeUp(folder: string, choose: Chosen, rest: Partial<MixdqConfig> = {}): Promise<MixdqConfig> {
  const config = await readUNet(await diskFiles(folder));
  const [height, width] = config.sampleSize;
  const layers = quantizableLayers(buildUNet(config, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  const entries = layers.flatMap(({ path, hasSkip }, i): [string, LayerConfig][] => {
    const bits = choose(path, i);
    // As a file's scales are read.
    const act = { scale: Math.fround(0.02 + 0.001 * (i % 7)), zeroPoint: 100 + (i % 50) };
    if (!bits) return [];
    return [
      [path, { ...bits, act, ...(hasSkip && i % 2 === 0 && { act2: { scale: Math.fround(0.03), zeroPoint: 120 } }) }],
    ];
  });
  return {
    model: path.basename(folder),
    weights: { symmetric: false, range: "mse", group: null },
    bos: true,
    layers: new Map(entries),
    averageWeightBits: undefined,
    provenance: {},
    ...rest,
  };
}

const everywhere =
  (weightBits: 4 | 8): Chosen =>
  () => ({ weightBits, actBits: 8 });

/** 8, 4, 3 and 2 bits, some weight-only, some left in 16 bits. */
const mixed: Chosen = (_, i) =>
  i % 6 === 5 ? undefined : { weightBits: ([8, 4, 3, 2, 4] as const)[i % 6], actBits: i % 6 === 4 ? 16 : 8 };

const SPLIT_OFF: Chosen = (path, i) => (path.includes("attn2") ? { weightBits: i % 2 ? 4 : 8, actBits: 8 } : undefined);

/** A calibration.json with made-up ranges. */
async function madeUpCalibration(folder: string): Promise<string> {
  const config = await readUNet(await diskFiles(folder));
  const [height, width] = config.sampleSize;
  const layers = quantizableLayers(buildUNet(config, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  const range = (i: number) => {
    const [min, max] = [-1 - (i % 3), 2 + (i % 5)];
    const same = { movingMin: min, movingMax: max, percentileMin: min, percentileMax: max };
    return { min, max, ...same, meanSquare: 0.3, count: 100 };
  };
  const statistics = layers.map(({ path, hasSkip }, i) => {
    return [path, { act: range(i), ...(hasSkip && { act2: range(i + 1) }) }] as const;
  });
  const about = { model: path.basename(folder), prompts: 1, bos: true, provenance: {} };
  const file = path.join(emptyFolder(), "calibration.json");
  writeFileSync(file, writeCalibration({ ...about, layers: new Map(statistics) }));
  return file;
}

/** A configuration's file. */
function written(config: MixdqConfig): string {
  const file = path.join(emptyFolder(), "mixdq.json");
  writeFileSync(file, writeMixdqConfig(config));
  return file;
}

async function packed(folder: string, config: MixdqConfig, ...flags: string[]): Promise<string> {
  const out = path.join(emptyFolder(), "pack");
  await printed(() => quantize(["--model", folder, "--config", written(config), "--out", out, ...ADAPTER, ...flags]));
  return out;
}

async function picture(files: ModelFiles, how: { precision?: Precision; config?: MixdqConfig } = {}) {
  const pipeline = await loadPipeline({ files, gpu: await requestNodeGpu("auto"), kernels: SIMPLE, ...how });
  try {
    let seen: Intermediates | undefined;
    const image = await pipeline.generate(REQUEST, { onIntermediates: (values) => (seen = values) });
    const { precision, weightBytes } = pipeline.info;
    return { pixels: image.data, unetOut: seen!.unetOut, image: seen!.image, info: { precision, weightBytes } };
  } finally {
    await pipeline.dispose();
  }
}

describe("a picture from a pack", () => {
  test.each<[string, string, Chosen, Precision, Partial<MixdqConfig>]>([
    ["w8a8", "sdxl-euler-cfg", everywhere(8), "w8a8", {}],
    ["w4a8", "sdxl-euler-cfg", everywhere(4), "w4a8", {}],
    ["mixed", "sdxl-euler-cfg", mixed, "w4a8", {}],
    ["mixed in groups", "sdxl-euler-cfg", mixed, "w4a8", { weights: { symmetric: true, range: "minmax", group: 64 } }],
    ["keys and values of the text", "sd21-turbo", SPLIT_OFF, "w4a8", {}],
    ["w4a8 without a BOS cache, of a model in halves", "lcm-sd15", everywhere(4), "w4a8", { bos: false }],
  ])("is the model's own, bit for bit: %s, %s", async (_, name, choose, precision, rest) => {
    const folder = path.join(GOLDEN, name);
    const config = await madeUp(folder, choose, rest);
    const expected = await picture(await diskFiles(folder), { precision, config });
    const got = await picture(await diskFiles(await packed(folder, config)));
    expect(got).toEqual(expected);
    expect(got.info.precision).toBe(precision);
  });

  test("whose tensors are cut into many shards is the same", async () => {
    const folder = path.join(GOLDEN, "sdxl-euler-cfg");
    const config = await madeUp(folder, mixed);
    const [whole, cut] = await Promise.all([inMemory(folder, config), inMemory(folder, config, 4096)]);
    expect(whole.manifest.shards.length).toBe(4);
    expect(cut.manifest.shards.length).toBeGreaterThan(50);
    const isCut = cut.manifest.components.get("unet")!.some(({ bytes, format }) => bytes > 4096 && format === "F16");
    expect(isCut).toBe(true);
    expect(await picture(filesOf(cut.files))).toEqual(await picture(filesOf(whole.files)));
  });
});

/** A pack without its BOS state computed: made up. */
async function inMemory(
  folder: string,
  config: MixdqConfig,
  shardBytes?: number,
): Promise<{ files: Files; manifest: PackManifest }> {
  const source = rememberingFiles(await diskFiles(folder));
  const model = await readModel(source);
  const bos = config.bos ? [await bosState(folder)] : [];
  const files: Files = new Map();
  const manifest = await writePack({
    name: "made",
    files: source,
    texts: source.texts,
    components: new ModelGraphs(model, "w8a8", config).components(),
    config,
    bos,
    sink: { write: async (name, bytes) => void files.set(name, bytes.slice() as Uint8Array<ArrayBuffer>) },
    ...(shardBytes !== undefined && { shardBytes }),
  });
  return { files, manifest };
}

const states = new Map<string, Promise<Float32Array>>();
function bosState(folder: string): Promise<Float32Array> {
  const known = states.get(folder) ?? computed(folder);
  states.set(folder, known);
  return known;
}

/** As the pipeline has it in row 0 of any text. */
async function computed(folder: string): Promise<Float32Array> {
  const files = await diskFiles(folder);
  const pipeline = await loadPipeline({ files, gpu: await requestNodeGpu("auto"), kernels: SIMPLE });
  let seen: Intermediates | undefined;
  await pipeline.generate({ ...REQUEST, numInferenceSteps: 1 }, { onIntermediates: (values) => (seen = values) });
  await pipeline.dispose();
  return seen!.promptEmbeds.slice(0, seen!.promptEmbeds.length / seen!.tokens);
}

describe("a UNet from a pack", () => {
  test("is the model's own, bit for bit, and wants the BOS token that it was made with", async () => {
    const folder = path.join(GOLDEN, "unet-sd2");
    const inputs = path.join(folder, "io.safetensors");
    const config = await madeUp(folder, everywhere(4));
    const file = written(config);
    const outputs = path.join(emptyFolder(), "out");
    const run = async (name: string, ...flags: string[]): Promise<Uint8Array> => {
      const out = path.join(outputs, name);
      await printed(() => unet(["--inputs", inputs, "--out", out, ...ADAPTER, ...flags]));
      return readFileSync(out);
    };
    const error = await refusal(packed(folder, config));
    expectError(error, "invalid-input", "has no text encoders", "--bos-state FILE#KEY");

    const pack = await packed(folder, config, "--bos-state", `${inputs}#encoder_hidden_states`);
    const asks = ["--model", folder, "--config", file, "--precision", "w4a8"];
    expect(await run("pack", "--model", pack)).toEqual(await run("model", ...asks));

    const other = await packed(folder, config, "--bos-state", `${inputs}#${OTHER_STATE}`).catch((e: MixdqError) => e);
    expectError(other as MixdqError, "invalid-input", 'the file has no tensor "no_such_tensor"');
  });
});

const OTHER_STATE = "no_such_tensor";

describe("mixdq quantize", () => {
  const folder = path.join(GOLDEN, "sd21-turbo");
  let config: MixdqConfig;
  let pack: string;
  beforeAll(async () => {
    config = await madeUp(folder, everywhere(4));
    pack = await packed(folder, config);
  });

  test("writes the same bytes again, and nothing else into the place", async () => {
    const again = await packed(folder, config);
    expect(readdirSync(path.dirname(again))).toEqual(["pack"]);
    const names = readdirSync(pack, { recursive: true, encoding: "utf8" }).sort();
    expect(readdirSync(again, { recursive: true, encoding: "utf8" }).sort()).toEqual(names);
    expect(names).toContain(path.join("tokenizer", "tokenizer.json"));
    for (const name of names.filter((name) => path.extname(name) !== ""))
      expect(readFileSync(path.join(again, name)).equals(readFileSync(path.join(pack, name))), name).toBe(true);
  });

  test("says in the manifest what a loader needs", async () => {
    const manifest = JSON.parse(readFileSync(path.join(pack, "manifest.json"), "utf8"));
    expect(manifest).toMatchObject({ format: "mixdq-pack", version: 1, model: "sd21-turbo", config: "mixdq.json" });
    for (const { file, bytes, sha256: digest } of manifest.shards) {
      const content = new Uint8Array(readFileSync(path.join(pack, file)));
      expect(content.length).toBe(bytes);
      expect(bytes).toBeLessThanOrEqual(32 * 2 ** 20);
      expect(await sha256(content)).toBe(digest);
    }
    const { tensors } = manifest.components.unet;
    const at = tensors.findIndex(({ name }: { name: string }) => name === "conv_out.weight");
    expect(tensors[at]).toMatchObject({ format: "U4", shape: [4, expect.any(Number), 3, 3] });
    expect(tensors[at + 1]).toMatchObject({ name: "conv_out.parameters", format: "U32", shape: [1, 4, 4] });
    for (const { offset } of tensors) expect(offset % 16).toBe(0);
  });

  test("makes the bits from a published pair of YAML files, or as a preset, with ranges from a calibration", async () => {
    const [place, calibration] = [emptyFolder(), await madeUpCalibration(folder)];
    const of = async (name: string, ...flags: string[]): Promise<MixdqConfig> => {
      const out = path.join(place, name);
      const asks = ["--model", folder, "--calibration", calibration, "--out", out, ...ADAPTER, ...flags];
      await printed(() => quantize(asks));
      return readMixdqConfig(JSON.parse(readFileSync(path.join(out, "mixdq.json"), "utf8")), "mixdq.json");
    };
    const preset = await of("preset", "--precision", "w4a8");
    expect(preset.provenance).toMatchObject({ made: "preset" });
    expect([...preset.layers.values()].filter(({ weightBits }) => weightBits === 4).length).toBeGreaterThan(50);

    const [bits, acts] = [path.join(place, "weights.yaml"), path.join(place, "acts.yml")];
    writeFileSync(bits, "model.conv_in: 8\nmodel.conv_out: 4\nmodel.time_embedding.linear_1: 2\n");
    writeFileSync(acts, "model.conv_in: 8\nmodel.time_embedding.linear_1: 8\n");
    const imported = await of("imported", "--config", bits, "--act-config", acts);
    expect([...imported.layers.keys()]).toEqual(["conv_in", "time_embedding.linear_1"]);
    expect(imported.layers.get("conv_in")).toEqual(preset.layers.get("conv_in"));
    expect(await printed(() => inspect([path.join(place, "imported")]))).toMatch(/U2 +1 layers of 2 bits/);
  });

  test("takes the model's licence along", async () => {
    const model = new BrokenModel();
    model.write("LICENSE.md", "\uFEFFdo what you like\n");
    const made = await packed(model.folder, config);
    expect(JSON.parse(readFileSync(path.join(made, "manifest.json"), "utf8")).licence).toBe("LICENSE.md");
    expect(readFileSync(path.join(made, "LICENSE.md"), "utf8")).toBe("do what you like\n");
    expect(await printed(() => inspect([made]))).toContain("LICENSE.md");
  });

  test.each<[string, (flags: { file: string; place: string }) => string[], string]>([
    ["no configuration", () => [], "--config is missing"],
    ["a float precision", () => ["--precision", "fp16"], "--precision fp16: expected --config"],
    ["two sources of bits", ({ file }) => ["--config", file, "--precision", "w4a8"], "Leave one of them out"],
    ["scales twice", ({ file }) => ["--config", file, "--calibration", file], "has its scales already"],
    ["a place that is taken", ({ file, place }) => ["--config", file, "--out", place], "is there already"],
    ["a pack", ({ file }) => ["--config", file, "--model", "PACK"], "is a pack already"],
    ["act bits alone", ({ file }) => ["--config", file, "--act-config", file], "goes with --config weights.yaml"],
    ["YAML without ranges", ({ place }) => ["--config", path.join(place, "bits.yaml")], "--calibration is missing"],
    ["a place that cannot be", ({ file }) => ["--config", file, "--out", "/proc/none/pack"], "cannot be written"],
  ])("refuses %s, and leaves nothing behind", async (_, flags, says) => {
    const place = emptyFolder();
    writeFileSync(path.join(place, "bits.yaml"), "model.conv_out: 4\n");
    const own = flags({ file: written(config), place }).map((flag) => (flag === "PACK" ? pack : flag));
    const out = path.join(emptyFolder(), "pack");
    const error = await refusal(printed(() => quantize(["--model", folder, "--out", out, ...ADAPTER, ...own])));
    expectError(error, error.code, says);
    expect(error.code).toMatch(/^(invalid-input|unsupported)$/);
    expect(readdirSync(path.dirname(out))).toEqual([]);
    expect(existsSync("/proc/none")).toBe(false);
  });

  test.each<[string, (model: BrokenModel) => void, string]>([
    [
      "a tensor is missing",
      (model) => model.tensor("unet/diffusion_pytorch_model.safetensors", "conv_out.bias", undefined),
      "conv_out.bias",
    ],
    ["the weights are cut short", (model) => cutShort(model, "vae/diffusion_pytorch_model.safetensors"), "bytes"],
  ])("leaves nothing behind where %s", async (_, damage, says) => {
    const model = new BrokenModel();
    damage(model);
    const out = path.join(emptyFolder(), "pack");
    const asks = ["--model", model.folder, "--config", written(config), "--out", out, ...ADAPTER];
    const error = await refusal(printed(() => quantize(asks)));
    expectError(error, error.code, says);
    expect(readdirSync(path.dirname(out))).toEqual([]);
  });

  test("a configuration of another model is refused before the work", async () => {
    const layers = new Map([
      ["no.such.layer", { weightBits: 4, actBits: 8, act: { scale: 1, zeroPoint: 0 } } as const],
    ]);
    expectError(await refusal(packed(folder, { ...config, layers })), "invalid-input", "no.such.layer");
  });

  test("inspect tells what is in it, and finds a flipped bit", async () => {
    const said = await printed(() => inspect([pack]));
    expect(said).toMatch(/unet +\d+ tensors/);
    expect(said).toMatch(/U4 +\d+ layers of 4 bits/);
    const copy = await packed(folder, config);
    const shard = path.join(copy, "shard-00002.bin");
    const bytes = readFileSync(shard);
    bytes[bytes.length >> 1] ^= 1;
    writeFileSync(shard, bytes);
    expectError(await refusal(printed(() => inspect([copy]))), "integrity", "shard-00002.bin", "SHA-256");
  });
});

function cutShort(model: BrokenModel, file: string): void {
  const bytes = model.read(file);
  model.write(file, bytes.subarray(0, bytes.length - 100));
}

describe("loading refuses", () => {
  const folder = path.join(GOLDEN, "sd21-turbo");
  let good: { files: Files; manifest: PackManifest };
  beforeAll(async () => {
    good = await inMemory(folder, await madeUp(folder, everywhere(4)), 2 ** 16);
  });

  /** Loads, and looks that nothing is left on the GPU of what was there before the failure: `least` buffers. */
  async function failure(
    files: Files,
    how: { precision?: Precision; config?: MixdqConfig } = {},
    least = 0,
  ): Promise<MixdqError> {
    const { made, living, counted } = countingBuffers(await requestNodeGpu("auto"));
    const error = await refusal(loadPipeline({ files: filesOf(files), gpu: counted, kernels: SIMPLE, ...how }));
    expect(made.size).toBeGreaterThanOrEqual(least);
    expect([...living], "buffers that were not destroyed").toEqual([]);
    return error;
  }

  const changed = (edit: (files: Files) => void): Files => {
    const files = new Map(good.files);
    edit(files);
    return files;
  };
  const rewritten = (edit: (manifest: any) => unknown): Files =>
    changed((files) => {
      const manifest = JSON.parse(new TextDecoder().decode(files.get("manifest.json")));
      edit(manifest);
      files.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
    });
  const unetTensors = (manifest: any): any[] => manifest.components.unet.tensors;
  const codes = (manifest: any): any => unetTensors(manifest).find(({ format }) => format === "U4");

  test.each<[string, (files: Files) => void, string]>([
    ["a flipped bit", (files) => (files.get("shard-00003.bin")![77] ^= 4), "shard-00003.bin: got SHA-256"],
    ["a truncated shard", (files) => files.set("shard-00002.bin", files.get("shard-00002.bin")!.slice(0, -1)), "bytes"],
    [
      "a shard with more",
      (files) => files.set("shard-00002.bin", longer(files.get("shard-00002.bin")!)),
      "got more bytes",
    ],
    [
      "a changed config",
      (files) => files.set("unet/config.json", longer(files.get("unet/config.json")!)),
      "unet/config.json",
    ],
    ["a changed mixdq.json", (files) => (files.get("mixdq.json")![40] ^= 1), "mixdq.json: got SHA-256"],
  ])("%s", async (_, damage, says) => {
    const copies = (files: Files): void => {
      for (const [name, bytes] of files) files.set(name, bytes.slice());
      damage(files);
    };
    expectError(await failure(changed(copies)), "integrity", says);
  });

  test("a flipped bit in the last shard, and frees the components that were there by then", async () => {
    const last = good.manifest.shards.at(-1)!.file;
    const files = changed((files) => {
      const bytes = files.get(last)!.slice();
      bytes[0] ^= 1;
      files.set(last, bytes);
    });
    expectError(await failure(files, {}, 3), "integrity", last);
  });

  test("two shards that were swapped", async () => {
    const { shards } = good.manifest;
    const [a, b] = [...shards.keys()].flatMap((i) =>
      [...shards.keys()].filter((j) => j > i && shards[i].bytes === shards[j].bytes).map((j) => [i, j] as const),
    )[0] ?? [2, 3];
    const [first, second] = [shards[a].file, shards[b].file];
    const files = changed((files) => {
      files.set(first, good.files.get(second)!);
      files.set(second, good.files.get(first)!);
    });
    expectError(await failure(files), "integrity", first);
  });

  test.each<[string, Files | (() => Files), string]>([
    ["a missing shard", () => changed((files) => files.delete("shard-00003.bin")), "shard-00003.bin: no such file"],
    ["a missing config", () => changed((files) => files.delete("vae/config.json")), "vae/config.json: no such file"],
    ["another format", () => rewritten((m) => (m.format = "zip")), 'got "format" "zip"'],
    ["another version", () => rewritten((m) => (m.version = 2)), 'got "version" 2'],
    [
      "no JSON",
      () => changed((f) => f.set("manifest.json", new TextEncoder().encode(`{"format": "mixdq-pack"`))),
      "not JSON",
    ],
    ["a list", () => changed((f) => f.set("manifest.json", new TextEncoder().encode("[]"))), "expected a JSON object"],
    ["an unknown tensor format", () => rewritten((m) => (codes(m).format = "Q4_K")), '"format" "Q4_K"'],
    ["an unknown tensor", () => rewritten((m) => (unetTensors(m).at(-1).name = "conv_out.extra")), "conv_out.extra"],
    ["a tensor twice", () => rewritten((m) => unetTensors(m).push(unetTensors(m)[0])), "two tensors of this name"],
    ["a tensor too few", () => rewritten((m) => unetTensors(m).pop()), "expected"],
    ["an overlap", () => rewritten((m) => (unetTensors(m)[3].offset -= 16)), "expected shard"],
    ["an offset beyond the shard", () => rewritten((m) => (unetTensors(m)[2].offset = 2 ** 24)), "expected shard"],
    ["a shard that is not there", () => rewritten((m) => (unetTensors(m)[2].shard = 999)), "got shard 999"],
    ["a negative offset", () => rewritten((m) => (unetTensors(m)[2].offset = -16)), 'got "offset" -16'],
    ["a huge tensor", () => rewritten((m) => (codes(m).bytes = 2 ** 40)), 'got "bytes" 1099511627776'],
    ["a huge shape", () => rewritten((m) => (codes(m).shape[0] = 2 ** 50)), 'got "shape[0]" 1125899906842624'],
    ["a huge shard", () => rewritten((m) => (m.shards[0].bytes = 2 ** 31)), "from 1 to 33554432"],
    [
      "a shard too many",
      () => rewritten((m) => m.shards.push({ ...m.shards[0], file: "more.bin" })),
      "shards, expected",
    ],
    ["no digest", () => rewritten((m) => delete m.shards[1].sha256), "64 hexadecimal digits"],
    ["codes without parameters", () => rewritten((m) => (codes(m).name = "else.weight")), "expected else.parameters"],
    ["another shape", () => rewritten((m) => codes(m).shape.reverse()), "got shape"],
    ["other bits", () => rewritten((m) => (codes(m).format = "U3")), "got U3, expected 4 bits"],
    [
      "a missing component",
      () => rewritten((m) => (m.components = renamed(m.components, "unet", "net"))),
      "a component unet",
    ],
    ["a path out of the folder", () => rewritten((m) => (m.files["../secret"] = m.files["mixdq.json"])), '"../secret"'],
    ["no BOS state", () => rewritten((m) => (m.bos = [])), "BOS states of [] channels"],
    ["a short BOS state", () => rewritten((m) => m.bos[0].pop()), "BOS states of"],
  ])("%s", async (_, files, says) => {
    expectError(await failure(typeof files === "function" ? files() : files), "invalid-model", says);
  });

  test.each(["fp16", "fp32"] as const)("to run in %s", async (precision) => {
    expectError(await failure(good.files, { precision }), "invalid-input", "is a pack", precision, "w4a8");
  });

  test("another configuration", async () => {
    const config = await madeUp(folder, everywhere(8));
    expectError(await failure(good.files, { config }), "invalid-input", "a configuration of its own");
  });

  test("text that begins with another token than the cache was made of", async () => {
    const files = rewritten((m) => (m.bos[0] = m.bos[0].map((value: number) => value + 1)));
    expectError(await refusal(picture(filesOf(files))), "invalid-input", "differs from the BOS token");
  });

  test("nothing of a pack that is as it should be", async () => {
    expect((await openPack(filesOf(good.files)))!.manifest).toEqual(good.manifest);
    const text = new TextDecoder().decode(good.files.get("manifest.json"));
    expect(writeManifest(readManifest(text, "manifest.json")!)).toBe(text);
    expect((await picture(filesOf(good.files), { precision: "w8a8" })).info.precision).toBe("w8a8");
  });
});

const renamed = (object: object, from: string, to: string): object =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key === from ? to : key, value]));

const longer = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array([...bytes, 32]);

/** A GPU that knows the buffers which its devices made, and which of them were not destroyed. */
function countingBuffers(gpu: GPU): { made: Set<GPUBuffer>; living: Set<GPUBuffer>; counted: GPU } {
  const [made, living] = [new Set<GPUBuffer>(), new Set<GPUBuffer>()];
  const counted = {
    ...gpu,
    async requestAdapter(options?: GPURequestAdapterOptions) {
      const adapter = (await gpu.requestAdapter(options))!;
      const { requestDevice } = adapter;
      adapter.requestDevice = async (descriptor) => {
        const device = await requestDevice.call(adapter, descriptor);
        const { createBuffer } = device;
        device.createBuffer = (descriptor) => {
          const buffer = createBuffer.call(device, descriptor);
          const { destroy } = buffer;
          buffer.destroy = () => {
            living.delete(buffer);
            return destroy.call(buffer);
          };
          made.add(buffer);
          living.add(buffer);
          return buffer;
        };
        return device;
      };
      return adapter;
    },
  } as GPU;
  return { made, living, counted };
}
