/**
 * The paper's ablation and comparison (MixDQ, arXiv 2405.17873, section 5) on the default model, from its sensitivity to
 * the tables: calibrates, lets `mixdq allocate --prompts` choose, draws every row, measures it against FP16 with the same
 * prompts and seeds, and writes models/<name>/quantization/. What was drawn is kept: a run that was stopped goes on.
 *   npm run bench -- comparison [MIXDQ_BENCH_PROMPTS=128] [MIXDQ_BENCH_TRIALS=32] [MIXDQ_BENCH_MODEL=models/postcard]
 * Drawn are the first of the judge's prompts, choices are made with its last, and calibration.txt calibrates.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { readSensitivity } from "../src/mixdq/allocation/sensitivity.ts";
import { readCalibration, type Calibration } from "../src/mixdq/calibration/file.ts";
import { allocate } from "../src/cli/allocate/allocate.ts";
import { calibrate } from "../src/cli/calibrate.ts";
import { parseMixdqConfig } from "../src/quant/config.ts";
import { figuresOfEqual } from "../src/mixdq/quality/figures.ts";
import type { MixdqConfig } from "../src/quant/config.ts";
import { openMeasurement, type Measured, type Measurement } from "./comparison/measure.ts";
import { against, rowsOf, TABLES, type Row, type Table } from "./comparison/rows.ts";
import { differencesTable, Figures, linesTable, type Difference, type Line } from "./comparison/tables.ts";

const ROOT = path.join(import.meta.dirname, "..");
const MODEL = path.resolve(ROOT, process.env["MIXDQ_BENCH_MODEL"] ?? "models/postcard");
const PROMPTS = Number(process.env["MIXDQ_BENCH_PROMPTS"] ?? 128);
const TRIALS = process.env["MIXDQ_BENCH_TRIALS"] ?? "32";
const DATA = path.join(MODEL, "quantization");
const CACHE = path.join(ROOT, "test-results", "comparison");

/** What pictures choose: bits a weight, bits an input, what else. */
const OURS = ["--sum", "noise", "--candidates", "2,3,4,8"];
const CHOSEN: Readonly<Record<string, readonly string[]>> = {
  w4a8: ["4", "8", ...OURS],
  // As the paper has it: sums of decibels, 2, 4 or 8 bits for content and 4 or 8 for quality layers.
  "paper-w4a8": ["4", "8"],
  "noise-w4a8": ["4", "8", "--sum", "noise"],
  w3a8: ["3", "8", ...OURS],
  w5a8: ["5", "8", ...OURS],
  w4a16: ["4", "16", ...OURS],
  "w3.66a16": ["3.66", "16", ...OURS],
  w8a8: ["8", "8", ...OURS],
};

/** What is written. */
interface Report {
  readonly format: "mixdq-comparison";
  readonly model: string;
  readonly prompts: number;
  readonly adapter: string;
  readonly lines: Readonly<Record<string, Line>>;
  readonly differences: Readonly<Record<string, Difference>>;
  /** By row, a number a picture, in the order of the judge's prompts; seeds count from 0. */
  readonly pictures: Readonly<Record<string, Record<"ssim" | "ssim11" | "psnr" | "alignment", readonly number[]>>>;
}

test("the tables", { timeout: 12 * 3600_000 }, async () => {
  mkdirSync(CACHE, { recursive: true });
  const sensitivityFile = path.join(DATA, "sensitivity.json");
  const sensitivity = readSensitivity(readFileSync(sensitivityFile, "utf8"), sensitivityFile);
  const aware = await calibrated(path.join(DATA, "calibration.json"), []);
  const naive = await calibrated(path.join(CACHE, "calibration.naive.json"), ["--no-bos"]);
  const chosen = new Map<string, MixdqConfig>();
  for (const [name, bits] of Object.entries(CHOSEN)) chosen.set(name, await choose(name, bits));

  const measurement = await openMeasurement(MODEL, PROMPTS, CACHE);
  const { fp16 } = measurement;
  const figures = new Figures(measurement.judge.statistics, fp16);
  const rows = await rowsOf({ sensitivity, aware, naive, chosen });
  const weights = [...sensitivity.layers.values()].reduce((sum, layer) => sum + layer.weights, 0);
  // What else the engine holds is the same for every row: all but the layers' weights, which FP16 has in two bytes each.
  const others = fp16.weightBytes! - 2 * weights;
  const measured = new Map<string, Measured>();
  const lines: Record<string, Line> = { fp16: figures.lineOf("FP16", 16, (2 * weights) / 1e6, exact(measurement)) };
  for (const row of rows) {
    const result = await measurement.measure(row);
    measured.set(row.id, result);
    const bytes = result.weightBytes === undefined ? simulatedBytes(row, weights) : result.weightBytes - others;
    lines[row.id] = figures.lineOf(row.name, bitsOf(row), bytes / 1e6, result);
    console.log(`${row.id}: SSIM ${lines[row.id].ssim.value.toFixed(4)}, ${lines[row.id].psnr.value.toFixed(2)} dB`);
  }
  const compared = TABLES.at(-1)!.rows.filter((id) => id !== against(id));
  const differences = Object.fromEntries(
    compared.map((id) => [id, figures.difference(measured.get(against(id))!, measured.get(id)!)]),
  );
  const report: Report = {
    ...{ format: "mixdq-comparison", model: path.basename(MODEL), prompts: PROMPTS, adapter: fp16.adapter },
    ...{ lines, differences },
    pictures: Object.fromEntries(Array.from(measured, ([id, result]) => [id, pictureNumbers(result)])),
  };
  writeFileSync(path.join(DATA, "comparison.json"), `${JSON.stringify(report, null, 1)}\n`);
  writeFileSync(path.join(DATA, "README.md"), describe(report));

  // What the method promises, or the tables would have to say why not.
  for (const id of ["uniform-w4a8", "naive-sorting-w4a8"]) expect(differences[id].ssim.low, id).toBeGreaterThan(0);
});

