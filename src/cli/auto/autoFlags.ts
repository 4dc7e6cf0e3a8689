/** What `mixdq auto` may be asked, and the checks of it. */
import path from "node:path";
import type { AllocateOptions } from "../../mixdq/allocation/allocate.ts";
import { layerGroup, quantizableLayers } from "../../mixdq/calibration/layers.ts";
import { buildUNet } from "../../diffusion/unet.ts";
import { readModel, type ModelDescription } from "../../model/description.ts";
import { checkRequest } from "../../model/request.ts";
import { MixdqError, invalidInput } from "../../base/errors.ts";
import { openPack } from "../../weights/pack.ts";
import { ALLOCATE_FLAGS, readAllocateRequest } from "../allocate/allocateFlags.ts";
import { stepsOf, type AutoRequest, type TrialPrompts } from "./autoSteps.ts";
import { checkSettings, readPrompts } from "../calibrate.ts";
import { PRECISIONS } from "../../base/choices.ts";
import { diskFiles } from "../../node/diskFiles.ts";
import { choosePrompts, findJudge, type Judge } from "../judging.ts";
import { choice, integer, number, readFlags, required, seed, text, withDefault, type Values } from "../flags.ts";
import { modelFlag } from "../defaults.ts";
import { RUN_FLAGS } from "../options.ts";
import { readRequest, SENSITIVITY_FLAGS } from "../sensitivity/sensitivityFlags.ts";

/** What the defaults make of a chain: on two cores without a GPU a quarter of an hour for the default model. */
const SAMPLES = 4;
const PICTURES = 2;
const TRIALS = 32;
// The widths are more than the paper's, and the sum another: what gives the better pictures (docs/allocation.md).

export const AUTO_FLAGS = {
  out: required(text("FOLDER", "the folder to make everything in"), "the folder to make everything in"),
  model: modelFlag("a diffusers folder", "disk"),
  prompts: text("FILE", "text, one prompt a line; default: calibration.txt in the model's folder"),
  "weight-bits": withDefault(number("bits per weight, on average and at most"), 4),
  "act-bits": withDefault(number("bits of inputs: 4 to 8, or 16 (weights only)"), 8),
  candidates: withDefault(text("LIST", "widths of weights to measure and choose from, of 2,3,4,8"), "2,3,4,8"),
  sum: withDefault(text("decibels|noise", "how allocate adds up quality's SQNR, decibels as the paper does"), "noise"),
  samples: integer(`prompts that the sensitivity is measured with, from the first on; default ${SAMPLES}`),
  pictures: integer(
    `how many of them are decoded for SSIM; default ${PICTURES}. Time grows with both, and so does how sure the order of ` +
      "the layers is; 32 are the paper's",
  ),
  ssim: withDefault(
    text(
      "content|all",
      "layers that SSIM is measured of: those that are judged by it, or all, for a study of the layers, which decodes two " +
        "to four times as many pictures and changes no bit",
    ),
    "content",
  ),
  trials: text(
    "N|FILE",
    "pictures that decide between allocations, as allocate's --prompts: the judge's last N, or a file; of a model without " +
      `a judge the last N of --prompts, which it was calibrated with too; default ${TRIALS}. 0: none, both groups lose the ` +
      "same share of their metric",
  ),
  prompt: text("TEXT", "of picture.png; default: the first of --prompts"),
  seed: withDefault(seed("of picture.png"), 0),
  precision: choice(
    PRECISIONS,
    "fp32 or fp16, of the model that is calibrated and measured; default fp32, fp16 takes half the memory",
  ),
  // As they are given: they are passed on to the steps.
  adapter: text("NAME", RUN_FLAGS.adapter.help),
  kernels: RUN_FLAGS.kernels,
  "no-f16": RUN_FLAGS["no-f16"],
};

