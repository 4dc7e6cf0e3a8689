/**
 * Sensitivity as a person measures it: against independent computations (the CPU twins over a disturbed graph, and the
 * whole engine over a disturbed checkpoint), killed half-way, in shards, and with what it must refuse.
 */
import { spawn } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { testAdapters } from "./adapters.ts";
import { BrokenModel, UNET, emptyFolder, expectError, mixdq, printed, refusal } from "./broken.ts";
import { readSensitivity, valueAt, type Sensitivity } from "../src/mixdq/allocation/sensitivity.ts";
import { readCalibration } from "../src/mixdq/calibration/file.ts";
import { calibrate } from "../src/cli/calibrate.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { generate } from "../src/cli/generate.ts";
import { sensitivity } from "../src/cli/sensitivity/sensitivity.ts";
import { buildUNet } from "../src/diffusion/unet.ts";
import { createGenerator } from "../src/diffusion/noise.ts";
import { readModel } from "../src/model/description.ts";
import { toChannelsLast } from "../src/model/layout.ts";
import { projectTime } from "../src/model/unet.ts";
import type { Graph, Op, Tensor, Weight } from "../src/graph/ops.ts";
import { referenceOf } from "../src/kernels/index.ts";
import { activationQuant, dequantizeActivations, quantizeActivations } from "../src/quant/activations.ts";
import type { WeightBits } from "../src/quant/formats.ts";
import { dequantizeMatrix, heldRows, quantizeMatrix } from "../src/quant/matrix.ts";
import { leastSquares } from "../src/quant/nearest.ts";
import { ssim } from "../src/mixdq/quality/ssim.ts";
import { readFloats, toFloat32 } from "../src/weights/convert.ts";
import { parseSafetensors } from "../src/weights/safetensors.ts";

const ROOT = path.join(import.meta.dirname, "..");
const MODEL = path.join(import.meta.dirname, "golden/sd21-turbo");
// The faster of the software adapters where it is there.
const adapter = (await testAdapters()).find(({ isMissing }) => !isMissing)!.name;

const folder = emptyFolder();
const CALIBRATION = path.join(folder, "calibration.json");
const PROMPTS = path.join(folder, "prompts.txt");
writeFileSync(PROMPTS, "a red fox in the snow\nan old house\n");

const flags = (out: string, ...more: string[]): string[] => [
  ...["--model", MODEL, "--calibration", CALIBRATION, "--prompts", PROMPTS, "--out", out, "--adapter", adapter],
  ...more,
];

const fresh = (): string => path.join(emptyFolder(), "sensitivity.json");

async function measured(...more: string[]): Promise<{ file: string; result: Sensitivity }> {
  const file = fresh();
  await printed(() => sensitivity(flags(file, ...more)));
  return { file, result: readSensitivity(readFileSync(file, "utf8"), file) };
}

beforeAll(async () => {
  const args = ["--model", MODEL, "--prompts", PROMPTS, "--out", CALIBRATION, "--adapter", adapter];
  await printed(() => calibrate(args));
});

const decibels = (reference: Float32Array, values: Float32Array): number => {
  const signal = reference.reduce((sum, value) => sum + value ** 2, 0);
  return 10 * Math.log10(signal / reference.reduce((sum, value, i) => sum + (value - values[i]) ** 2, 0));
};

const UP = "up_blocks.0.resnets.0.conv_shortcut";
const BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0";
/** A convolution, a shortcut with halves, one of three layers in one op, a key of the text, a gated product. */
const LAYERS = ["conv_in", UP, `${BLOCK}.attn1.to_k`, `${BLOCK}.attn2.to_k`, `${BLOCK}.ff.net.0.proj`];

