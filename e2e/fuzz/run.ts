/**
 * Runs inputs through the readers and holds them to what they promise: success or a MixdqError, in time and memory, with a
 * message that people can read and a terminal can show, and nothing changed for anybody else.
 */
import { Worker } from "node:worker_threads";
import { MixdqError } from "../../src/base/errors.ts";
import { MAX_MESSAGE_BYTES } from "../../src/base/printable.ts";
import { Chance } from "./chance.ts";
import type { Files } from "./files.ts";
import { mutateFiles } from "./mutate.ts";
import type { Target } from "./targets.ts";

export interface FuzzOptions {
  readonly seed: number;
  /** The number of the first input, and how many there are. */
  readonly from: number;
  readonly inputs: number;
}

export interface TargetRow {
  readonly target: string;
  inputs: number;
  taken: number;
  /** By code. */
  readonly refused: Map<string, number>;
  /** Of processor time; of the slowest input. */
  mostMs: number;
  sumMs: number;
  mostMessageBytes: number;
}

export interface FuzzResult {
  readonly rows: readonly TargetRow[];
  /** What a reader did that none may do, each with the input to repeat it by. */
  readonly failures: readonly string[];
  /** How far the process's resident memory grew, in bytes. */
  readonly grownBytes: number;
}

const MAX_MS = 2000;
/** The largest file here has 100 kB; what is above this was made of nothing. */
const MAX_GROWN_BYTES = 1.5 * 2 ** 30;
/** Of which the first is enough to begin with. */
const MAX_FAILURES = 20;

export async function fuzz(targets: readonly Target[], options: FuzzOptions): Promise<FuzzResult> {
  const rows = new Map(targets.map(({ name }) => [name, emptyRow(name)]));
  const failures: string[] = [];
  const watched = watch(options.seed);
  const before = process.memoryUsage().rss;
  let most = before;
  for (let index = options.from; index < options.from + options.inputs && failures.length < MAX_FAILURES; index++) {
    watched.begin(index);
    const failure = await tryInput(targets, options.seed, index, rows);
    if (failure !== undefined)
      failures.push(
        `${failure}\n  again: FUZZ_SEED=${options.seed} FUZZ_FROM=${index} FUZZ_INPUTS=1 npm run bench -- fuzz`,
      );
    if (index % 64 === 0) most = Math.max(most, process.memoryUsage().rss);
    if (most - before > MAX_GROWN_BYTES) {
      failures.push(`the process has grown by ${most - before} bytes by input ${index} of seed ${options.seed}`);
      break;
    }
  }
  await watched.end();
  return { rows: [...rows.values()], failures, grownBytes: most - before };
}

/** The input of a number: which reader, and what it is given. */
export function inputOf(
  targets: readonly Target[],
  seed: number,
  index: number,
): { target: Target; files: Files; chance: Chance } {
  const chance = new Chance(seed, index);
  const target = chance.weighted(targets);
  return { target, files: mutateFiles(chance.of(target.seeds), chance), chance };
}

async function tryInput(
  targets: readonly Target[],
  seed: number,
  index: number,
  rows: ReadonlyMap<string, TargetRow>,
): Promise<string | undefined> {
  const input = inputOf(targets, seed, index);
  const row = rows.get(input.target.name)!;
  const { error, ms } = await timed(input);
  row.inputs++;
  row.sumMs += ms;
  row.mostMs = Math.max(row.mostMs, ms);
  const what = judge(error, row) ?? (await tooSlow(ms, targets, seed, index)) ?? polluted();
  return what && `${input.target.name}, input ${index}: ${what}`;
}

async function timed({ target, files, chance }: ReturnType<typeof inputOf>): Promise<{ error: unknown; ms: number }> {
  const before = process.cpuUsage();
  let error: unknown;
  try {
    await target.run(files, chance);
  } catch (caught) {
    error = caught ?? new Error("nothing was thrown");
  }
  // Of the processor, not of the clock: another programme may have the machine, and no reader here waits for anything.
  const { user, system } = process.cpuUsage(before);
  return { error, ms: (user + system) / 1000 };
}

function judge(error: unknown, row: TargetRow): string | undefined {
  if (error === undefined) {
    row.taken++;
    return undefined;
  }
  if (!(error instanceof MixdqError)) return `raw: ${(error as Error)?.stack ?? String(error)}`;
  row.refused.set(error.code, (row.refused.get(error.code) ?? 0) + 1);
  const bytes = new TextEncoder().encode(error.message).length;
  row.mostMessageBytes = Math.max(row.mostMessageBytes, bytes);
  if (bytes > MAX_MESSAGE_BYTES) return `a message of ${bytes} bytes: ${error.message.slice(0, 200)}`;
  if (/[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u202a-\u202e\u2066-\u2069]/u.test(error.message))
    return `a message that a terminal obeys: ${JSON.stringify(error.message)}`;
  return undefined;
}

/** Again twice: what was slow may have been the collector's work for the inputs before. */
async function tooSlow(
  ms: number,
  targets: readonly Target[],
  seed: number,
  index: number,
): Promise<string | undefined> {
  let least = ms;
  for (let again = 0; again < 2 && least > MAX_MS; again++)
    least = Math.min(least, (await timed(inputOf(targets, seed, index))).ms);
  return least > MAX_MS ? `${Math.round(least)} ms, of processor time, expected at most ${MAX_MS}` : undefined;
}

const SHARED = [Object.prototype, Array.prototype, Function.prototype, String.prototype, Map.prototype];
const KEYS = SHARED.map((prototype) => Reflect.ownKeys(prototype).length);

function polluted(): string | undefined {
  return SHARED.every((prototype, i) => Reflect.ownKeys(prototype).length === KEYS[i])
    ? undefined
    : "it has changed a prototype that all objects share";
}

const emptyRow = (target: string): TargetRow => ({
  target,
  inputs: 0,
  taken: 0,
  refused: new Map(),
  mostMs: 0,
  sumMs: 0,
  mostMessageBytes: 0,
});

/** Ends the process, with a word that says why, where one input does not end: no timer of this thread would fire. */
function watch(seed: number): { begin(index: number): void; end(): Promise<unknown> } {
  const state = new Int32Array(new SharedArrayBuffer(4)).fill(-1);
  const code = `
    const { workerData } = require("node:worker_threads");
    let [last, since] = [-1, Date.now()];
    setInterval(() => {
      const now = Atomics.load(workerData.state, 0);
      if (now !== last) [last, since] = [now, Date.now()];
      else if (now >= 0 && Date.now() - since > 120_000) {
        require("node:fs").writeSync(2, "fuzz: input " + now + " of seed ${seed} does not end\\n");
        process.kill(process.pid, "SIGKILL");
      }
    }, 1000);`;
  const worker = new Worker(code, { eval: true, workerData: { state } });
  worker.unref();
  return { begin: (index) => void Atomics.store(state, 0, index), end: () => worker.terminate() };
}
