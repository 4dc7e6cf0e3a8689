/** What the command line says to wrong flags, files and machines, and that it leaves nothing half-done behind. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import {
  BrokenModel,
  UNET,
  emptyFolder,
  expectError,
  expectFailedRun,
  mixdq,
  ownLines,
  printed,
  refusal,
} from "./broken.ts";
import { generate } from "../src/cli/generate.ts";
import { inspect } from "../src/cli/inspect/inspect.ts";
import { assertWritable, writeWhole } from "../src/node/outputFiles.ts";
import { readUNet, unetInputs } from "../src/cli/unet.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { readVaeConfig, buildVaeDecoder } from "../src/diffusion/vae.ts";
import { Config } from "../src/base/config.ts";
import type { ErrorCode, MixdqError } from "../src/base/errors.ts";
import { checkLimits, requestDevice } from "../src/gpu/device.ts";
import { SIMPLE } from "../src/kernels/choices.ts";
import { makePlan } from "../src/plan/plan.ts";
import { parseSafetensors, writeSafetensors, type TensorToWrite } from "../src/weights/safetensors.ts";

const GOLDEN = path.join(import.meta.dirname, "golden");
const MODEL = ["--model", path.join(GOLDEN, "sd21-turbo")];
const ADAPTER = ["--adapter", "auto"];

/** Somewhere to write that is not there yet: a run that fails must not even leave the folder. */
const newFile = (name: string): string => path.join(emptyFolder(), "new", name);

const floats = (...shape: number[]): TensorToWrite => ({
  dtype: "F32",
  shape,
  data: new Float32Array(shape.reduce((product, size) => product * size, 1)).fill(0.5),
});