describe("one layer at a time", () => {
  let result: Sensitivity;
  beforeAll(async () => {
    ({ result } = await measured("--samples", "1", "--layers", LAYERS.join()));
  });

  test("has every layer with both metrics at all bits", () => {
    expect([...result.layers.keys()]).toEqual([...LAYERS].sort());
    expect(result).toMatchObject({ model: "sd21-turbo", samples: 1, provenance: { seed: 0, steps: 1, bos: true } });
    for (const key of ["modelSha256", "promptsSha256", "calibrationSha256"])
      expect(result.provenance[key]).toMatch(/^[0-9a-f]{64}$/);
    expect(result.layers.get("conv_in")).toMatchObject({ group: "quality", weights: 16 * 4 * 9, activations: 4 * 256 });
    expect(result.layers.get(`${BLOCK}.ff.net.0.proj`)).toMatchObject({ group: "content" });
    for (const layer of result.layers.values())
      for (const metric of ["sqnr", "x0", "ssim"]) {
        expect([...layer.weight.get(metric)!.keys()]).toEqual([2, 4, 8]);
        expect([...layer.activation.get(metric)!.keys()]).toEqual([4, 8]);
      }
  });

  test("more bits are better", () => {
    for (const [path, layer] of result.layers)
      for (const metric of ["sqnr", "x0"]) {
        const [two, four, eight] = [2, 4, 8].map((bits) => valueAt(layer, "weight", bits, path, metric));
        expect(four!, path).toBeGreaterThan(two! + 6);
        expect(eight!, path).toBeGreaterThan(four! + 18);
        const [a4, a8] = [4, 8].map((bits) => valueAt(layer, "activation", bits, path, metric));
        expect(a8!, path).toBeGreaterThan(a4! + 18);
      }
  });

  test("equals what the CPU twins make of the disturbed graph", async () => {
    const twins = await makeTwins();
    const float = twins.run(() => {});
    for (const path of LAYERS) {
      const layer = result.layers.get(path)!;
      for (const bits of [2, 8] as const)
        expect(
          Math.abs(decibels(float, twins.withWeights(path, bits)) - valueAt(layer, "weight", bits, path, "sqnr")),
          `${path} w${bits}`,
        ).toBeLessThan(0.1);
      for (const bits of [4, 8])
        expect(
          Math.abs(decibels(float, twins.withInput(path, bits)) - valueAt(layer, "activation", bits, path, "sqnr")),
          `${path} a${bits}`,
        ).toBeLessThan(0.1);
    }
  });

  test.each([UP, "conv_in"])("equals what the engine makes of a checkpoint in which %s is disturbed", async (path) => {
    const dump = async (model: string) => {
      const out = emptyFolder();
      const args = ["--model", model, "--prompt", "a red fox in the snow", "--seed", "0", "--precision", "fp32"];
      const files = ["--out", `${out}/image.png`, "--dump", `${out}/dump.safetensors`, "--adapter", adapter];
      await printed(() => generate([...args, ...files]));
      const tensors = parseSafetensors(readFileSync(`${out}/dump.safetensors`), "dump");
      return (name: string): Float32Array => readFloats(tensors.get(name)!, name);
    };
    const layer = result.layers.get(path)!;
    const float = await dump(MODEL);
    for (const bits of [2, 4] as const) {
      const model = new BrokenModel("sd21-turbo");
      const name = `${path}.weight`;
      const { shape, bytes, dtype } = parseSafetensors(model.read(UNET)).get(name)!;
      const data = disturbed(toFloat32(bytes as Uint8Array<ArrayBuffer>, dtype as "F32"), shape, path, bits);
      model.tensor(UNET, name, { dtype: "F32", shape, data });
      const changed = await dump(model.folder);
      expect(decibels(float("unet_out"), changed("unet_out"))).toBeCloseTo(
        valueAt(layer, "weight", bits, path, "sqnr"),
        1,
      );
      expect(decibels(float("final_latents"), changed("final_latents"))).toBeCloseTo(
        valueAt(layer, "weight", bits, path, "x0"),
        1,
      );
      const [a, b] = [float("image"), changed("image")].map(toPicture);
      expect(Math.abs(ssim(a!, b!) - valueAt(layer, "weight", bits, path, "ssim"))).toBeLessThan(1e-4);
    }
  });
});

