/**
 * The whole chain as one command, on a small model with random weights: what it makes, what it does where it was killed, and
 * what it does not do twice.
 */
import { spawn } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { decode } from "fast-png";
import { beforeAll, expect, test } from "vitest";
import { testAdapters } from "./adapters.ts";
import { emptyFolder, expectError, mixdq, ownLines, printed, refusal } from "./broken.ts";
import { readSensitivity } from "../src/mixdq/allocation/sensitivity.ts";
import { readCalibration } from "../src/mixdq/calibration/file.ts";
import { auto } from "../src/cli/auto/auto.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { generate } from "../src/cli/generate.ts";
import { readMixdqConfig, type MixdqConfig } from "../src/quant/config.ts";
import { openPack } from "../src/weights/pack.ts";

const ROOT = path.join(import.meta.dirname, "..");
const MODEL = path.join(import.meta.dirname, "golden/sd21-v");
/** Of sd21-v, at two widths of weights and one of inputs. */
const EVALUATIONS = 83 * 3;
const PROMPT = "a red fox in the snow";
const STEPS = ["calibrate", "sensitivity", "allocate", "quantize", "generate"];

// The faster of the software adapters where it is there. The tuner may measure, and choose otherwise another time.
const adapter = (await testAdapters()).find(({ isMissing }) => !isMissing)!.name;
const DEVICE = ["--adapter", adapter, "--kernels", "direct"];

const PROMPTS = path.join(emptyFolder(), "prompts.txt");
writeFileSync(PROMPTS, `${PROMPT}\nan old house\na boat on the sea\n`);

const flags = (out: string, ...more: string[]): string[] => [
  ...[
    "--out",
    out,
    "--model",
    MODEL,
    "--prompts",
    PROMPTS,
    "--samples",
    "1",
    "--candidates",
    "4,8",
    ...DEVICE,
    ...more,
  ],
];
/** No picture decides: half of the layers' choices are enough to see what is made of what. */
const PLAIN = ["--weight-bits", "5", "--trials", "0"];

const times = (folder: string): Record<string, number> =>
  Object.fromEntries(
    readdirSync(folder, { recursive: true, encoding: "utf8" }).map((file) => [
      file,
      statSync(path.join(folder, file)).mtimeMs,
    ]),
  );

const pixels = (file: string): Uint8Array => new Uint8Array(decode(readFileSync(file)).data);

const made = path.join(emptyFolder(), "made");
const at = (name: string): string => path.join(made, name);
const configOf = (folder: string): MixdqConfig => {
  const file = path.join(folder, "mixdq.json");
  return readMixdqConfig(JSON.parse(readFileSync(file, "utf8")), file);
};
let summary: string;

beforeAll(async () => {
  summary = await printed(() => auto(flags(made, ...PLAIN)));
});

test("makes everything from a model to a pack", async () => {
  expect(readdirSync(made).sort()).toEqual(
    ["calibration.json", "mixdq.json", "pack", "picture.fp16.png", "picture.png"].concat(
      ...["report.html", "sensitivity.json", "steps.json"],
    ),
  );
  expect(readCalibration(readFileSync(at("calibration.json"), "utf8"), "calibration.json").prompts).toBe(3);
  const { layers, samples } = readSensitivity(readFileSync(at("sensitivity.json"), "utf8"), "sensitivity.json");
  expect([layers.size, samples]).toEqual([83, 1]);
  const config = configOf(made);
  expect(config.averageWeightBits).toBeLessThanOrEqual(5);
  expect(config.averageWeightBits).toBeGreaterThan(4.5);
  const pack = (await openPack(await diskFiles(at("pack"))))!;
  expect(await pack.files.text(pack.manifest.config)).toBe(readFileSync(at("mixdq.json"), "utf8"));
  expect(readFileSync(at("report.html"), "utf8")).toContain("<svg");
  for (const name of STEPS) expect(summary).toMatch(new RegExp(`^${name}: done in \\d+ s`, "m"));
  expect(summary).toContain(`${made}: ${config.averageWeightBits!.toFixed(4)} bits a weight, the pack has 0.`);
});

test("draws with the pack what generate draws with the configuration, and FP16 beside it", async () => {
  const out = emptyFolder();
  const draw = (...more: string[]) =>
    printed(() => generate(["--model", MODEL, "--prompt", PROMPT, "--seed", "0", ...DEVICE, ...more]));
  await draw("--config", at("mixdq.json"), "--out", `${out}/quantized.png`);
  await draw("--out", `${out}/float.png`);
  const [picture, float] = [pixels(at("picture.png")), pixels(at("picture.fp16.png"))];
  expect(picture).toEqual(pixels(`${out}/quantized.png`));
  expect(float).toEqual(pixels(`${out}/float.png`));
  expect(picture).not.toEqual(float);
});

