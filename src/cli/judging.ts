import { invalidInput } from "../base/errors.ts";
/** The judge of a model's pictures and the prompts it knows: what `evaluate` and the choice by pictures measure with. */
import { stat } from "node:fs/promises";
import path from "node:path";
import { loadNetwork } from "../ort/network.ts";
import type { Gaussian } from "../mixdq/quality/frechet.ts";
import { JUDGE_FILES, readDescription, readStatistics, type JudgeDescription } from "../mixdq/quality/judge.ts";
import { readJudgedPrompts, readPromptLines, type Prompt } from "../mixdq/quality/prompts.ts";
import { createReader, type ReadPicture } from "../mixdq/quality/reader.ts";
import { nameOf, readBytes, readText, sha256 } from "../node/inputFiles.ts";

const DEFAULT_PROMPTS = 256;
/** More is no judge: an ONNX network has a limit of its own besides. */
const MAX_NETWORK_BYTES = 2 ** 28;

/** A network that reads off a picture what its prompt states, and what true pictures look like to it. */
export interface Judge {
  readonly folder: string;
  readonly description: JudgeDescription;
  readonly statistics: Gaussian;
  readonly read: ReadPicture;
  readonly provenance: object;
}

/** undefined where none was asked for and the model has none. */
export async function findJudge(asked: string | undefined, model: string): Promise<Judge | undefined> {
  const folder = asked ?? path.join(model, "judge");
  const info = await stat(folder).catch(() => undefined);
  if (!info?.isDirectory()) {
    if (asked === undefined) return undefined;
    throw invalidInput(`--judge ${folder}: no such folder. Give the folder that holds ${JUDGE_FILES.description}.`);
  }
  const fileOf = (name: keyof typeof JUDGE_FILES): string => path.join(folder, JUDGE_FILES[name]);
  const description = readDescription(await readText(fileOf("description")), fileOf("description"));
  const statistics = readStatistics(await readBytes(fileOf("statistics")), description.features, fileOf("statistics"));
  const bytes = await readBytes(fileOf("network"), { most: MAX_NETWORK_BYTES });
  const network = await loadNetwork(bytes, fileOf("network"));
  return {
    folder,
    description,
    statistics,
    read: await createReader((inputs) => network.run(inputs), description, fileOf("network")),
    provenance: {
      sha256: sha256(bytes),
      accuracy: description.accuracy,
      heldOut: description.heldOut,
    },
  };
}

/** Prompts, and the file that they are from. */
export interface ChosenPrompts {
  readonly prompts: readonly Prompt[];
  readonly source: string;
}

/**
 * What --prompts asks for: so many of the judge's, from its first or its last on, or a file. Throws `invalid-input`.
 */
export async function choosePrompts(
  asked: string | undefined,
  judge: Judge | undefined,
  end: "first" | "last" = "first",
): Promise<ChosenPrompts> {
  if (asked !== undefined && !/^\d+$/.test(asked)) {
    const where = `--prompts ${asked}`;
    const content = await readText(asked, { flag: "--prompts" });
    if (!asked.endsWith(".jsonl")) return { prompts: readPromptLines(content, where), source: asked };
    if (!judge)
      throw invalidInput(`${where}: got attributes and no judge to look for them, expected one. Give --judge DIR.`);
    const prompts = readJudgedPrompts(content, judge.description.attributes, where);
    return { prompts: atLeastTwo(prompts, where), source: asked };
  }
  if (!judge)
    throw invalidInput(
      `--prompts ${asked ?? "is missing"}: this model has no judge, and so no prompts of its own. Give --prompts FILE, a ` +
        `text file with one prompt a line.`,
    );
  const source = path.join(judge.folder, JUDGE_FILES.prompts);
  const all = readJudgedPrompts(await readText(source), judge.description.attributes, source);
  const count = asked === undefined ? Math.min(DEFAULT_PROMPTS, all.length) : Number(asked);
  if (count > all.length)
    throw invalidInput(
      `--prompts ${asked}: expected at most ${all.length}, all that the judge has. Give a smaller number.`,
    );
  const chosen = end === "first" ? all.slice(0, count) : all.slice(all.length - count);
  return { prompts: atLeastTwo(chosen, `--prompts ${count}`), source };
}

function atLeastTwo(prompts: readonly Prompt[], where: string): readonly Prompt[] {
  if (prompts.length >= 2) return prompts;
  throw invalidInput(
    `${where}: got ${prompts.length} prompt(s), expected at least 2: one picture has no spread. Give more.`,
  );
}

/** What the figures do not show, or show badly. */
export function doubts({ judge, prompts, source }: ChosenPrompts & { readonly judge: Judge | undefined }): string[] {
  if (!judge)
    return [`${nameOf(source)} states no attributes for a judge: alignment and Fréchet distance are left out.`];
  const { features } = judge.description;
  if (prompts.length > features) return [];
  return [
    `Of the ${features} features, ${prompts.length} pictures show the spread of ${prompts.length - 1} at most: compare this ` +
      `Fréchet distance only with those of as many pictures, or take more than ${features} prompts.`,
  ];
}