/** The weight as its integers stand for it; a shortcut's halves apart. */
function disturbed(values: Float32Array, shape: readonly number[], path: string, bits: WeightBits): Float32Array {
  const [rows, channels] = shape as [number, number];
  const taps = (shape[2] ?? 1) * (shape[3] ?? 1);
  // sd21-turbo's first upward block: 24 channels from below, the others from the skip connection.
  const halves = path === UP ? [24, channels - 24] : [channels];
  const segments = halves.map((_, half) => (half === 0 ? 0 : halves[0] * taps));
  const format = { path, rows, columns: channels * taps, bits, symmetric: false, segments };
  return dequantizeMatrix(quantizeMatrix(heldRows(values, rows), format, leastSquares));
}

function toPicture(image: Float32Array) {
  const plane = image.length / 3;
  const data = new Uint8ClampedArray(4 * plane);
  for (let i = 0; i < 4 * plane; i++) data[i] = i % 4 === 3 ? 255 : (image[(i % 4) * plane + (i >> 2)] / 2 + 0.5) * 255;
  return { width: Math.sqrt(plane), height: Math.sqrt(plane), data };
}

/** The UNet by its CPU twins, with one layer's weights or input replaced in the graph itself. */
async function makeTwins() {
  const model = await readModel(await diskFiles(MODEL));
  const { unet } = model;
  const [height, width] = unet.sampleSize;
  const graph = buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32");
  const stored = parseSafetensors(readFileSync(path.join(MODEL, UNET)));
  const checkpoint = (name: string): Float32Array => {
    const { bytes, dtype } = stored.get(name)!;
    return toFloat32(bytes as Uint8Array<ArrayBuffer>, dtype as "F32");
  };
  const { layers } = readCalibration(readFileSync(CALIBRATION, "utf8"), CALIBRATION);
  const scheduler = model.createScheduler(1);
  const noise = createGenerator(0).randn(unet.inChannels * height * width);
  const start = noise.map((value) => Math.fround(value * scheduler.initNoiseSigma));
  const dump = path.join(emptyFolder(), "dump.safetensors");
  const args = ["--model", MODEL, "--prompt", "a red fox in the snow", "--precision", "fp32", "--adapter", adapter];
  await printed(() => generate([...args, "--out", `${dump}.png`, "--dump", dump]));
  const text = readFloats(parseSafetensors(readFileSync(dump), dump).get("prompt_embeds")!, "prompt_embeds").slice();
  const inputs: Record<string, Float32Array> = {
    sample: toChannelsLast(scheduler.scaleModelInput(start, 0), { channels: unet.inChannels, height, width }),
    time_proj: projectTime(unet, [scheduler.timesteps[0]]),
    encoder_hidden_states: text,
  };

  interface Twin {
    graph: Graph;
    weights: Map<string, Float32Array>;
    /** Tensors made of others, by the id of a tensor that exists by then. */
    derived: { of: Tensor; as: Tensor; make: (values: Float32Array) => Float32Array }[];
  }
  const run = (edit: (twin: Twin) => void): Float32Array => {
    const twin: Twin = { graph: { ...graph, ops: [...graph.ops] }, weights: new Map(), derived: [] };
    edit(twin);
    const values = new Map<number, Float32Array>();
    const put = (tensor: Tensor, made: Float32Array): void => {
      values.set(tensor.id, made);
      for (const { of, as, make } of twin.derived) if (of.id === tensor.id) values.set(as.id, make(made));
    };
    for (const [name, tensor] of Object.entries(graph.inputs)) put(tensor, inputs[name]);
    const weight = ({ name }: Weight): Float32Array => twin.weights.get(name) ?? checkpoint(name);
    const read = { tensor: ({ id }: Tensor) => values.get(id)!, weight, matrices: new Map() };
    for (const op of twin.graph.ops) put(op.y, referenceOf(op, read));
    const output = values.get(graph.outputs["out_sample"].id)!;
    const channels = unet.outChannels;
    return Float32Array.from(output, (_, i) => {
      const plane = height * width;
      return output[(i % plane) * channels + Math.floor(i / plane)];
    });
  };
  const indexOf = (path: string): number =>
    graph.ops.findIndex((op) =>
      op.kind === "linear" ? op.parts.some((part) => part.path === path) : op.path === path,
    );
  const isKeyOfText = (path: string): boolean => path.includes("attn2.to_k");

  return {
    run,
    withWeights: (path: string, bits: WeightBits): Float32Array =>
      run((twin) => {
        const name = `${path}.weight`;
        const values = checkpoint(name);
        const { shape } = stored.get(name)!;
        twin.weights.set(name, disturbed(values, shape, path, bits));
        if (!isKeyOfText(path)) return;
        const at = indexOf(path);
        const op = graph.ops[at] as Extract<Op, { kind: "linear" }>;
        // The first token's keys, of the weights as they were.
        const k = text.length / 77;
        const bos = { name: `${path}.bos`, shape: [1, shape[0]] };
        twin.weights.set(
          bos.name,
          Float32Array.from({ length: shape[0] }, (_, n) => {
            let sum = 0;
            for (let c = 0; c < k; c++) sum += values[n * k + c] * text[c];
            return sum;
          }),
        );
        const parts = op.parts.map((part) => (part.path === path ? { ...part, bos } : part));
        (twin.graph.ops as Op[])[at] = { ...op, parts };
      }),
    withInput: (path: string, bits: number): Float32Array =>
      run((twin) => {
        const at = indexOf(path);
        const op = graph.ops[at] as Extract<Op, { kind: "linear" | "conv2d" }>;
        const { act, act2 } = layers.get(path)!;
        let id = 1e6;
        const derive = (of: Tensor, { min, max }: { min: number; max: number }): Tensor => {
          const as = { ...of, id: id++ };
          const quant = activationQuant(min, max, bits);
          const make = (values: Float32Array): Float32Array => {
            const out = dequantizeActivations(quantizeActivations(values, quant, bits), quant);
            if (isKeyOfText(path)) out.set(values.subarray(0, of.shape[3]));
            return out;
          };
          twin.derived.push({ of, as, make });
          return as;
        };
        const x = derive(op.x, act);
        (twin.graph.ops as Op[])[at] =
          op.kind === "linear"
            ? { ...op, parts: op.parts.map((part) => (part.path === path ? { ...part, x } : part)) }
            : { ...op, x, ...(op.x2 && { x2: derive(op.x2, act2!) }) };
      }),
  };
}