test("killed while it measures, goes on where it was and makes the same files; a third start does nothing", async () => {
  const out = path.join(emptyFolder(), "out");
  const args = [path.join(ROOT, "bin/mixdq.mjs"), "auto", ...flags(out, ...PLAIN)];
  const child = spawn(process.execPath, args, {
    stdio: "ignore",
    env: { ...process.env, VK_ICD_FILENAMES: undefined },
  });
  const ended = new Promise((resolve) => child.on("close", resolve));
  const partial = path.join(out, "sensitivity.json.partial");
  const findings = (): number => readFileSync(partial, "utf8").split("\n").length - 2;
  while (child.exitCode === null && !(existsSync(partial) && findings() >= EVALUATIONS / 4))
    await new Promise((resolve) => setTimeout(resolve, 20));
  child.kill("SIGKILL");
  await ended;
  expect(existsSync(path.join(out, "sensitivity.json"))).toBe(false);
  const [done, before] = [findings(), times(out)];
  expect(done).toBeGreaterThanOrEqual(EVALUATIONS / 4);
  expect(done).toBeLessThan(EVALUATIONS);

  const again = await mixdq(["auto", ...flags(out, ...PLAIN)]);
  expect(again, again.stderr).toMatchObject({ exitCode: 0 });
  expect(again.stdout).toContain("calibrate: is there already (1 of 5)");
  expect(again.stdout).toContain("sensitivity: was stopped, goes on");
  expect(again.stdout).toContain(`${EVALUATIONS} evaluations (${done} of them before)`);
  expect(readdirSync(out, { recursive: true }).sort()).toEqual(readdirSync(made, { recursive: true }).sort());
  for (const name of ["calibration.json", "sensitivity.json", "mixdq.json", "pack/manifest.json"])
    expect(readFileSync(path.join(out, name)).equals(readFileSync(at(name))), name).toBe(true);
  expect(pixels(path.join(out, "picture.png"))).toEqual(pixels(at("picture.png")));
  const complete = times(out);
  expect(complete["calibration.json"]).toBe(before["calibration.json"]);

  const third = await printed(() => auto(flags(out, ...PLAIN)));
  for (const [i, name] of STEPS.entries()) expect(third).toContain(`${name}: is there already (${i + 1} of 5)`);
  expect(third).not.toContain("done in");
  expect(times(out)).toEqual(complete);
});

test("with another budget, and pictures to decide, begins at the allocation", async () => {
  const out = path.join(emptyFolder(), "out");
  cpSync(made, out, { recursive: true });
  const before = times(out);
  // 4 bits a weight of 4 and 8 leave one allocation to draw.
  const lines = await printed(() => auto(flags(out, "--weight-bits", "4", "--trials", "2")));
  const flag = "--weight-bits was 5 and is 4, --model is new, --prompts is new, model is new, trials.txt is new";
  expect(lines).toContain(`allocate: made anew, for ${flag}`);
  expect(lines).toContain("quantize: made anew, for mixdq.json has changed");
  expect(lines).toContain("generate: made anew, for pack has changed");
  const after = times(out);
  for (const name of ["calibration.json", "sensitivity.json"]) expect(after[name], name).toBe(before[name]);
  for (const name of ["mixdq.json", "pack", "picture.png"]) expect(after[name], name).not.toBe(before[name]);
  expect(readFileSync(path.join(out, "trials.txt"), "utf8")).toBe("an old house\na boat on the sea\n");
  const { averageWeightBits, provenance } = configOf(out);
  expect(averageWeightBits).toBe(4);
  const { chosen } = provenance["choice"] as { chosen: { prompts: number; ssim: { value: number } } };
  expect(lines).toContain(`2 pictures against FP16: SSIM ${chosen.ssim.value.toFixed(4)}`);
  expect(lines).toContain(`mixdq evaluate --model ${MODEL} --config ${out}/mixdq.json --prompts ${PROMPTS}`);
});

test("refuses a pack as its model, and as a command fails in one line", async () => {
  const out = path.join(emptyFolder(), "out");
  const error = await refusal(auto(flags(out, "--model", at("pack"))));
  expectError(error, "invalid-input", "is a pack already, expected the model to make one of");
  const run = await mixdq(["auto", ...flags(out), "--adapter", "no such adapter"]);
  expect(run.exitCode).toBe(1);
  expect(ownLines(run.stderr)).toEqual([expect.stringMatching(/^mixdq auto: unsupported: calibrate: WebGPU in Node/)]);
  expect(await mixdq(["auto", "--help"])).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining("--weight-bits"),
  });
});
