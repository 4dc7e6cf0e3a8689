/** Flags and files of the command line, checked before any work begins. */
import { access, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { constants } from "node:fs";
import path from "node:path";
import { parseArgs, type ParseArgsConfig } from "node:util";
import { BACKENDS, PRECISIONS } from "../choices.ts";
import { MixdqError } from "../errors.ts";
import { SIMPLE, TILED, type KernelChoice } from "../gpu/tuner.ts";
import type { Backend, Precision } from "../types.ts";
import { parseSafetensors, type StoredTensor } from "../weights/safetensors.ts";

export type Flags = Readonly<Record<string, string | boolean | undefined>>;

/** Flags that every command which runs a model understands. */
export const RUN_FLAGS = {
  model: { type: "string" },
  precision: { type: "string" },
  backend: { type: "string" },
  adapter: { type: "string" },
  kernels: { type: "string" },
  "no-f16": { type: "boolean" },
  "no-share": { type: "boolean" },
  debug: { type: "string" },
} as const satisfies ParseArgsConfig["options"];

/** Throws `invalid-input` for flags that the command does not know. */
export function readFlags(
  args: readonly string[],
  options: NonNullable<ParseArgsConfig["options"]>,
  positionals = 0,
): { flags: Flags; positionals: readonly string[] } {
  try {
    const parsed = parseArgs({ args: [...args], options, allowPositionals: positionals > 0, strict: true });
    if (parsed.positionals.length > positionals)
      throw new Error(`Unexpected argument "${parsed.positionals[positionals]}"`);
    return { flags: parsed.values as Flags, positionals: parsed.positionals };
  } catch (error) {
    const known = Object.keys(options).map((name) => `--${name}`);
    throw invalid(`${(error as Error).message.split("\n")[0]}. This command knows ${known.join(", ")}.`);
  }
}

export function text(flags: Flags, name: string): string | undefined {
  return flags[name] as string | undefined;
}

export function required(flags: Flags, name: string, what: string): string {
  const value = text(flags, name);
  if (value === undefined || value === "") throw invalid(`--${name} is missing: ${what}.`);
  return value;
}

export function integer(flags: Flags, name: string): number | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  if (!/^\d+$/.test(value)) throw invalid(`--${name} ${value}: expected a whole number.`);
  return Number(value);
}

export function number(flags: Flags, name: string): number | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  if (value.trim() === "" || !Number.isFinite(Number(value))) throw invalid(`--${name} ${value}: expected a number.`);
  return Number(value);
}

export interface RunFlags {
  readonly precision: Precision;
  readonly backend: Backend;
  readonly adapter: string;
  readonly kernels: KernelChoice | undefined;
  readonly shaderF16: boolean;
  readonly share: boolean;
  readonly debug: number;
}

export function runFlags(flags: Flags): RunFlags {
  const kernels = oneOf(flags, "kernels", ["direct", "tiled"] as const);
  return {
    precision: oneOf(flags, "precision", PRECISIONS) ?? "fp16",
    backend: oneOf(flags, "backend", BACKENDS) ?? "webgpu",
    adapter: text(flags, "adapter") ?? "auto",
    kernels: kernels && (kernels === "tiled" ? TILED : SIMPLE),
    shaderF16: flags["no-f16"] !== true,
    share: flags["no-share"] !== true,
    debug: integer(flags, "debug") ?? 0,
  };
}

function oneOf<T extends string>(flags: Flags, name: string, choices: readonly T[]): T | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  if (!(choices as readonly string[]).includes(value))
    throw invalid(`--${name} ${value}: expected ${choices.join(", ")}.`);
  return value as T;
}

/** All tensors of a safetensors file. Throws `invalid-input` where it cannot be read. */
export async function readTensors(file: string): Promise<Map<string, StoredTensor>> {
  const bytes = await readFile(file).catch((error: Error) => {
    throw invalid(`${file} cannot be read: ${error.message}.`);
  });
  return parseSafetensors(bytes, file);
}

/** Throws before the work, not after it, where a result could not be written. */
export async function assertWritable(file: string): Promise<void> {
  const folder = path.dirname(path.resolve(file));
  await mkdir(folder, { recursive: true }).catch(() => {});
  await access(folder, constants.W_OK).catch(() => {
    throw invalid(`${file} cannot be written: ${folder} is not a folder one can write to.`);
  });
}

/** Writes the whole file or nothing: beside it first, then renamed. */
export async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  const partial = `${file}.${process.pid}.partial`;
  try {
    await writeFile(partial, bytes);
    await rename(partial, file);
  } catch (error) {
    await rm(partial, { force: true });
    throw invalid(`${file} cannot be written: ${(error as Error).message}.`);
  }
}

export function invalid(message: string): MixdqError {
  return new MixdqError("invalid-input", message);
}