describe("generate refuses before any work is done:", () => {
  const refused = async (...flags: string[]): Promise<MixdqError> => {
    const out = newFile("x.png");
    const error = await refusal(generate(["--prompt", "red", "--out", out, ...MODEL, ...flags]));
    expect(existsSync(path.dirname(out))).toBe(false);
    return error;
  };

  test.each<[string, string[], string[], ErrorCode?]>([
    ["no steps", ["--steps", "0"], ["--steps: got 0, expected a whole number from 1 to 1000"]],
    ["steps that are no number", ["--steps", "abc"], ["--steps abc: expected a whole number"]],
    ["a seed beyond 2^64", ["--seed", "18446744073709551616"], ["--seed: got 18446744073709551616, expected a whole"]],
    ["a seed that is no whole number", ["--seed", "1e3"], ["--seed: got 1e3, expected a whole number from -2^63"]],
    ["a scheduler that is not known", ["--scheduler", "Heun"], ["scheduler: got Heun, expected one of DDIMScheduler"]],
    ["timesteps that are no numbers", ["--timesteps", "999,x"], ["--timesteps 999,x: expected numbers with commas"]],
    [
      "timesteps for a scheduler that takes none",
      ["--timesteps", "999", "--scheduler", "UniPCMultistepScheduler"],
      ["timesteps: got a list for UniPCMultistepScheduler, expected none"],
    ],
    ["an eta beyond 1", ["--eta", "1.5"], ["eta: got 1.5, expected a number from 0 to 1"]],
    ["a rescale beyond 1", ["--guidance-rescale", "7"], ["--guidance-rescale: got 7, expected a number from 0 to 1"]],
    ["a width that is no multiple of 8", ["--width", "100"], ["width: got 100, expected a multiple of 8 pixels"]],
    ["no width", ["--width", "0"], ["width: got 0, expected a multiple of 8 pixels"]],
    ["a height beyond every GPU", ["--height", "8192"], ["height: got 8192", "from 8 to 4096"]],
    ["a negative guidance", ["--guidance", "-3"], ["--guidance: got -3, expected a number from 0 on"]],
    ["an unknown precision", ["--precision", "fp8"], ["--precision fp8: expected fp16, fp32"]],
    [
      "a quantized precision of a model without a configuration",
      ["--precision", "w4a8", "--model", "e2e/golden/sdxl-euler-cfg"],
      ["has no mixdq.w4a8.json", "mixdq calibrate"],
      "unsupported",
    ],
    ["a configuration that is missing", ["--config", "m.json"], ["--config m.json cannot be read"]],
    ["a configuration that is none", ["--config", "package.json"], ["package.json", "mixdq-config"]],
    ["an unknown backend", ["--backend", "cuda"], ["--backend cuda: expected webgpu, ort-webgpu, ort-wasm"]],
    ["an unknown flag", ["--frobnicate"], ["Unknown option '--frobnicate'", "This command knows --model"]],
    ["a word without flag", ["red"], ['Unexpected argument "red"']],
    ["a flag without value", ["--negative-prompt"], ["'--negative-prompt <value>' argument missing"]],
    [
      "a model folder that is missing",
      ["--model", "/nowhere"],
      ["--model /nowhere: no such folder", "Give the folder"],
    ],
    ["a model that is a file", ["--model", import.meta.filename], ["no such folder"]],
  ])("%s", async (_, flags, says, code = "invalid-input") => {
    expectError(await refused(...flags), code, ...says);
  });

  test("no prompt", async () => {
    expectError(await refusal(generate(["--out", "x.png"])), "invalid-input", "--prompt is missing: say what");
  });

  test("no file to write", async () => {
    expectError(await refusal(generate(["--prompt", "red"])), "invalid-input", "--out is missing: the PNG file");
  });

  test.each([
    ["a file below a file", path.join(import.meta.filename, "x.png"), "is not a folder that you may write to"],
    ["a file that is a folder", import.meta.dirname, "it is a folder. Add a file name"],
  ])("%s to write", async (_, out, says) => {
    const run = generate(["--prompt", "red", ...MODEL, "--out", out]);
    expectError(await refusal(run), "invalid-input", out, "cannot be written", says);
  });

  test.each([
    ["that name no tensor", "", "expected FILE#KEY"],
    ["in a file that is missing", "#x", "cannot be read", "/nowhere.safetensors"],
    ["under a key that is missing", "#none", 'the file has no tensor "none", it has channels, flat'],
    ["of two pictures", "#two", "got shape [2, 4, 8, 8], expected [1, channels, height, width]"],
    ["without height and width", "#flat", "got shape [256]"],
    ["of another model's channels", "#channels", "got shape [1, 3, 8, 8], expected [1, 4, 8, 8] for 64x64 pixels"],
    ["that are no numbers", "#bool", "got dtype BOOL"],
  ])("latents %s", async (_, key, says, file = latentsFile()) => {
    expectError(await refused("--latents", file + key), "invalid-input", says);
  });

  test("latents that are another size than the one asked for, even if it is only turned", async () => {
    const error = await refused("--latents", `${latentsFile()}#wide`, "--width", "64", "--height", "128");
    expectError(error, "invalid-input", "got shape [1, 4, 8, 16], expected [1, 4, 16, 8] for 64x128", "Leave --width");
  });

  test("latents in a file that is no safetensors file", async () => {
    const error = await refused("--latents", `${import.meta.filename}#x`);
    expectError(error, "invalid-model", "errors.command.spec.ts: got a header of", "not a safetensors file");
  });

  function latentsFile(): string {
    const file = path.join(emptyFolder(), "latents.safetensors");
    const tensors = {
      two: floats(2, 4, 8, 8),
      flat: floats(256),
      channels: floats(1, 3, 8, 8),
      wide: floats(1, 4, 8, 16),
    };
    writeFileSync(
      file,
      writeSafetensors({ ...tensors, bool: { dtype: "BOOL", shape: [1, 4, 8, 8], data: new Uint8Array(256) } }),
    );
    return file;
  }
});

