/** The command line: finds the command, runs it, and turns any failure into one line and a non-zero exit. */
import { MixdqError } from "../base/errors.ts";
import { nearest } from "../base/nearest.ts";
import { show } from "../base/printable.ts";
import { exitWithDawn } from "../node/adapter.ts";
import { allocate } from "./allocate/allocate.ts";
import { auto } from "./auto/auto.ts";
import { bench } from "./bench.ts";
import { calibrate } from "./calibrate.ts";
import type { Command } from "./command.ts";
import { evaluate } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect/inspect.ts";
import { plan } from "./plan.ts";
import { preset } from "./preset.ts";
import { quantize } from "./quantize.ts";
import { sensitivity } from "./sensitivity/sensitivity.ts";
import { synthesize } from "./synthesize/synthesize.ts";
import { unet } from "./unet.ts";

const COMMANDS: Readonly<Record<string, Command>> = {
  ...{ generate, unet, evaluate, auto, calibrate, preset, synthesize },
  ...{ sensitivity, allocate, quantize, inspect, plan, bench },
};

const list = (): string =>
  Object.entries(COMMANDS)
    .map(([name, { summary }]) => `  ${name.padEnd(13)}${summary}`)
    .join("\n");

const USAGE = `usage: mixdq COMMAND ...

${list()}

mixdq help COMMAND, or mixdq COMMAND --help, tells a command's flags. In a checkout: npm run mixdq -- COMMAND ...`;

async function main([name, ...args]: readonly string[]): Promise<number> {
  if (name === undefined || ["help", "--help", "-h"].includes(name)) {
    if (name === "help" && args[0] !== undefined) return help(args[0]);
    console.log(USAGE);
    return name === undefined ? 1 : 0;
  }
  if (args.includes("--help") || args.includes("-h")) return help(name);
  const command = find(name);
  if (!command) return unknown(name);
  try {
    await command(args);
    return 0;
  } catch (error) {
    if (error instanceof MixdqError) console.error(`mixdq ${name}: ${error.code}: ${error.message}`);
    else console.error(`mixdq ${name}: a fault in mixdq itself, please report it:`, error);
    return 1;
  }
}

const find = (name: string): Command | undefined => (Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined);

function help(name: string): number {
  const command = find(name);
  if (!command) return unknown(name);
  console.log(command.usage);
  return 0;
}

function unknown(name: string): number {
  const names = Object.keys(COMMANDS);
  const meant = nearest(name, names);
  const advice = meant === undefined ? "" : ` Did you mean ${meant}?`;
  console.error(`mixdq: no command ${show(name)}; there are ${names.join(", ")}.${advice} See mixdq help.`);
  return 1;
}

await exitWithDawn(await main(process.argv.slice(2)));
