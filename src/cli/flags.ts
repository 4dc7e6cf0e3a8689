/** Flags as data: how one is written, what it is for, and how its text becomes a value. */
import { parseArgs } from "node:util";
import { invalidInput } from "../base/errors.ts";
import { parseSeed, type Seed } from "../base/seed.ts";
import { nearest } from "../base/nearest.ts";
import { printable, show } from "../base/printable.ts";

export interface Flag<T = unknown> {
  /** What stands for the value in the usage; a switch has none. */
  readonly placeholder?: string;
  /** One or more sentences for the usage, the default included. */
  readonly help: string;
  readonly isRequired?: boolean;
  /** It may be given several times. */
  readonly isRepeated?: boolean;
  /**
   * `text` is undefined where the flag was not given, "" for a switch that was; `all` are the texts of one that may be given
   * several times, in that order. Throws `invalid-input`.
   */
  parse(text: string | undefined, name: string, all?: readonly string[]): T;
}

export type FlagSet = Readonly<Record<string, Flag>>;

/** What the flags of a command become. */
export type Values<F extends FlagSet> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never };

function flag<T>(placeholder: string, help: string, read: (text: string, name: string) => T): Flag<T | undefined> {
  return { placeholder, help, parse: (text, name) => (text === undefined ? undefined : read(text, name)) };
}

export const text = (placeholder: string, help: string): Flag<string | undefined> => flag(placeholder, help, (t) => t);

/** Present or not. */
export const toggle = (help: string): Flag<boolean> => ({ help, parse: (given) => given !== undefined });

/** 0, 1, 2, … */
export const integer = (help: string, placeholder = "N"): Flag<number | undefined> =>
  flag(placeholder, help, (value, name) => {
    if (!/^\d+$/.test(value)) throw invalidInput(`--${name} ${printable(value)}: expected a whole number.`);
    return Number(value);
  });

/** Of PyTorch's generator: any of its 64-bit seeds. */
export const seed = (help: string): Flag<Seed | undefined> =>
  flag("N", help, (value, name) => parseSeed(value, `--${name}`));

/** Numbers with commas between them. */
export const numbers = (placeholder: string, help: string): Flag<readonly number[] | undefined> =>
  flag(placeholder, help, (value, name) => {
    const list = value.split(",").map((item) => (item.trim() === "" ? NaN : Number(item)));
    if (!list.every(Number.isFinite))
      throw invalidInput(
        `--${name} ${printable(value)}: expected numbers with commas between them, such as 999,749,499,249.`,
      );
    return list;
  });

export const number = (help: string, placeholder = "N"): Flag<number | undefined> =>
  flag(placeholder, help, (value, name) => {
    if (value.trim() === "" || !Number.isFinite(Number(value)))
      throw invalidInput(`--${name} ${printable(value)}: expected a number.`);
    return Number(value);
  });

export function choice<const T extends string>(choices: readonly T[], help: string): Flag<T | undefined> {
  return flag(choices.join("|"), help, (value, name) => {
    const known = choices.find((each) => each === value);
    if (known === undefined) throw invalidInput(`--${name} ${printable(value)}: expected ${choices.join(", ")}.`);
    return known;
  });
}

/** Bit-widths with commas between them, ascending and each once; `allowed` where only some may be. */
export const widths = (help: string, allowed?: readonly number[]): Flag<readonly number[] | undefined> =>
  flag("LIST", help, (value, name) => {
    const list = value.split(",").map((item) => (/^\s*\d+\s*$/.test(item) ? Number(item) : NaN));
    if (list.some((bits) => (allowed ? !allowed.includes(bits) : Number.isNaN(bits))))
      throw invalidInput(
        `--${name} ${printable(value)}: expected bit-widths${allowed ? ` of ${allowed.join(", ")}` : ""} with commas between them, ` +
          "such as 4,8.",
      );
    return [...new Set(list)].sort((a, b) => a - b);
  });

/** A flag that may be given several times. */
export const repeated = <T>(flag: Flag<T | undefined>): Flag<readonly T[]> => ({
  ...flag,
  help: `${flag.help}; may be given several times`,
  isRepeated: true,
  parse: (_, name, all = []) => all.map((text) => flag.parse(text, name)!),
});