describe("a failed run of the program ends with one line on stderr, exit code 1, and no file:", () => {
  const runs: readonly {
    readonly what: string;
    readonly args: (out: string) => readonly string[];
    readonly env?: Readonly<Record<string, string>>;
    readonly code: ErrorCode;
    readonly says: readonly string[];
  }[] = [
    {
      what: "a width of 100",
      args: (out) => ["generate", "--prompt", "red", "--out", out, ...MODEL, "--width", "100"],
      code: "invalid-input",
      says: ["width: got 100, expected a multiple of 8"],
    },
    {
      what: "an adapter that nobody has",
      args: (out) => ["generate", "--prompt", "red", "--out", out, ...MODEL, "--adapter", "voodoo"],
      code: "unsupported",
      says: ["--adapter voodoo", "Use auto, gpu, lavapipe, swiftshader"],
    },
    {
      what: "no adapter at all",
      args: (out) => ["generate", "--prompt", "red", "--out", out, ...MODEL],
      env: { VK_ICD_FILENAMES: "/nowhere/icd.json" },
      code: "unsupported",
      says: ["VK_ICD_FILENAMES", "/nowhere/icd.json", "Unset the variable"],
    },
    {
      what: "weights that are cut short",
      args: (out) => ["generate", "--prompt", "red", "--out", out, "--dump", `${out}.st`, ...cutShort(), ...ADAPTER],
      code: "integrity",
      says: ["unet/diffusion_pytorch_model.safetensors", "cut short: download it again"],
    },
    {
      what: "weights that are not numbers",
      args: (out) => ["generate", "--prompt", "red", "--out", out, "--dump", `${out}.st`, ...notNumbers(), ...ADAPTER],
      code: "invalid-output",
      says: ["The UNet's output holds NaN"],
    },
    {
      what: "UNet weights that are not numbers",
      args: (out) => ["unet", "--inputs", sdInputs(), "--out", out, ...notNumbers(), ...ADAPTER],
      code: "invalid-output",
      says: ["The UNet's output is not finite"],
    },
    {
      what: "UNet inputs that are not there",
      args: (out) => ["unet", "--inputs", "/nowhere.safetensors", "--out", out, ...MODEL],
      code: "invalid-input",
      says: ["/nowhere.safetensors cannot be read"],
    },
    {
      what: "a path to inspect that is not there",
      args: () => ["inspect", "/nowhere"],
      code: "invalid-input",
      says: ["/nowhere: no such file or folder"],
    },
  ];

  const cutShort = (): string[] => {
    const model = new BrokenModel();
    model.write(UNET, model.read(UNET).subarray(0, -100));
    return ["--model", model.folder];
  };
  const notNumbers = (): string[] => {
    const model = new BrokenModel();
    model.tensor(UNET, "conv_out.bias", { dtype: "F16", shape: [4], data: new Uint16Array(4).fill(0x7e00) });
    return ["--model", model.folder];
  };
  const sdInputs = (): string => {
    const file = path.join(emptyFolder(), "inputs.safetensors");
    const tensors = { sample: floats(1, 4, 8, 8), timestep: floats(1), encoder_hidden_states: floats(1, 7, 32) };
    writeFileSync(file, writeSafetensors(tensors));
    return file;
  };

  test.each(runs.map((run) => [run.what, run] as const))("%s", async (_, { args, env, code, says }) => {
    const out = newFile("x.png");
    expectFailedRun(await mixdq(args(out), env), out, code, ...says);
  });

  test("a command that is unknown", async () => {
    const { exitCode, stderr } = await mixdq(["frobnicate"]);
    for (const name of ["constructor", "__proto__"])
      expect((await mixdq([name])).stderr).toMatch(new RegExp(`^mixdq: no command "${name}"; there are generate`));
    expect(stderr).toMatch(/^mixdq: no command "frobnicate"; there are generate, unet, [a-z, ]+\. See mixdq help\.\n$/);
    expect(exitCode).toBe(1);
  });
});

test("a prompt over 77 tokens makes a picture, and a warning on stderr that says what was cut", async () => {
  const out = newFile("x.png");
  const prompt = `${"a ".repeat(75)}a house by the sea`;
  const { exitCode, stderr } = await mixdq(["generate", "--prompt", prompt, "--out", out, ...MODEL, ...ADAPTER]);
  expect(ownLines(stderr)).toEqual([
    'warning: The prompt is longer than the model reads (77 tokens). Cut off: "a house by the sea"',
  ]);
  expect(exitCode).toBe(0);
  expect(readdirSync(path.dirname(out))).toEqual(["x.png"]);
});

test("an empty prompt makes a picture without a word", async () => {
  const out = newFile("x.png");
  const { exitCode, stderr } = await mixdq(["generate", "--prompt", "", "--out", out, ...MODEL, ...ADAPTER]);
  expect(ownLines(stderr)).toEqual([]);
  expect(exitCode).toBe(0);
  expect(readFileSync(out).subarray(1, 4).toString()).toBe("PNG");
});

