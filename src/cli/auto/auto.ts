/** `mixdq auto`: the whole chain, from a model to a pack; takes up where it was stopped. */
import path from "node:path";
import { parseMixdqConfig } from "../../quant/config.ts";
import { MixdqError } from "../../base/errors.ts";
import { allocate } from "../allocate/allocate.ts";
import { AUTO_FLAGS, readAutoRequest } from "./autoFlags.ts";
import { stepsOf, type AutoRequest, type Step, type StepName } from "./autoSteps.ts";
import { calibrate } from "../calibrate.ts";
import { defaultModel } from "../defaults.ts";
import { generate } from "../generate.ts";
import { filesBelow } from "../../node/fileDigests.ts";
import { tell } from "../../node/outputFiles.ts";
import { readText } from "../../node/inputFiles.ts";
import { STEPS_FILE, StepLedger } from "./stepLedger.ts";
import { command } from "../command.ts";
import { withLock } from "../../node/lock.ts";
import { describeDuration } from "../../node/progressBar.ts";
import { quantize } from "../quantize.ts";
import { sensitivity } from "../sensitivity/sensitivity.ts";

export type Commands = Readonly<Record<StepName, (args: readonly string[]) => Promise<void>>>;

const COMMANDS: Commands = { calibrate, sensitivity, allocate, quantize, generate };

export const auto = command({
  name: "auto",
  summary: "calibrate, sensitivity, allocate, quantize and generate, one after the other: from a model to a pack",
  flags: AUTO_FLAGS,
  notes: [
    "FOLDER gets calibration.json, sensitivity.json, mixdq.json, report.html, pack/, picture.png with picture.fp16.png to " +
      "compare, and steps.json, which tells what was made of what. Started again, also after a kill, it goes on where it " +
      "was; a step whose flags or files have changed since is made anew. Everything else that a step can do, its own " +
      "command can.",
  ],
  run: async (flags) => {
    const request = await readAutoRequest(flags);
    // steps.json is the folder's: two chains would each note what the other does not know of.
    await withLock(path.join(request.out, STEPS_FILE), async () => {
      const done = await runSteps(stepsOf(request), request.out, COMMANDS);
      tell(await describeResult(request, done));
    });
  },
});

/** A step that is complete now. */
export interface Done {
  readonly step: Step;
  /** Of all runs that it took. */
  readonly seconds: number;
  readonly isNew: boolean;
}

/** Runs those that are not complete. Throws what a command throws, under the step's name. */
export async function runSteps(steps: readonly Step[], folder: string, commands: Commands): Promise<Done[]> {
  const ledger = await StepLedger.open(folder, steps);
  const done: Done[] = [];
  for (const [i, step] of steps.entries()) {
    const count = `(${i + 1} of ${steps.length})`;
    const state = await ledger.stateOf(step);
    if (state.is === "complete") {
      done.push({ step, seconds: state.seconds, isNew: false });
      tell(`${step.name}: is there already ${count}`);
      continue;
    }
    const kept = await ledger.begin(step, state);
    const aside = kept.length > 0 ? `; what was changed by hand is in ${kept.join(", ")}` : "";
    if (state.is === "outdated") tell(`${step.name}: made anew, for ${state.why}${aside}`);
    if (state.is === "interrupted") tell(`${step.name}: was stopped, ${step.goesOn ? "goes on" : "begins again"}`);

    for (const args of step.runs) await underItsName(step.name, commands[step.name](args));
    const seconds = await ledger.complete(step, Date.now());
    done.push({ step, seconds, isNew: true });
    tell(`${step.name}: done in ${describeDuration(1000 * seconds)} ${count}`);
  }
  return done;
}

async function underItsName(name: StepName, run: Promise<void>): Promise<void> {
  await run.catch((error: unknown) => {
    if (!(error instanceof MixdqError)) throw error;
    throw new MixdqError(error.code, `${name}: ${error.message}`, { cause: error });
  });
}

/** Times, where things lie, how good they are, and what to do with them. */
async function describeResult(
  { out, model, prompts, prompt, trials, judge }: AutoRequest,
  done: readonly Done[],
): Promise<string> {
  const at = (name: string): string => path.join(out, name);
  const config = parseMixdqConfig(await readText(at("mixdq.json")), at("mixdq.json"));
  const bytes = (await filesBelow(at("pack"))).reduce((sum, { info }) => sum + info.size, 0);
  const total = done.reduce((sum, { seconds }) => sum + seconds, 0);
  const rows = done.map(({ step, seconds, isNew }) => [
    step.name,
    describeDuration(1000 * seconds),
    isNew ? "" : "before",
    step.outputs.map(at).join(", "),
  ]);
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column].length)));
  const ofModel = model === defaultModel() ? "" : ` --model ${quoted(model)}`;
  const toJudge = judge === undefined ? ` --prompts ${quoted(prompts)}` : "";
  return [
    `${out}: ${config.averageWeightBits!.toFixed(4)} bits a weight, the pack has ${(bytes / 1e6).toFixed(1)} MB; ` +
      `${describeDuration(1000 * total)} in all`,
    ...rows.map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")}`),
    ...(trials ? describeChoice(config.provenance["choice"]) : []),
    "next:",
    `  mixdq generate --model ${quoted(at("pack"))} --prompt ${quoted(prompt)} --out picture.png`,
    `  mixdq evaluate${ofModel} --config ${quoted(at("mixdq.json"))}${toJudge} --out ${quoted(at("evaluation.json"))}`,
    `  any web server can serve ${at("pack")} as it is: createEngine({ model: its address })`,
    `  with another --weight-bits or --trials, mixdq auto goes on from ${at("sensitivity.json")}`,
  ].join("\n");
}

/** How close the chosen allocation's pictures came, as allocate has noted it. */
function describeChoice(choice: unknown): string[] {
  const { chosen } = Object(choice) as {
    chosen?: Record<"ssim" | "psnr", { value: number; low: number; high: number }> & { prompts: number };
  };
  if (!chosen) return [];
  const { prompts, ssim, psnr } = chosen;
  return [
    `  ${prompts} pictures against FP16: SSIM ${ssim.value.toFixed(4)} (${ssim.low.toFixed(4)} to ${ssim.high.toFixed(4)}), ` +
      `PSNR ${psnr.value.toFixed(2)} dB`,
  ];
}

/** As a shell takes it for one word. */
function quoted(word: string): string {
  return /^[\w./:=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
