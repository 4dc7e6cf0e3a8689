/** A command, written once: its flags with their help, and what it does with their values. The usage is made from that. */
import { renamed } from "../api/options.ts";
import { type Flag, type FlagSet, type Values, readFlags } from "./flags.ts";

interface Definition<F extends FlagSet> {
  readonly name: string;
  /** A line for the list of commands. */
  readonly summary: string;
  readonly flags: F;
  /** Arguments that are no flags: at most so many. */
  readonly positionals?: { readonly placeholder: string; readonly help: string; readonly most: number };
  /** Paragraphs for the end of the usage. */
  readonly notes?: readonly string[];
  /** By the word that follows the command's name. */
  readonly subcommands?: Readonly<Record<string, Command>>;
  run(flags: Values<F>, positionals: readonly string[]): Promise<void>;
}

export interface Command {
  /** Runs it with what follows its name on the command line. Throws MixdqError. */
  (args: readonly string[]): Promise<void>;
  readonly summary: string;
  readonly usage: string;
}

export function command<F extends FlagSet>(definition: Definition<F>): Command {
  const { summary, flags, positionals, subcommands = {} } = definition;
  const run = async (args: readonly string[]): Promise<void> => {
    const first = args[0];
    if (first !== undefined && Object.hasOwn(subcommands, first)) return subcommands[first](args.slice(1));
    const read = readFlags(args, flags, positionals?.most);
    return definition.run(read.flags, read.positionals).catch((error: unknown) => {
      throw renamed(error, flagNames(flags));
    });
  };
  const usage = [usageOf(definition), ...Object.values(subcommands).map((each) => each.usage)].join("\n\n");
  return Object.assign(run, { summary, usage });
}

/** The flags that stand for an option of `generate`, which is what checks of a request name. */
const FLAGS_OF_OPTIONS: Readonly<Record<string, readonly string[]>> = {
  ...{ prompt: ["prompt"], seed: ["seed"], width: ["width"], height: ["height"] },
  ...{ image: ["image"], mask: ["mask"], strength: ["strength"] },
  ...{ timesteps: ["timesteps"], scheduler: ["scheduler"], eta: ["eta"] },
  ...{
    negativePrompt: ["negative-prompt"],
    numInferenceSteps: ["steps"],
    guidanceScale: ["guidance", "guidance-scale"],
    guidanceRescale: ["guidance-rescale"],
    keepUnmasked: ["keep-unmasked"],
    maskPadding: ["mask-padding"],
    imageGuidanceScale: ["image-guidance"],
  },
};

function flagNames(flags: FlagSet): Record<string, string> {
  const named = Object.entries(FLAGS_OF_OPTIONS).flatMap(([option, names]) => {
    const name = names.find((each) => Object.hasOwn(flags, each));
    return name === undefined ? [] : [[option, `--${name}`] as const];
  });
  return Object.fromEntries(named);
}

const COLUMN = 24;
const WIDTH = 120;

function usageOf({ name, summary, flags, positionals, notes = [] }: Definition<FlagSet>): string {
  const required = Object.entries(flags).filter(([, { isRequired }]) => isRequired);
  const head = ["mixdq", name, ...(positionals ? [positionals.placeholder] : []), ...required.map(written)].join(" ");
  return [
    head,
    ...wrapped(summary, 2),
    ...(positionals ? [row(positionals.placeholder, positionals.help)] : []),
    ...Object.entries(flags).map((each) => row(written(each), each[1].help)),
    ...notes.flatMap((note) => wrapped(note, 2)),
  ].join("\n");
}

const written = ([name, { placeholder }]: readonly [string, Flag]): string =>
  placeholder === undefined ? `--${name}` : `--${name} ${placeholder}`;

/** A flag and its help beside it, or below where the flag is long. */
function row(label: string, help: string): string {
  const lines = wrapped(help, COLUMN);
  const first = `  ${label}`;
  if (first.length >= COLUMN) return [first, ...lines].join("\n");
  return [first.padEnd(COLUMN) + lines[0].slice(COLUMN), ...lines.slice(1)].join("\n");
}

function wrapped(words: string, indent: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of words.split(" ")) {
    if (line !== "" && indent + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line].map((each) => " ".repeat(indent) + each);
}
