/** What a GPU's own compiler makes of every pipeline of a model, without the GPU: registers, spills, machine code. */
import { execFile } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { build } from "vite";
import type { Precision } from "../../src/base/types.ts";
import type { StaticDrivers, StaticGpu } from "./gpus.ts";

/** Folder, precision, and a bit-width configuration in the folder other than the precision's own. */
export type ModelChoice = readonly [folder: string, precision: Precision, config?: string];

export interface StaticPipeline {
  /** `variantKey` of the dispatch. */
  readonly label: string;
  readonly subgroup: number;
  /** What the driver counts, by its own names: "VGPRs", "Spilled VGPRs", "Spill Count", "Max live registers", ... */
  readonly statistics: Readonly<Record<string, number>>;
  /** File with the machine code, where asked for. */
  readonly code: string | undefined;
}

export interface Refusal {
  readonly pipeline: string;
  /** Of the layer. */
  readonly path: string;
  readonly message: string;
}

/** What child.ts prints. */
export interface ChildResult {
  readonly adapter: string;
  readonly shaderF16: boolean;
  readonly packedDot: boolean;
  /** How many different pipelines the plans have. */
  readonly count: number;
  readonly refused: readonly Refusal[];
}

export interface Compiled extends ChildResult {
  readonly pipelines: readonly StaticPipeline[];
}

export interface CompileOptions {
  /** Made by `buildChild`. */
  readonly child: string;
  readonly models: readonly ModelChoice[];
  /** An empty folder for what the compilers say. */
  readonly out: string;
  /** The machine code too. */
  readonly code?: boolean;
}

/** The program that compiles, as one file within `folder`: the drivers are chosen when a process starts. */
export async function buildChild(folder: string): Promise<string> {
  await build({
    configFile: false,
    publicDir: false,
    logLevel: "error",
    build: {
      ssr: path.join(import.meta.dirname, "child.ts"),
      outDir: folder,
      emptyOutDir: false,
      target: "node20",
      minify: false,
      rollupOptions: { output: { entryFileNames: "child.mjs" } },
    },
  });
  return path.join(folder, "child.mjs");
}

/** All pipelines of these models on one GPU, by as many processes as there are cores. */
export async function compileFor(
  gpu: StaticGpu,
  drivers: StaticDrivers,
  { child, models, out, code = false }: CompileOptions,
): Promise<Compiled> {
  const shards = os.availableParallelism();
  const parts = await Promise.all(
    Array.from({ length: shards }, async (_, shard): Promise<Compiled> => {
      const folder = path.join(out, String(shard));
      await mkdir(folder);
      const env = {
        ...drivers.environment(gpu),
        MIXDQ_STATIC_OUT: folder,
        ...(code && { MIXDQ_STATIC_CODE: "1" }),
      };
      const args = [child, JSON.stringify(models), String(shard), String(shards)];
      const { stdout } = await promisify(execFile)(process.execPath, args, { env });
      const lines = (await readFile(path.join(folder, "pipelines.jsonl"), "utf8")).trim().split("\n");
      const pipelines = lines.map((line): StaticPipeline => {
        const { number, ...pipeline } = JSON.parse(line) as Omit<StaticPipeline, "code"> & { number: number };
        return { ...pipeline, code: code ? path.join(folder, `${number}.asm`) : undefined };
      });
      return { ...(JSON.parse(stdout.trim().split("\n").at(-1)!) as ChildResult), pipelines };
    }),
  );
  return {
    ...parts[0],
    refused: parts.flatMap(({ refused }) => refused),
    pipelines: parts.flatMap(({ pipelines }) => pipelines),
  };
}