describe("a long measurement", () => {
  const few = [
    "--samples",
    "1",
    "--layers",
    "mid_block.attentions.0.transformer_blocks.0.attn2,conv_out",
    "--candidates",
    "4,8",
    "--act-candidates",
    "8",
  ];
  let whole: string;
  beforeAll(async () => {
    whole = readFileSync((await measured(...few)).file, "utf8");
  });

  test("that is killed goes on where it was and gives the same file", async () => {
    const out = fresh();
    const args = [path.join(ROOT, "bin/mixdq.mjs"), "sensitivity", ...flags(out, ...few)];
    const child = spawn(process.execPath, args, { stdio: "ignore" });
    const ended = new Promise((resolve) => child.on("close", resolve));
    const findings = (): number => readFileSync(`${out}.partial`, "utf8").split("\n").length - 2;
    while (child.exitCode === null && !(existsSync(`${out}.partial`) && findings() >= 2))
      await new Promise((resolve) => setTimeout(resolve, 20));
    child.kill("SIGKILL");
    await ended;
    expect(existsSync(out)).toBe(false);
    const done = findings();
    expect(done).toBeGreaterThanOrEqual(2);
    // As if it had been killed while it wrote.
    writeFileSync(`${out}.partial`, `${readFileSync(`${out}.partial`, "utf8")}{"path":"conv_o`);

    const other = fresh();
    copyFileSync(`${out}.partial`, `${other}.partial`);
    const error = await refusal(sensitivity(flags(other, ...few, "--seed", "3")));
    expectError(error, "invalid-input", "had seed 0, this one has 3", "Delete it to start anew");
    writeFileSync(`${other}.partial`, readFileSync(`${out}.partial`, "utf8").replace(/"sqnr":[\d.]+/, '"sqnr":"many"'));
    expectError(
      await refusal(sensitivity(flags(other, ...few))),
      "invalid-input",
      "line 2 is not a finding of this run",
    );

    const line = await printed(() => sensitivity(flags(out, ...few)));
    expect(line).toContain(`(${done} of them before)`);
    expect(readFileSync(out, "utf8")).toBe(whole);
    expect(readdirSync(path.dirname(out))).toEqual(["sensitivity.json"]);
  });

  test("in shards gives the same file once they are merged", async () => {
    const shards: { file: string; result: Sensitivity }[] = [];
    for (const shard of ["2/2", "1/2"]) shards.push(await measured(...few, "--shard", shard));
    const sizes = shards.map(({ result }) => result.layers.size);
    expect(Math.abs(sizes[0] - sizes[1])).toBeLessThanOrEqual(1);
    const out = fresh();
    await printed(() => sensitivity(["merge", ...shards.map(({ file }) => file), "--out", out]));
    expect(readFileSync(out, "utf8")).toBe(whole);
    const alone = await refusal(sensitivity(["merge", shards[0].file, "--out", fresh()]));
    expectError(alone, "invalid-input", "got 1 shards, expected all 2. Add 1.");
    const twice = await refusal(sensitivity(["merge", shards[0].file, shards[0].file, "--out", fresh()]));
    expectError(twice, "invalid-input", "shard 2");
  });
});

