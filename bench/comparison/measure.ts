/** Pictures of one row and what they are like, kept on disk so that a comparison that was stopped goes on. */
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { requestNodeGpu } from "../../src/node/adapter.ts";
import { diskFiles } from "../../src/node/diskFiles.ts";
import { choosePrompts, findJudge, type Judge } from "../../src/cli/judging.ts";
import { makePictures } from "../../src/cli/pictures.ts";
import type { PipelineOptions } from "../../src/pipeline.ts";
import { shareFound } from "../../src/mixdq/quality/alignment.ts";
import { closenessOf, type Closeness, type Judged } from "../../src/mixdq/quality/figures.ts";
import type { Picture } from "../../src/mixdq/quality/picture.ts";
import type { Prompt } from "../../src/mixdq/quality/prompts.ts";
import { drawSimulated } from "../minifloatRun.ts";
import type { Row } from "./rows.ts";

/** One row's pictures, one entry each. */
export interface Measured {
  readonly key: string;
  readonly adapter: string;
  /** Of all parts on the GPU; undefined for a simulation. */
  readonly weightBytes: number | undefined;
  /** Beside FP16's of the same prompts and seeds. */
  readonly closeness: readonly Closeness[];
  /** Shares of what the prompts state. */
  readonly alignment: readonly number[];
  /** The judge's, for the Fréchet distance. */
  readonly features: readonly (readonly number[])[];
}

export interface Measurement {
  readonly judge: Judge;
  readonly prompts: readonly Prompt[];
  readonly size: Pick<Picture, "width" | "height">;
  readonly fp16: Measured;
  measure(row: Row): Promise<Measured>;
}

const FIRST_SEED = 0;

/** `cache` is a folder for what was drawn. */
export async function openMeasurement(model: string, count: number, cache: string): Promise<Measurement> {
  mkdirSync(cache, { recursive: true });
  const judge = (await findJudge(undefined, model))!;
  const { prompts } = await choosePrompts(String(count), judge);
  const files = await diskFiles(model);
  const gpu = await requestNodeGpu("auto");
  const task = { prompts, firstSeed: FIRST_SEED, judge };

  const draw = async (
    options: Partial<PipelineOptions>,
  ): Promise<{ pictures: Picture[] } & Omit<Measured, "key" | "closeness">> => {
    const pictures: Picture[] = [];
    const made = await makePictures(task, { files, gpu, precision: "fp16", ...options }, (picture) => {
      pictures.push(picture);
    });
    const { adapter, weightBytes } = made.info;
    return { pictures, adapter, weightBytes, ...read(made.judged) };
  };
  const simulate = async ({ run }: Row) => {
    if (!("simulation" in run)) throw new Error("not a simulation");
    const pictures = await drawSimulated(
      model,
      prompts.map(({ prompt }) => prompt),
      FIRST_SEED,
      run.simulation,
    );
    const judged: Judged[] = [];
    for (const [i, picture] of pictures.entries())
      judged.push({ ...(await judge.read(picture)), stated: prompts[i].attributes! });
    return { pictures, adapter: "", weightBytes: undefined, ...read(judged) };
  };

  const { pictures: reference, ...fp16 } = await draw({});
  const same = sha256(...reference.map(({ data }) => data));
  return {
    judge,
    prompts,
    size: reference[0],
    fp16: { ...fp16, key: same, closeness: [] },
    async measure(row) {
      const key = sha256(JSON.stringify([same, "config" in row.run ? plain(row.run.config) : row.run]));
      const file = path.join(cache, `${row.id}.json`);
      const known = readMeasured(file);
      if (known?.key === key) return known;
      const { pictures, ...rest } = "config" in row.run ? await draw({ config: row.run.config }) : await simulate(row);
      const closeness = pictures.map((picture, i) => closenessOf(reference[i], picture));
      const measured = { key, ...rest, closeness };
      writeFileSync(file, JSON.stringify(measured));
      return measured;
    },
  };
}

function read(judged: readonly Judged[]): Pick<Measured, "alignment" | "features"> {
  return {
    alignment: judged.map(({ stated, attributes }) => shareFound(stated, attributes)),
    features: judged.map(({ features }) => Array.from(features)),
  };
}

function readMeasured(file: string): Measured | undefined {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Measured;
  } catch {
    return undefined;
  }
}

const plain = ({
  layers,
  provenance: _,
  ...config
}: object & { layers: ReadonlyMap<string, unknown>; provenance: unknown }) => ({
  ...config,
  layers: [...layers],
});

function sha256(...parts: readonly (string | NodeJS.ArrayBufferView)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}
