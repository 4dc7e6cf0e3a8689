/**
 * From prompts to a bit-width configuration, as a person does it: calibrate (against the CPU twins, and killed half-way),
 * preset, inspect; and the synthetic model, loaded by the engine that it is made for.
 */
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { BrokenModel, UNET, emptyFolder, expectError, expectFailedRun, mixdq, printed, refusal } from "./broken.ts";
import { random } from "./twin.ts";
import { readCalibration, type Calibration } from "../src/mixdq/calibration/file.ts";
import { quantizableLayers } from "../src/mixdq/calibration/layers.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { calibrate } from "../src/cli/calibrate.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { inspect } from "../src/cli/inspect/inspect.ts";
import { preset } from "../src/cli/preset.ts";
import { synthesize } from "../src/cli/synthesize/synthesize.ts";
import { readUNet } from "../src/cli/unet.ts";
import { createGenerator } from "../src/diffusion/noise.ts";
import { buildUNet } from "../src/diffusion/unet.ts";
import { createRuntime } from "../src/runtime/backend.ts";
import { readModel } from "../src/model/description.ts";
import { toChannelsLast } from "../src/model/layout.ts";
import { addedEmbeddings, projectTime } from "../src/model/unet.ts";
import { elementCount } from "../src/graph/ops.ts";
import { referenceOf } from "../src/kernels/index.ts";
import { readMixdqConfig } from "../src/quant/config.ts";
import { readFloats, toFloat32 } from "../src/weights/convert.ts";
import { findComponent } from "../src/weights/folder.ts";
import { parseSafetensors } from "../src/weights/safetensors.ts";

const ROOT = path.join(import.meta.dirname, "..");
const MODEL = path.join(import.meta.dirname, "golden/sdxl-euler-cfg");
const ADAPTER = ["--adapter", "swiftshader"];

const io = parseSafetensors(readFileSync(path.join(MODEL, "io.safetensors")), "io.safetensors");
const { prompts } = JSON.parse(readFileSync(path.join(MODEL, "io.json"), "utf8")) as { prompts: { prompt: string }[] };
const PROMPTS = prompts.map(({ prompt }) => prompt);

function promptFile(lines: readonly string[]): string {
  const file = path.join(emptyFolder(), "prompts.txt");
  writeFileSync(file, lines.join("\n"));
  return file;
}

/** The lines that `run` prints. */
const printedLines = async (run: () => Promise<void>): Promise<string[]> => (await printed(run)).split("\n");

async function calibrated(...flags: string[]): Promise<{ file: string; calibration: Calibration }> {
  const file = path.join(emptyFolder(), "calibration.json");
  const prompts = promptFile(["", ...PROMPTS.slice(0, 2), "  "]);
  await printed(() =>
    calibrate([
      "--model",
      MODEL,
      "--prompts",
      prompts,
      "--out",
      file,
      "--seed",
      "9",
      "--steps",
      "1",
      ...ADAPTER,
      ...flags,
    ]),
  );
  return { file, calibration: readCalibration(readFileSync(file, "utf8"), file) };
}

interface Expected {
  min: number;
  max: number;
  squares: number;
  count: number;
}

/**
 * Every layer's input by the CPU twins: text as diffusers encoded it, start noise as `generate --seed 9` (10, ...) has it.
 * The keys of second halves end in " skip".
 */
async function byTwins(bos: boolean): Promise<Map<string, Expected>> {
  const model = await readModel(await diskFiles(MODEL));
  const { unet } = model;
  const [height, width] = unet.sampleSize;
  const graph = buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32");
  const weights = new Map<string, Float32Array>();
  for (const [name, { dtype, bytes }] of parseSafetensors(readFileSync(path.join(MODEL, UNET))))
    weights.set(name, toFloat32(bytes, dtype as "F32" | "F16"));
  const expected = new Map<string, Expected>();
  const note = (key: string, values: Float32Array): void => {
    const range = expected.get(key) ?? { min: Infinity, max: -Infinity, squares: 0, count: 0 };
    for (const value of values) {
      range.min = Math.min(range.min, value);
      range.max = Math.max(range.max, value);
      range.squares += value ** 2;
    }
    range.count += values.length;
    expected.set(key, range);
  };
  for (const j of [0, 1]) {
    const scheduler = model.createScheduler(1);
    const noise = createGenerator(9 + j).randn(unet.inChannels * height * width);
    const start = noise.map((value) => Math.fround(value * scheduler.initNoiseSigma));
    const tensor = (name: string): Float32Array => readFloats(io.get(`${j}.${name}`)!, name).slice();
    const size = [height * model.vae.scale, width * model.vae.scale];
    const inputs: Record<string, Float32Array> = {
      sample: toChannelsLast(scheduler.scaleModelInput(start, 0), { channels: unet.inChannels, height, width }),
      time_proj: projectTime(unet, [scheduler.timesteps[0]]),
      encoder_hidden_states: tensor("ehs"),
      add_embeds: addedEmbeddings(unet, tensor("pooled"), [...size, 0, 0, ...size]),
    };
    const values = new Map(Object.entries(graph.inputs).map(([name, { id }]) => [id, inputs[name]]));
    const twin = {
      tensor: ({ id }: { id: number }) => values.get(id)!,
      weight: (w: { name: string }) => weights.get(w.name)!,
      matrices: new Map(),
    };
    for (const op of graph.ops) values.set(op.y.id, referenceOf(op, twin));
    for (const { path, input, skip, isCrossKV } of quantizableLayers(graph)) {
      const all = values.get(input.id)!;
      note(path, bos && isCrossKV ? all.subarray(input.shape[3]) : all);
      if (skip) note(`${path} skip`, values.get(skip.id)!);
    }
  }
  return expected;
}