async function calibrated(file: string, flags: readonly string[]): Promise<Calibration> {
  const prompts = path.join(MODEL, "calibration.txt");
  if (!existsSync(file)) await calibrate(["--model", MODEL, "--prompts", prompts, "--out", file, ...flags]);
  return readCalibration(readFileSync(file, "utf8"), file);
}

/** What `mixdq allocate --prompts` takes; kept as long as it is of the same sensitivity and as many prompts. */
async function choose(name: string, [weightBits, actBits, ...more]: readonly string[]): Promise<MixdqConfig> {
  // The page's own for 4 bits lies where the engine looks for it.
  const file = name === "w4a8" ? path.join(MODEL, "mixdq.w4a8.json") : path.join(DATA, `${name}.json`);
  const [sensitivity, calibration] = ["sensitivity.json", "calibration.json"].map((input) => path.join(DATA, input));
  const read = (): MixdqConfig => parseMixdqConfig(readFileSync(file, "utf8"), file);
  if (existsSync(file) && isOf(read(), sensitivity!)) return read();
  await allocate([
    ...["--model", MODEL, "--sensitivity", sensitivity!, "--calibration", calibration!, "--prompts", TRIALS],
    ...["--weight-bits", weightBits!, "--act-bits", actBits!, ...more, "--out", file],
    ...(name === "w4a8" ? ["--report", path.join(CACHE, "report.html")] : []),
  ]);
  return read();
}

function isOf({ provenance }: MixdqConfig, sensitivity: string): boolean {
  const { sensitivity: source, choice } = provenance as {
    readonly sensitivity?: { readonly sha256: string };
    readonly choice?: { readonly prompts: { readonly count: number } };
  };
  const sha256 = createHash("sha256").update(readFileSync(sensitivity)).digest("hex");
  return source?.sha256 === sha256 && choice?.prompts.count === Number(TRIALS);
}

const bitsOf = ({ run }: Row): number => ("config" in run ? run.config.averageWeightBits! : run.weightBits);

/** Codes alone: how a kernel would lay out its scales is not known. */
function simulatedBytes({ run }: Row, weights: number): number {
  return (weights * ("config" in run ? 16 : run.weightBits)) / 8;
}

/** FP16 beside itself. */
function exact({ fp16, size }: Measurement): Measured {
  const { ssim, ssim11, psnr } = figuresOfEqual(size);
  const same = { ssim: ssim.value, ssim11: ssim11.value, psnr: psnr.value };
  return { ...fp16, closeness: fp16.alignment.map(() => same) };
}

function pictureNumbers({ closeness, alignment }: Measured): Report["pictures"][string] {
  const rounded = (values: readonly number[]): number[] => values.map((value) => Number(value.toFixed(5)));
  return {
    ssim: rounded(closeness.map(({ ssim }) => ssim)),
    ssim11: rounded(closeness.map(({ ssim11 }) => ssim11)),
    psnr: rounded(closeness.map(({ psnr }) => psnr)),
    alignment: rounded(alignment),
  };
}

function describe({ model, prompts, adapter, lines, differences }: Report): string {
  const named = ({ names = {} }: Table, id: string): string => names[id] ?? lines[id].name;
  const tables = TABLES.map((table) => {
    const rows = table.rows.map((id) => ({ ...lines[id], name: named(table, id) }));
    return `## ${table.title}\n\n${linesTable(rows)}\n`;
  });
  const compared = Object.entries(differences).map(([id, difference]) => ({
    name: named(TABLES.at(-1)!, id),
    difference,
  }));
  return `# ${model}, quantized: the tables

Written by \`npm run bench -- comparison\`; the numbers of every picture are in \`comparison.json\`, the configurations beside
it. ${prompts} prompts that nothing was trained, calibrated or chosen with, one seed each.

SSIM (one window), 11x11 and PSNR are against FP16 with the same prompts and seeds; larger is better. Alignment is the share
of what the prompts state that the judge finds. The Fréchet distances are between the judge's features and those of true
pictures, and those of FP16's pictures of the same prompts; smaller is better. In brackets 95 % intervals over prompts
(bootstrap). Bits are the mean over all weights of the UNet's linear layers and convolutions, MB what those take on the GPU
with their scales (of simulations the codes alone).

${tables.join("\n")}
## Ours less the baselines, with as many bits

Picture by picture, so that hard prompts cancel out.

${differencesTable(compared)}

Drawn on ${adapter}.
`;
}