test.each<[string, string[], string]>([
  ["a quantized run", ["--precision", "w8a8"], "--precision w8a8: sensitivity disturbs the float model"],
  ["a configuration", ["--config", "mixdq.json"], "--config: sensitivity disturbs the float model"],
  ["another backend", ["--backend", "ort-wasm"], "only webgpu allows that"],
  ["bits that nobody stores", ["--candidates", "2,5"], "--candidates 2,5: expected bit-widths of 2, 3, 4, 8"],
  ["bits that are none", ["--act-candidates", "4,,8"], "--act-candidates 4,,8: expected bit-widths"],
  ["a shard of none", ["--shard", "3/2"], "--shard 3/2: expected I/N with I from 1 to N"],
  ["a shard in words", ["--shard", "first"], "--shard first: expected I/N"],
  ["more samples than prompts", ["--samples", "3"], "has 2 prompts"],
  ["no samples", ["--samples", "0"], "--samples 0: expected at least one"],
  ["no pictures", ["--pictures", "0"], "--pictures 0: expected at least one"],
  ["a calibration that is missing", ["--calibration", "/nowhere.json"], "/nowhere.json cannot be read"],
  ["prompts that are missing", ["--prompts", "/nowhere.txt"], "--prompts /nowhere.txt cannot be read"],
  ["layers that are not there", ["--layers", "conv_in,attn9"], 'no layer\'s path contains "attn9"'],
  ["a calibration of another model", ["--model", path.join(MODEL, "../lcm-sd15")], "Calibrate the model"],
])("refuses %s", async (_, more, says) => {
  const out = path.join(emptyFolder(), "new", "sensitivity.json");
  expectError(await refusal(sensitivity(flags(out, ...more))), "invalid-input", says);
  expect(existsSync(path.dirname(out))).toBe(false);
});

test("as a command says what it knows, and fails in one line", async () => {
  const help = await mixdq(["sensitivity", "--help"]);
  expect(help).toMatchObject({ exitCode: 0, stdout: expect.stringContaining("mixdq sensitivity merge FILE FILE") });
  const { exitCode, stderr } = await mixdq(["sensitivity", "merge", PROMPTS, "--out", fresh()]);
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/^mixdq sensitivity: invalid-input: .*prompts\.txt: got something that is not JSON/);
});
