/** Flags of the command line, checked before any work begins. */
import { parseArgs, type ParseArgsConfig } from "node:util";
import { BACKENDS, PRECISIONS } from "../base/choices.ts";
import { invalidInput } from "../base/errors.ts";
import { printable, show } from "../base/printable.ts";
import { parseSeed, type Seed } from "../base/seed.ts";
import { SIMPLE, TILED } from "../kernels/choices.ts";
import type { ChoiceStore } from "../gpu/choiceStore.ts";
import { choiceFile } from "../node/choiceFile.ts";
import type { KernelChoice } from "../kernels/kernel.ts";
import { parseMixdqConfig, type MixdqConfig } from "../quant/config.ts";
import type { Backend, Precision } from "../base/types.ts";
import { parseSafetensors, type StoredTensor } from "../weights/safetensors.ts";
import { readBytes, readText } from "../node/inputFiles.ts";

export type Flags = Readonly<Record<string, string | boolean | undefined>>;

/** Flags that every command which runs a model understands. */
export const RUN_FLAGS = {
  model: { type: "string" },
  precision: { type: "string" },
  config: { type: "string" },
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
    const parsed = parseArgs({
      args: withNegativeNumbers(args),
      options,
      allowPositionals: positionals > 0,
      strict: true,
    });
    if (parsed.positionals.length > positionals)
      throw new Error(`Unexpected argument ${show(parsed.positionals[positionals])}`);
    return { flags: parsed.values as Flags, positionals: parsed.positionals };
  } catch (error) {
    const known = Object.keys(options).map((name) => `--${name}`);
    const message = printable((error as Error).message.replaceAll("\n", " ").replace(/\.$/, ""), 300);
    throw invalidInput(`${message}. This command knows ${known.join(", ")}.`);
  }
}

/** `--seed -1` as `--seed=-1`: it is a value, and the one who reads it says what is wrong with it. */
function withNegativeNumbers(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const before = joined.at(-1);
    if (/^-\.?\d/.test(arg) && before !== undefined && /^--[^=]+$/.test(before)) joined[joined.length - 1] += `=${arg}`;
    else joined.push(arg);
  }
  return joined;
}

export function text(flags: Flags, name: string): string | undefined {
  return flags[name] as string | undefined;
}

export function required(flags: Flags, name: string, what: string): string {
  const value = text(flags, name);
  if (value === undefined || value === "") throw invalidInput(`--${name} is missing: ${what}.`);
  return value;
}

export function integer(flags: Flags, name: string): number | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  if (!/^\d+$/.test(value)) throw invalidInput(`--${name} ${printable(value)}: expected a whole number.`);
  return Number(value);
}

export function number(flags: Flags, name: string): number | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  if (value.trim() === "" || !Number.isFinite(Number(value)))
    throw invalidInput(`--${name} ${printable(value)}: expected a number.`);
  return Number(value);
}

/** Numbers with commas between them. */
export function numbers(flags: Flags, name: string): number[] | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  const list = value.split(",").map((item) => (item.trim() === "" ? NaN : Number(item)));
  if (!list.every(Number.isFinite))
    throw invalidInput(`--${name} ${value}: expected numbers with commas between them, such as 999,749,499,249.`);
  return list;
}

/** --seed: any 64-bit seed that PyTorch takes. */
export function seedFlag(flags: Flags): Seed | undefined {
  const value = text(flags, "seed");
  return value === undefined ? undefined : parseSeed(value, "--seed");
}

export interface RunFlags {
  readonly precision: Precision;
  readonly backend: Backend;
  readonly adapter: string;
  readonly kernels: KernelChoice | undefined;
  /** Where the tuner keeps what it measured. */
  readonly choices: ChoiceStore;
  readonly shaderF16: boolean;
  readonly share: boolean;
  readonly debug: number;
}

/** As the flag says; undefined without it. */
export const precisionFlag = (flags: Flags): Precision | undefined => oneOf(flags, "precision", PRECISIONS);

export function runFlags(flags: Flags): RunFlags {
  const kernels = oneOf(flags, "kernels", ["direct", "tiled"] as const);
  return {
    precision: precisionFlag(flags) ?? "fp16",
    backend: oneOf(flags, "backend", BACKENDS) ?? "webgpu",
    adapter: text(flags, "adapter") ?? "auto",
    kernels: kernels && (kernels === "tiled" ? TILED : SIMPLE),
    choices: choiceFile(),
    shaderF16: flags["no-f16"] !== true,
    share: flags["no-share"] !== true,
    debug: integer(flags, "debug") ?? 0,
  };
}

/** One of `choices`; undefined without the flag. Throws `invalid-input` for anything else. */
export function oneOf<T extends string>(flags: Flags, name: string, choices: readonly T[]): T | undefined {
  const value = text(flags, name);
  if (value === undefined) return undefined;
  if (!(choices as readonly string[]).includes(value))
    throw invalidInput(`--${name} ${printable(value)}: expected ${choices.join(", ")}.`);
  return value as T;
}

/** How weights are quantized: --weight-range, --symmetric and --group. */
export function weightFlags(flags: Flags): MixdqConfig["weights"] {
  return {
    symmetric: flags["symmetric"] === true,
    range: oneOf(flags, "weight-range", ["mse", "minmax"] as const) ?? "mse",
    group: oneOf(flags, "group", ["none", "64"] as const) === "64" ? 64 : null,
  };
}

/** The configuration that --config names; undefined without the flag. Throws `invalid-input`. */
export async function readConfig(flags: Flags): Promise<MixdqConfig | undefined> {
  const file = text(flags, "config");
  if (file === undefined) return undefined;
  return parseMixdqConfig(await readText(file, { flag: "--config" }), file);
}

/** What Node reads of a file at once. */
const MAX_TENSOR_BYTES = 2 ** 31 - 1;

/** All tensors of a safetensors file. Throws `invalid-input` where it cannot be read. */
export async function readTensors(file: string): Promise<Map<string, StoredTensor>> {
  return parseSafetensors(await readBytes(file, { most: MAX_TENSOR_BYTES }), file);
}