describe("calibrate", () => {
  test.each([true, false])("records what the CPU twins compute, layer by layer (bos: %s)", async (bos) => {
    const { calibration } = await calibrated(...(bos ? [] : ["--no-bos"]));
    expect(calibration).toMatchObject({ model: "sdxl-euler-cfg", prompts: 2, bos, provenance: { seed: 9, steps: 1 } });
    const expected = await byTwins(bos);
    const found = new Map(
      [...calibration.layers].flatMap(([path, { act, act2 }]) => [
        [path, act] as const,
        ...(act2 ? [[`${path} skip`, act2] as const] : []),
      ]),
    );
    expect([...found.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [key, { min, max, squares, count }] of expected) {
      const range = found.get(key)!;
      const near = 1e-3 * Math.max(Math.abs(min), Math.abs(max));
      expect(range.count, key).toBe(count);
      expect(Math.abs(range.min - min), key).toBeLessThan(near);
      expect(Math.abs(range.max - max), key).toBeLessThan(near);
      expect(range.meanSquare / (squares / count), key).toBeCloseTo(1, 3);
      expect(range.movingMin, key).toBeGreaterThanOrEqual(range.min);
      expect(range.movingMax, key).toBeLessThanOrEqual(range.max);
    }
  });

  test("sees every step of several", async () => {
    const once = (await calibrated("--limit", "1")).calibration;
    const thrice = (await calibrated("--limit", "1", "--steps", "3")).calibration;
    for (const [path, { act }] of thrice.layers) expect(act.count).toBe(3 * once.layers.get(path)!.act.count);
    expect(thrice.layers.get("conv_out")!.act).not.toMatchObject({ max: once.layers.get("conv_out")!.act.max });
  });

  describe("that is killed", () => {
    const words = ["red", "old", "small", "stone", "sea", "moon", "tree", "house"];
    const next = random(5);
    const lines = Array.from({ length: 12 }, () => words.map((word) => (next() < 0.5 ? word : "a")).join(" "));
    const file = promptFile(lines);
    const flags = (out: string): string[] => [
      ...["calibrate", "--model", MODEL, "--prompts", file, "--out", out, "--steps", "1", ...ADAPTER],
    ];
    const interrupted = path.join(emptyFolder(), "calibration.json");

    beforeAll(async () => {
      const child = spawn(process.execPath, [path.join(ROOT, "bin/mixdq.mjs"), ...flags(interrupted)], {
        stdio: "ignore",
      });
      const ended = new Promise((resolve) => child.on("close", resolve));
      while (!existsSync(`${interrupted}.partial`) && child.exitCode === null)
        await new Promise((resolve) => setTimeout(resolve, 20));
      child.kill("SIGKILL");
      await ended;
    });

    /** A place for an output with the killed run's recording beside it. */
    const place = (): string => {
      const out = path.join(emptyFolder(), "calibration.json");
      copyFileSync(`${interrupted}.partial`, `${out}.partial`);
      return out;
    };

    test("goes on where it was and gives the same file", async () => {
      expect(existsSync(interrupted)).toBe(false);
      const { done } = JSON.parse(readFileSync(`${interrupted}.partial`, "utf8")) as { done: number };
      expect(done).toBeGreaterThan(0);
      expect(done).toBeLessThan(lines.length);
      const resumed = place();
      const again = await mixdq(flags(resumed));
      expect(again, again.stderr).toMatchObject({ exitCode: 0 });
      expect(again.stdout).toContain(`${done} of them before`);
      expect(readdirSync(path.dirname(resumed))).toEqual(["calibration.json"]);
      const whole = path.join(emptyFolder(), "calibration.json");
      const uninterrupted = await mixdq(flags(whole));
      expect(uninterrupted, uninterrupted.stderr).toMatchObject({ exitCode: 0 });
      expect(readFileSync(resumed, "utf8")).toBe(readFileSync(whole, "utf8"));
    });

    test.each<[string, string[], string]>([
      ["other prompts", ["--prompts", promptFile(lines.toReversed())], "had promptsSha256"],
      ["fewer prompts", ["--limit", "5"], "had prompts 12, this one has 5"],
      ["another seed", ["--seed", "1"], "had seed 0, this one has 1"],
      ["other steps", ["--steps", "2"], "had steps 1, this one has 2"],
      ["another precision", ["--precision", "fp16"], "had precision fp32, this one has fp16"],
      ["other ranges", ["--no-bos"], "had bos true, this one has false"],
    ])("is not gone on with for %s", async (_, change, says) => {
      const error = await refusal(calibrate([...flags(place()).slice(1), ...change]));
      expectError(error, "invalid-input", says, "Delete it to start anew");
    });

    test("is not gone on with for another model of the same name", async () => {
      const model = new BrokenModel("sdxl-euler-cfg");
      const bytes = model.read(UNET);
      bytes[bytes.length - 2] ^= 1;
      model.write(UNET, bytes);
      const error = await refusal(calibrate([...flags(place()).slice(1), "--model", model.folder]));
      expectError(error, "invalid-input", "had modelSha256", "Delete it to start anew");
    });

    test.each([
      ["cut short", (text: string) => text.slice(0, -9), "got something else than a calibration"],
      ["damaged", (text: string) => text.replace('"count":', '"count":1'), "the recording in it is damaged"],
      ["too long", (text: string) => text.replace(/"done":\d+/, '"done":99'), "got 99 prompts done, expected 1 to 12"],
    ])("is not gone on with where its recording is %s", async (_, damage, says) => {
      const out = place();
      writeFileSync(`${out}.partial`, damage(readFileSync(`${out}.partial`, "utf8")));
      expectError(await refusal(calibrate(flags(out).slice(1))), "invalid-input", says, "Delete it to start anew");
      expect(existsSync(out)).toBe(false);
    });
  });

  test.each<[string, string[], string]>([
    ["no prompts", ["--prompts", promptFile(["", " "])], "got no prompts, expected text with one prompt a line"],
    ["a prompt file that is missing", ["--prompts", "/nowhere.txt"], "--prompts /nowhere.txt cannot be read"],
    ["a limit of none", ["--limit", "0"], "--limit 0: expected at least one"],
    ["a quantized run", ["--precision", "w8a8"], "--precision w8a8: calibration runs the float model"],
    ["a configuration", ["--config", "mixdq.json"], "--config: calibration runs the float model"],
    ["another backend", ["--backend", "ort-wasm"], "only webgpu allows that"],
    ["a seed beyond 2^64", ["--seed", "18446744073709551616"], "--seed: got 18446744073709551616"],
    ["a step too few", ["--steps", "0"], "steps: got 0"],
  ])("refuses %s", async (_, flags, says) => {
    const out = path.join(emptyFolder(), "new", "calibration.json");
    const args = ["--model", MODEL, "--prompts", promptFile(PROMPTS), "--out", out, ...ADAPTER, ...flags];
    expectError(await refusal(calibrate(args)), "invalid-input", says);
    expect(existsSync(path.dirname(out))).toBe(false);
  });
});

describe("preset", () => {
  let file: string;
  beforeAll(async () => {
    ({ file } = await calibrated());
  });

  const made = async (...flags: string[]) => {
    const out = path.join(emptyFolder(), "mixdq.json");
    const lines = await printedLines(() =>
      preset(["--model", MODEL, "--calibration", file, "--precision", "w4a8", "--out", out, ...flags]),
    );
    return { out, lines, config: readMixdqConfig(JSON.parse(readFileSync(out, "utf8")), out) };
  };

  test("names the layers that it leaves in 16 bits", async () => {
    const { config, lines } = await made();
    expect(lines[0]).toContain(`w4a8, ${config.layers.size} of ${config.layers.size + lines.length - 1} layers`);
    expect(lines.length).toBeGreaterThanOrEqual(3);
    for (const line of lines.slice(1)) expect(config.layers.has(/float: (\S+),/.exec(line)![1])).toBe(false);
    expect(config).toMatchObject({ bos: true, weights: { symmetric: false, range: "mse", group: null } });
  });

  test("does as the flags say", async () => {
    const flags = [
      "--precision",
      "w8a8",
      "--range-activations",
      "percentile",
      "--weight-range",
      "minmax",
      "--symmetric",
    ];
    const { config } = await made(...flags, "--group", "64", "--no-split", "--protect", "0");
    expect(config.weights).toEqual({ symmetric: true, range: "minmax", group: 64 });
    expect([...config.layers.values()].filter(({ act2 }) => act2)).toEqual([]);
    expect([...config.layers.values()].every(({ weightBits }) => weightBits === 8)).toBe(true);
    const { act } = readCalibration(readFileSync(file, "utf8"), file).layers.get("conv_out")!;
    expect(config.layers.get("conv_out")!.act!.scale).toBeCloseTo((act.percentileMax - act.percentileMin) / 255, 6);
  });

  test.each<[string, string[], string]>([
    ["another precision", ["--precision", "w2a2"], "--precision w2a2: expected w8a8, w4a8"],
    ["another range", ["--range-activations", "best"], "expected minmax, moving, percentile"],
    ["another group", ["--group", "32"], "--group 32: expected none, 64"],
    ["a share beyond all", ["--protect", "2"], "--protect 2: expected a share"],
    ["ranges that have seen no first token", ["--no-bos"], "Calibrate with --no-bos too"],
    ["a calibration that is missing", ["--calibration", "/nowhere.json"], "/nowhere.json cannot be read"],
    ["a model it was not made for", ["--model", path.join(MODEL, "../sd21-turbo")], "Calibrate the model"],
  ])("refuses %s", async (_, flags, says) => {
    expectError(await refusal(made(...flags)), "invalid-input", says);
  });

  test("and its calibration are shown by inspect", async () => {
    const { out, config } = await made();
    const shown = await printedLines(() => inspect([out, "--model", MODEL]));
    expect(shown).toContainEqual(expect.stringMatching(/^average weight bits +\d+\.\d{3} over all layers/));
    const total = quantizableLayers(
      buildUNet(await readUNet(await diskFiles(MODEL)), { batch: 1, height: 8, width: 8, tokens: 77 }, "unet", "f32"),
    ).length;
    const float = total - config.layers.size;
    expect(shown.at(-1)).toMatch(new RegExp(`^all +${total} layers +w4a8 \\d+, .*w16a16 ${float}`));
    expect((await printedLines(() => inspect([out]))).at(-1)).toMatch(new RegExp(`^all +${config.layers.size} layers`));
    const ranges = await printedLines(() => inspect([file]));
    expect(ranges[0]).toMatch(/^calibration\.json +of sdxl-euler-cfg, 2 prompt\(s\)/);
    expect(ranges).toContainEqual(
      expect.stringMatching(/^self-attention +\d+ layers +8-bit input: [\d.]+ dB at least/),
    );
  });

  test("a stranger's JSON is not shown", async () => {
    const file = path.join(emptyFolder(), "x.json");
    writeFileSync(file, '{"format":"other"}');
    expectError(
      await refusal(inspect([file])),
      "invalid-input",
      'x.json: got "format" "other", expected "mixdq-config"',
    );
    writeFileSync(file, "{");
    expectError(await refusal(inspect([file])), "invalid-input", "got something that is not JSON");
  });
});

describe("synthesize", () => {
  const config = path.join(MODEL, "unet/config.json");

  test("writes a model that the engine loads and runs, in shards as diffusers names them", async () => {
    const folder = emptyFolder();
    const [line] = await printedLines(() => synthesize(["--out", folder, "--like", config, "--shard-bytes", "100000"]));
    const names = readdirSync(path.join(folder, "unet")).sort();
    expect(names[0]).toBe("config.json");
    expect(names.at(-1)).toBe("diffusion_pytorch_model.safetensors.index.fp16.json");
    const shards = names.slice(1, -1);
    const number = (n: number): string => String(n).padStart(5, "0");
    expect(shards).toEqual(
      shards.map((_, i) => `diffusion_pytorch_model.fp16-${number(i + 1)}-of-${number(shards.length)}.safetensors`),
    );
    expect(shards.length).toBeGreaterThan(2);
    expect(line).toContain(`in ${shards.length} file(s)`);
    expect(readdirSync(folder)).toEqual(["unet"]);

    const files = await diskFiles(folder);
    const unet = await readUNet(files);
    const graph = buildUNet(unet, { batch: 1, height: 8, width: 8, tokens: 9 }, "unet", "f16");
    const runtime = await createRuntime({ backend: "webgpu", gpu: await requestNodeGpu("swiftshader") });
    try {
      const weights = await findComponent(files, "unet", { precision: "fp16" });
      const keyed = { key: "", build: () => graph };
      const network = await runtime.load({ component: "unet", weights, storage: "f16", graphs: [keyed] });
      const noise = createGenerator(1);
      const inputs = Object.fromEntries(
        Object.entries(graph.inputs).map(([name, { shape }]) => [name, noise.randn(elementCount(shape))]),
      );
      const { out_sample } = await network.run(keyed, inputs);
      expect(out_sample!.every(Number.isFinite)).toBe(true);
      const deviation = Math.sqrt(out_sample!.reduce((sum, value) => sum + value ** 2, 0) / out_sample!.length);
      expect(deviation).toBeGreaterThan(0.1);
      expect(deviation).toBeLessThan(10);
    } finally {
      await runtime.dispose();
    }
  });

  test("the same seed gives the same weights, another one others, however they are cut", async () => {
    const weights = async (...flags: string[]) => {
      const folder = emptyFolder();
      await printed(() => synthesize(["--out", folder, "--like", config, ...flags]));
      const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
      const found = await findComponent(await diskFiles(folder), "unet", { precision: "fp16" });
      for await (const { name, shape, bytes } of found.tensors())
        tensors.set(name, { shape, values: toFloat32(bytes, "F16") });
      return tensors;
    };
    const one = await weights();
    expect(await weights("--shard-bytes", "50000", "--seed", "0")).toEqual(one);
    const other = await weights("--seed", "1");
    expect([...other.keys()]).toEqual([...one.keys()]);
    const name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight";
    expect(other.get(name)!.shape).toEqual(one.get(name)!.shape);
    const same = other.get(name)!.values.filter((value, i) => value === one.get(name)!.values[i]).length;
    expect(same).toBeLessThan(0.01 * other.get(name)!.values.length);
  });

  test("projections are saved as the config says: linear or 1x1 convolutions", async () => {
    const shapeIn = async (use_linear_projection: boolean): Promise<readonly number[]> => {
      const [folder, file] = [emptyFolder(), path.join(emptyFolder(), "config.json")];
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(config, "utf8")), use_linear_projection }));
      await printed(() => synthesize(["--out", folder, "--like", file]));
      const weights = readFileSync(path.join(folder, "unet/diffusion_pytorch_model.fp16.safetensors"));
      return parseSafetensors(weights).get("mid_block.attentions.0.proj_in.weight")!.shape;
    };
    expect(await shapeIn(true)).toEqual([24, 24]);
    expect(await shapeIn(false)).toEqual([24, 24, 1, 1]);
  });

  test.each<[string, string[], string, string?]>([
    ["a model that it does not know", ["--like", "flux"], "--like flux: no such file, expected sdxl-turbo or"],
    ["a file that is no config", ["--like", import.meta.filename], "got something that is not JSON"],
    ["a config of another model", ["--like", path.join(MODEL, "vae/config.json")], "_class_name", "invalid-model"],
    ["shards without end", ["--shard-bytes", "1"], "makes 1680 files, expected at most 1000"],
    ["a seed that is no number", ["--seed", "x"], "--seed x: expected a whole number"],
  ])("refuses %s", async (_, flags, says, code = "invalid-input") => {
    const folder = path.join(emptyFolder(), "new");
    expectError(await refusal(synthesize(["--out", folder, ...flags])), code as "invalid-input", says);
    expect(existsSync(path.join(folder, "unet"))).toBe(false);
  });

  test("does not write over a model", async () => {
    const folder = emptyFolder();
    mkdirSync(path.join(folder, "unet"));
    const error = await refusal(synthesize(["--out", folder, "--like", config]));
    expectError(error, "invalid-input", "unet: is there already", "Choose another --out");
    expect(readdirSync(path.join(folder, "unet"))).toEqual([]);
  });

  test("is a command", async () => {
    const folder = emptyFolder();
    const out = path.join(folder, "x");
    const run = await mixdq(["synthesize", "--out", out, "--like", config]);
    expect(run, run.stderr).toMatchObject({ exitCode: 0 });
    expect(run.stdout).toContain("random parameters like");
    expectFailedRun(
      await mixdq(["synthesize", "--like", config]),
      path.join(folder, "none/x"),
      "invalid-input",
      "--out",
    );
  });
});
