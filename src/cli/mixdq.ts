/** The command line: finds the command, runs it, and turns any failure into one line and a non-zero exit. */
import { MixdqError } from "../base/errors.ts";
import { show } from "../base/printable.ts";
import { exitWithDawn } from "../node/adapter.ts";
import { allocate } from "./allocate/allocate.ts";
import { ALLOCATE_USAGE } from "./allocate/allocateFlags.ts";
import { auto } from "./auto/auto.ts";
import { AUTO_USAGE } from "./auto/autoFlags.ts";
import { bench, BENCH_USAGE } from "./bench.ts";
import { calibrate, CALIBRATE_USAGE } from "./calibrate.ts";
import { evaluate, EVALUATE_USAGE } from "./evaluate.ts";
import { generate, GENERATE_USAGE } from "./generate.ts";
import { inspect, INSPECT_USAGE } from "./inspect/inspect.ts";
import { plan, PLAN_USAGE } from "./plan.ts";
import { preset, PRESET_USAGE } from "./preset.ts";
import { quantize, QUANTIZE_USAGE } from "./quantize.ts";
import { sensitivity } from "./sensitivity/sensitivity.ts";
import { SENSITIVITY_USAGE } from "./sensitivity/sensitivityFlags.ts";
import { synthesize, SYNTHESIZE_USAGE } from "./synthesize/synthesize.ts";
import { unet, UNET_USAGE } from "./unet.ts";

const COMMANDS: Readonly<Record<string, { run: (args: readonly string[]) => Promise<void>; usage: string }>> = {
  generate: { run: generate, usage: GENERATE_USAGE },
  unet: { run: unet, usage: UNET_USAGE },
  evaluate: { run: evaluate, usage: EVALUATE_USAGE },
  auto: { run: auto, usage: AUTO_USAGE },
  calibrate: { run: calibrate, usage: CALIBRATE_USAGE },
  preset: { run: preset, usage: PRESET_USAGE },
  synthesize: { run: synthesize, usage: SYNTHESIZE_USAGE },
  sensitivity: { run: sensitivity, usage: SENSITIVITY_USAGE },
  allocate: { run: allocate, usage: ALLOCATE_USAGE },
  quantize: { run: quantize, usage: QUANTIZE_USAGE },
  inspect: { run: inspect, usage: INSPECT_USAGE },
  plan: { run: plan, usage: PLAN_USAGE },
  bench: { run: bench, usage: BENCH_USAGE },
};

const USAGE = `usage: mixdq <command> ...

${Object.values(COMMANDS)
  .map(({ usage }) => usage)
  .join("\n\n")}

In a checkout: npm run mixdq -- <command> ...`;

async function main([name, ...args]: readonly string[]): Promise<number> {
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    console.log(USAGE);
    return name === undefined ? 1 : 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!command) {
    console.error(`mixdq: no command ${show(name)}; there are ${Object.keys(COMMANDS).join(", ")}. See mixdq help.`);
    return 1;
  }
  if (args.includes("--help") || args.includes("-h")) {
    console.log(command.usage);
    return 0;
  }
  try {
    await command.run(args);
    return 0;
  } catch (error) {
    if (error instanceof MixdqError) console.error(`mixdq ${name}: ${error.code}: ${error.message}`);
    else console.error(`mixdq ${name}: a fault in mixdq itself, please report it:`, error);
    return 1;
  }
}

await exitWithDawn(await main(process.argv.slice(2)));
