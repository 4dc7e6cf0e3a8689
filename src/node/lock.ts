/**
 * One process at a time for a result that takes long and whose state lies beside it: a lock file that names the process.
 * A process that was killed leaves its lock behind, which the next one tells from a live one by the process's number and
 * the time at which it was started (numbers are given out again).
 */
import { readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { readFile, rename, rm, rmdir, stat } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { invalidInput } from "../base/errors.ts";
import { assertWritable, isSpecial, makeFolder } from "./outputFiles.ts";

interface Holder {
  readonly pid: number;
  /** When the process was started, as its system counts; "" where the system does not tell. */
  readonly started: string;
  readonly host: string;
}

/** Lock files of this process, with their content. */
const held = new Map<string, string>();

/**
 * Runs `work` while no other process works on `output`, a file or a folder. The lock is `output`.lock, and gone when `work`
 * has ended or the process exits. A device or a pipe has no state beside it and is not locked.
 * Throws `invalid-input` where another process has it.
 */
export async function withLock<T>(output: string, work: () => Promise<T>): Promise<T> {
  if (await isSpecial(output)) return work();
  const exists = await stat(output).catch(() => undefined);
  if (!exists?.isDirectory()) await assertWritable(output);
  const file = `${path.resolve(output)}.lock`;
  const missing = await missingFolders(path.dirname(file));
  await acquire(file, output);
  try {
    return await work();
  } finally {
    release(file);
    // A run that fails leaves nothing behind: what has something in it by now stays.
    for (const folder of missing) await rmdir(folder).catch(() => {});
  }
}

/** The folders on the way that are not there yet, innermost first. */
async function missingFolders(folder: string): Promise<readonly string[]> {
  const exists = await stat(folder).catch(() => undefined);
  const parent = path.dirname(folder);
  return exists || parent === folder ? [] : [folder, ...(await missingFolders(parent))];
}

/** So long a lock file may be empty: between the moments at which a process makes it and writes into it. */
const EMPTY_MS = 1000;

async function acquire(file: string, output: string): Promise<void> {
  const own = JSON.stringify({ pid: process.pid, started: startOf(process.pid), host: os.hostname() } satisfies Holder);
  const cannot = (error: Error): never => {
    throw invalidInput(`${output} cannot be written: ${error.message}. Choose another place.`);
  };
  await makeFolder(path.dirname(file)).catch(cannot);
  for (;;) {
    try {
      writeFileSync(file, own, { flag: "wx" });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") cannot(error as Error);
    }
    const [content, info] = await Promise.all([readFile(file, "utf8"), stat(file)]).catch(() => []);
    if (content === undefined || info === undefined) continue; // released meanwhile
    const holder = parse(content);
    if (holder && mayRun(holder))
      throw invalidInput(
        `${output}: process ${holder.pid} on ${holder.host} is writing it (${path.basename(file)} says so). Wait for it, ` +
          `stop it, or choose another --out. If no such process runs there, delete ${file}.`,
      );
    if (!holder && Date.now() - info.mtimeMs < EMPTY_MS) await sleep(100);
    else await removeStale(file, content);
  }
  held.set(file, own);
  releaseAtTheEnd();
}

/** Two processes may find the same stale lock: what one of them moves away may be the other's new one, and goes back. */
async function removeStale(file: string, content: string): Promise<void> {
  const aside = `${file}.${process.pid}.stale`;
  try {
    await rename(file, aside);
    const moved = await readFile(aside, "utf8");
    if (moved !== content) writeFileSync(file, moved, { flag: "wx" });
  } catch {
    // the other one was faster
  }
  await rm(aside, { force: true });
}

function parse(content: string): Holder | undefined {
  try {
    const { pid, started, host } = Object(JSON.parse(content)) as Partial<Holder>;
    if (!Number.isSafeInteger(pid) || pid! <= 0 || typeof started !== "string" || typeof host !== "string") return;
    return { pid: pid!, started, host };
  } catch {
    return undefined;
  }
}

/** Of another machine's process nothing can be said: it may. */
function mayRun({ pid, started, host }: Holder): boolean {
  if (host !== os.hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
  }
  const now = startOf(pid);
  return started === "" || now === "" || now === started;
}

/** Field 22 of /proc/PID/stat, in clock ticks since the system's start, with that start's own id; "" elsewhere. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    // The second field is the program's name in brackets, which may hold anything.
    return `${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]} ${boot}`;
  } catch {
    return "";
  }
}

function release(file: string): void {
  const own = held.get(file);
  held.delete(file);
  try {
    if (own !== undefined && readFileSync(file, "utf8") === own) unlinkSync(file);
  } catch {
    // gone already
  }
}

function releaseAll(): void {
  for (const file of [...held.keys()]) release(file);
}

let listens = false;

/** A signal ends the process without "exit": release, then let it end as if nobody had listened. */
function releaseAtTheEnd(): void {
  if (listens) return;
  listens = true;
  process.once("exit", releaseAll);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.once(signal, () => {
      releaseAll();
      process.kill(process.pid, signal);
    });
}