/** Checks everything that can be checked before hours of work. Throws `invalid-input`, and `invalid-model`. */
export async function readAutoRequest(flags: Values<typeof AUTO_FLAGS>): Promise<AutoRequest> {
  const { out, model: folder, seed, candidates, sum, ssim, "weight-bits": weightBits, "act-bits": actBits } = flags;
  if (!(actBits === 16 || (actBits >= 4 && actBits <= 8)))
    throw invalidInput(`--act-bits ${actBits}: expected 4 to 8, or 16 for weights only.`);
  const files = await diskFiles(folder);
  const way = path.relative(path.resolve(folder), path.resolve(out));
  if (!path.isAbsolute(way) && way.split(path.sep)[0] !== "..")
    throw invalidInput(
      `--out ${out}: lies in the model's folder ${folder}, which is passed on as it is. Choose another place.`,
    );
  if (await openPack(files))
    throw invalidInput(`--model ${folder}: is a pack already, expected the model to make one of.`);
  const model = await readModel(files);
  const file = flags.prompts ?? (await promptsOfModel(folder));
  const prompts = await readPrompts(file, undefined);
  checkSettings(prompts, 0, undefined, model);
  const prompt = flags.prompt ?? prompts[0];
  checkRequest({ prompt, seed }, model);
  const samples = flags.samples ?? Math.min(SAMPLES, prompts.length);
  if (samples > prompts.length)
    throw invalidInput(`--samples ${samples}: ${file} has ${prompts.length} prompts. Add some, or ask for fewer.`);

  const judge = await findJudge(undefined, folder);
  const given = (...names: (keyof typeof flags)[]): string[] =>
    names.flatMap((name) => {
      const value = flags[name];
      if (value === undefined || value === false) return [];
      return value === true ? `--${name}` : `--${name}=${value}`;
    });
  const request = {
    ...{ out, model: folder, prompts: file, weightBits, actBits, samples },
    ...{ candidates, sum, ssim },
    pictures: flags.pictures ?? Math.min(PICTURES, Math.max(1, samples)),
    trials: await chooseTrials(flags.trials, judge, prompts, file),
    judge: judge?.folder,
    ...{ prompt, seed, precision: given("precision"), device: given("adapter", "kernels", "no-f16") },
  };
  const [, sensitivity, allocate] = stepsOf(request);
  readRequest(readFlags(sensitivity!.runs[0], SENSITIVITY_FLAGS).flags);
  const { options } = readAllocateRequest(readFlags(allocate!.runs[0], ALLOCATE_FLAGS).flags);
  checkBudget(weightBits, options.candidates!, model);
  return request;
}

const PROMPTS_OF_MODEL = "calibration.txt";

async function promptsOfModel(folder: string): Promise<string> {
  const file = path.join(folder, PROMPTS_OF_MODEL);
  if ((await (await diskFiles(folder)).text(PROMPTS_OF_MODEL)) !== undefined) return file;
  throw invalidInput(
    `--prompts is missing: ${folder} has no ${PROMPTS_OF_MODEL} either. Give a text file with one prompt a line, about 32 ` +
      "of the kind that the model will be asked.",
  );
}

/** undefined where no picture is to decide. `prompts` are those of `file`. */
async function chooseTrials(
  asked: string | undefined,
  judge: Judge | undefined,
  prompts: readonly string[],
  file: string,
): Promise<TrialPrompts | undefined> {
  if (asked === "0") return undefined;
  if (asked !== undefined && !/^\d+$/.test(asked)) {
    await choosePrompts(asked, judge).catch(refuseAsTrials);
    return { file: asked };
  }
  const most = judge ? (await choosePrompts(undefined, judge)).prompts.length : prompts.length;
  const count = asked === undefined ? Math.min(TRIALS, most) : Number(asked);
  if (judge) {
    await choosePrompts(`${count}`, judge).catch(refuseAsTrials);
    return { ofJudge: count };
  }
  if (count < 2 || count > most)
    throw invalidInput(
      `--trials ${count}: expected 2 to ${most}, as many as ${file} has. Add prompts, give a FILE, or --trials 0: then no ` +
        "picture decides.",
    );
  return { text: `${prompts.slice(-count).join("\n")}\n` };
}

/** The flag has another name here. */
function refuseAsTrials(error: unknown): never {
  if (!(error instanceof MixdqError)) throw error;
  throw new MixdqError(error.code, error.message.replaceAll("--prompts", "--trials"));
}

/** As the allocator has it. */
const MOST_WEIGHT_BITS = 16;

/** The allocator would say so too, but only when everything has been measured. */
function checkBudget(
  weightBits: number,
  candidates: NonNullable<AllocateOptions["candidates"]>,
  model: ModelDescription,
): void {
  const [height, width] = model.unet.sampleSize;
  const graph = buildUNet(model.unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32");
  let [least, all] = [0, 0];
  for (const { path, weights } of quantizableLayers(graph)) {
    least += weights * Math.min(...candidates[layerGroup(path)]);
    all += weights;
  }
  if (weightBits * all >= least * (1 - 1e-12) && weightBits <= MOST_WEIGHT_BITS) return;
  const lowest = Math.ceil((1e4 * least) / all - 1e-6) / 1e4; // rounded up, so that it is enough
  throw invalidInput(
    `--weight-bits ${weightBits}: expected ${lowest}, which all layers at their smallest width take, to ` +
      `${MOST_WEIGHT_BITS}. Choose another budget, or allow smaller widths with --candidates.`,
  );
}