describe("the UNet's inputs", () => {
  /** SDXL's, for two pictures. */
  const good = {
    sample: floats(2, 4, 8, 8),
    timestep: floats(2),
    encoder_hidden_states: floats(2, 77, 48),
    text_embeds: floats(2, 24),
    time_ids: floats(2, 6),
  };
  const read = async (tensors: Record<string, TensorToWrite | undefined>) => {
    const there = Object.entries(tensors).filter(([, tensor]) => tensor) as [string, TensorToWrite][];
    const file = parseSafetensors(writeSafetensors(Object.fromEntries(there)));
    return unetInputs(await readUNet(await diskFiles(path.join(GOLDEN, "unet-sdxl-odd"))), file, "in.safetensors");
  };
  const nan: TensorToWrite = { ...floats(2, 4, 8, 8), data: new Float32Array(512).fill(Number.NaN, 7, 8) };

  test.each<[string, Partial<Record<keyof typeof good, TensorToWrite | undefined>>, string]>([
    ["lack the sample", { sample: undefined }, 'no tensor "sample" [batch, 4, height, width]; the file has'],
    ["lack the timestep", { timestep: undefined }, 'no tensor "timestep" [2]'],
    ["lack the states", { encoder_hidden_states: undefined }, 'no tensor "encoder_hidden_states" [2, tokens, 48]'],
    ["lack SDXL's pooled text", { text_embeds: undefined }, 'no tensor "text_embeds" [2, 24]'],
    ["lack SDXL's sizes", { time_ids: undefined }, 'no tensor "time_ids" [2, 6]'],
    ["have a sample of three axes", { sample: floats(4, 8, 8) }, '"sample" has shape [4, 8, 8], expected [batch, 4,'],
    ["have a sample of other channels", { sample: floats(2, 5, 8, 8) }, '"sample" has shape [2, 5, 8, 8], expected'],
    ["have a sample without rows", { sample: floats(2, 4, 0, 8) }, '"sample" has shape [2, 4, 0, 8], expected'],
    ["have a sample that is NaN", { sample: nan }, '"sample" holds NaN at 7, expected finite numbers'],
    ["have other timesteps than pictures", { timestep: floats(3) }, '"timestep" has shape [3], expected [2]'],
    ["have states of another width", { encoder_hidden_states: floats(2, 77, 32) }, "expected [2, tokens, 48]"],
    ["have states of another batch", { encoder_hidden_states: floats(1, 77, 48) }, "expected [2, tokens, 48]"],
    ["have no tokens", { encoder_hidden_states: floats(2, 0, 48) }, "has shape [2, 0, 48], expected [2, tokens, 48]"],
    ["have five sizes", { time_ids: floats(2, 5) }, '"time_ids" has shape [2, 5], expected [2, 6]'],
  ])("are refused when they %s", async (_, change, says) => {
    expectError(await refusal(read({ ...good, ...change })), "invalid-input", `in.safetensors: `, says);
  });

  test("may have integer timesteps, one timestep for all, more tokens, and tensors that nobody reads", async () => {
    const steps = (dtype: "I64" | "F32", ...values: number[]): TensorToWrite => ({
      dtype,
      shape: [values.length],
      data: dtype === "I64" ? BigInt64Array.from(values, BigInt) : Float32Array.from(values),
    });
    const of = async (timestep: TensorToWrite) => (await read({ ...good, timestep })).inputs["time_proj"];
    expect(await of(steps("I64", 999, 999))).toEqual(await of(steps("F32", 999, 999)));
    expect(await of(steps("I64", 999))).toEqual(await of(steps("F32", 999, 999)));
    const { shape, inputs } = await read({ ...good, encoder_hidden_states: floats(2, 154, 48), extra: floats(3) });
    expect(shape).toEqual({ batch: 2, height: 8, width: 8, tokens: 154 });
    expect(Object.keys(inputs).sort()).toEqual(["add_embeds", "encoder_hidden_states", "sample", "time_proj"]);
  });

  test("go through the program with integer timesteps, 154 tokens and a tensor that nobody reads", async () => {
    const file = path.join(emptyFolder(), "in.safetensors");
    const timestep = { dtype: "I64", shape: [1], data: BigInt64Array.of(999n) } as const;
    const states = floats(2, 154, 48);
    writeFileSync(file, writeSafetensors({ ...good, timestep, encoder_hidden_states: states, extra: floats(3) }));
    const out = newFile("out.safetensors");
    const model = path.join(GOLDEN, "unet-sdxl-odd");
    const run = await mixdq(["unet", "--model", model, "--inputs", file, "--out", out, ...ADAPTER]);
    expect(run, run.stderr).toMatchObject({ exitCode: 0 });
    expect(parseSafetensors(readFileSync(out)).get("out_sample")).toMatchObject({ dtype: "F32", shape: [2, 4, 8, 8] });
  });
});