/** A LoRA's file and how much of it. */
export interface ScaledFile {
  readonly file: string;
  readonly scale: number;
}

export const scaledFile = (help: string): Flag<ScaledFile | undefined> =>
  flag("FILE[=SCALE]", help, (value, name) => {
    const [, file, scale] = /^(.+)=([^=]*)$/.exec(value) ?? [];
    const isNumber = scale !== undefined && scale.trim() !== "" && Number.isFinite(Number(scale));
    if (file !== undefined && isNumber) return { file, scale: Number(scale) };
    // A name may have a "=" of its own.
    if (value !== "" && !/\.safetensors=[^=]*$/.test(value)) return { file: value, scale: 1 };
    throw invalidInput(`--${name} ${printable(value)}: expected FILE or FILE=SCALE, such as ink.safetensors=0.8.`);
  });

/** A tensor of a safetensors file. */
export interface TensorName {
  readonly file: string;
  readonly key: string;
  /** The flag as it was given, for messages. */
  readonly where: string;
}

export const tensor = (help: string): Flag<TensorName | undefined> =>
  flag("FILE#KEY", help, (value, name) => {
    const where = `--${name} ${printable(value)}`;
    const hash = value.lastIndexOf("#");
    if (hash < 1 || hash === value.length - 1)
      throw invalidInput(`${where}: expected FILE#KEY, a safetensors file and a tensor in it.`);
    return { file: value.slice(0, hash), key: value.slice(hash + 1), where };
  });

/** `what` says what is missing where the flag is. An empty text counts as missing unless it `mayBeEmpty`. */
export function required<T>(flag: Flag<T | undefined>, what: string, mayBeEmpty = false): Flag<T> {
  return {
    ...flag,
    isRequired: true,
    parse(given, name) {
      const value = given === "" && !mayBeEmpty ? undefined : flag.parse(given, name);
      if (value === undefined) throw invalidInput(`--${name} is missing: ${what}.`);
      return value;
    },
  };
}

/** `shown` is how the usage writes the default. */
export function withDefault<T>(flag: Flag<T | undefined>, value: NoInfer<T>, shown = String(value)): Flag<T> {
  return {
    ...flag,
    help: `${flag.help}; default ${shown}`,
    parse: (given, name) => flag.parse(given, name) ?? value,
  };
}

/** Throws `invalid-input` for flags that the command does not know, and for what the flags themselves refuse. */
export function readFlags<F extends FlagSet>(
  args: readonly string[],
  flags: F,
  positionals = 0,
): { flags: Values<F>; positionals: readonly string[] } {
  const parsed = parse(args, flags, positionals);
  const values = Object.entries(flags).map(([name, flag]) => {
    const given = parsed.values[name];
    if (flag.isRepeated) return [name, flag.parse(undefined, name, given as string[] | undefined)] as const;
    return [name, flag.parse(given === true ? "" : (given as string | undefined), name)] as const;
  });
  return { flags: Object.fromEntries(values) as Values<F>, positionals: parsed.positionals };
}

function parse(args: readonly string[], flags: FlagSet, positionals: number) {
  const options = Object.fromEntries(
    Object.entries(flags).map(
      ([name, { placeholder, isRepeated = false }]) =>
        [name, { type: placeholder === undefined ? "boolean" : "string", multiple: isRepeated }] as const,
    ),
  );
  try {
    const parsed = parseArgs({ args: withNegativeNumbers(args), options, allowPositionals: true, strict: true });
    const extra = parsed.positionals[positionals];
    if (extra !== undefined) throw new Error(`Unexpected argument ${show(extra)}`);
    return parsed;
  } catch (error) {
    const message = printable((error as Error).message.replaceAll("\n", " ").replace(/\.$/, ""), 300);
    const [, unknown] = /^Unknown option '--?([^']*)'/.exec(message) ?? [];
    const meant = unknown === undefined ? undefined : nearest(unknown, Object.keys(flags));
    const what = unknown === undefined ? message : `Unknown option '--${printable(unknown)}'`;
    const known = Object.keys(flags).map((name) => `--${name}`);
    throw invalidInput(
      `${what}${meant === undefined ? "" : `, did you mean --${meant}?`}${meant === undefined ? "." : ""} ` +
        `This command knows ${known.join(", ")}.`,
    );
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