describe("inspect", () => {
  const linesOf = async (target: string): Promise<string[]> => (await printed(() => inspect([target]))).split("\n");

  test("prints a model's parts in columns", async () => {
    const lines = await linesOf(MODEL[1]);
    const names = ["model", "pipeline", "scheduler", "picture", "text_encoder", "unet", "vae"];
    expect(lines.map((line) => line.split(" ")[0])).toEqual(names);
    expect(lines.find((line) => line.startsWith("unet"))).toMatch(
      /^unet {10}141,140 parameters, 83 linear and convolution layers +channels 16, 24$/,
    );
  });

  test("prints a file's tensors in columns", async () => {
    const lines = await linesOf(path.join(MODEL[1], UNET));
    expect(lines).toContainEqual(expect.stringMatching(/^conv_in\.weight +F16 +\[16, 4, 3, 3\]$/));
    expect(lines.at(-1)).toMatch(/^208 tensors +304,928 bytes$/);
  });

  test.each([
    ["nothing", [], "invalid-input", "inspect needs a path"],
    ["a path that is not there", ["/nowhere"], "invalid-input", "/nowhere: no such file or folder"],
    [
      "a file of another kind",
      [import.meta.filename],
      "invalid-input",
      "expected a diffusers folder or a .safetensors",
    ],
    ["a folder without model", [import.meta.dirname], "invalid-model", "model_index.json: no such file"],
  ] as const)("refuses %s", async (_, args, code, says) => {
    expectError(await refusal(inspect(args)), code, says);
  });

  test("refuses a file that only has the name of one", async () => {
    const file = path.join(emptyFolder(), "fake.safetensors");
    writeFileSync(file, "PK\x03\x04 and so on");
    expectError(await refusal(inspect([file])), "invalid-model", "got a ZIP or PyTorch .bin file");
  });
});

describe("a file is written whole or not at all:", () => {
  test("while the new one is written, the old one stays", async () => {
    const file = path.join(emptyFolder(), "x.bin");
    writeFileSync(file, "old");
    const bytes = new Uint8Array(64 * 2 ** 20);
    let isWriting = true;
    const writing = writeWhole(file, bytes).finally(() => (isWriting = false));
    const sizes = new Set<number>();
    while (isWriting) {
      sizes.add(statSync(file).size);
      await new Promise(setImmediate);
    }
    await writing;
    sizes.add(statSync(file).size);
    expect([...sizes]).toEqual([3, bytes.length]);
    expect(readdirSync(path.dirname(file))).toEqual(["x.bin"]);
  });

  test("where it cannot be put in its place, nothing is left beside it", async () => {
    const folder = emptyFolder();
    const file = path.join(folder, "taken");
    mkdirSync(path.join(file, "inside"), { recursive: true });
    expectError(await refusal(writeWhole(file, new Uint8Array(9))), "invalid-input", "taken cannot be written");
    expect(readdirSync(folder)).toEqual(["taken"]);
  });

  test("folders on the way are made when there is something to put into them", async () => {
    const file = path.join(emptyFolder(), "a/b/c.bin");
    await assertWritable(file);
    expect(existsSync(path.dirname(path.dirname(file)))).toBe(false);
    await writeWhole(file, new Uint8Array(9));
    expect(readFileSync(file)).toHaveLength(9);
  });
});

describe("an adapter is refused", () => {
  const limits = {
    maxStorageBuffersPerShaderStage: 8,
    maxComputeInvocationsPerWorkgroup: 256,
    maxComputeWorkgroupStorageSize: 16_384,
    maxStorageBufferBindingSize: 128 * 2 ** 20,
    maxBufferSize: 256 * 2 ** 20,
  };

  test("for each limit under what the engine needs, with both numbers", async () => {
    checkLimits(limits, "enough");
    for (const [limit, needed] of Object.entries(limits)) {
      const error = await refusal((async () => checkLimits({ ...limits, [limit]: needed - 1 }, "old GPU"))());
      const says = [`"old GPU" has ${limit} = ${needed - 1}, the engine needs ${needed}`, "Use another adapter"];
      expectError(error, "unsupported", ...says);
    }
  });

  test("where there is none", async () => {
    const gpu = { requestAdapter: async () => null } as unknown as GPU;
    expectError(await refusal(requestDevice(gpu)), "unsupported", "WebGPU found no adapter", "ort-wasm");
    expectError(await refusal(requestDevice(undefined)), "unsupported", "WebGPU is missing", "ort-wasm");
  });

  test("for a picture whose activations do not fit into one of its bindings, with both numbers", async () => {
    const vae = readVaeConfig(
      new Config("vae/config.json", JSON.parse(readFileSync(path.join(MODEL[1], "vae/config.json"), "utf8"))),
    );
    const graph = buildVaeDecoder(vae, { batch: 1, height: 512, width: 512 }, "f32");
    const caps = { shaderF16: false, packedDot: true, maxWorkgroupsPerDimension: 65_535, ...SIMPLE };
    const memory = { maxBindingBytes: limits.maxStorageBufferBindingSize, maxBufferBytes: limits.maxBufferSize };
    const error = await refusal((async () => makePlan(graph, { caps, limits: memory, weightType: "f32" }))());
    expectError(
      error,
      "unsupported",
      "decoder.layers.",
      "bytes, the device allows 134217728",
      "Generate a smaller picture",
    );
  });
});
