/**
 * Files that commands write: refused before the work, written whole or not at all. What a path leads to decides how: a
 * symbolic link stays and its target is written, a device or a pipe is written into, a regular file is replaced at once.
 */
import { access, chmod, lstat, mkdir, open, readlink, rename, rm, stat, writeFile } from "node:fs/promises";
import { constants, fstatSync } from "node:fs";
import path from "node:path";
import { invalidInput } from "../base/errors.ts";

/** Throws before the work, not after it, where a result could not be written. */
export async function assertWritable(file: string): Promise<void> {
  if (await isFolder(path.resolve(file)))
    throw invalidInput(`${file} cannot be written: it is a folder. Add a file name.`);
  if (await isSpecial(file)) {
    await access(file, constants.W_OK).catch((error: Error) => {
      throw invalidInput(`${file} cannot be written: ${error.message}. Choose another place.`);
    });
    return;
  }
  // Folders are made when there is something to put into them: a run that fails leaves nothing behind.
  const folder = await nearestExisting(path.dirname(await targetOf(file)));
  const mayWrite = await access(folder, constants.W_OK).then(
    () => isFolder(folder),
    () => false,
  );
  if (!mayWrite)
    throw invalidInput(
      `${file} cannot be written: ${folder} is not a folder that you may write to. Choose another place.`,
    );
}

async function isFolder(file: string): Promise<boolean> {
  return (await stat(file).catch(() => undefined))?.isDirectory() ?? false;
}

/** A device, a pipe or a socket, also through links: it can be written into, but neither replaced nor read again. */
export async function isSpecial(file: string): Promise<boolean> {
  const info = await stat(file).catch(() => undefined);
  return info !== undefined && !info.isFile() && !info.isDirectory();
}

/** As many links as Linux follows. */
const MAX_LINKS = 40;

/** Where a path leads through symbolic links, absolute; there may be nothing there yet. Throws `invalid-input`. */
export async function targetOf(file: string): Promise<string> {
  let target = path.resolve(file);
  for (let i = 0; i <= MAX_LINKS; i++) {
    const info = await lstat(target).catch(() => undefined);
    if (!info?.isSymbolicLink()) return target;
    target = path.resolve(path.dirname(target), await readlink(target));
  }
  throw invalidInput(`${file} cannot be written: its symbolic links lead in a circle. Choose another place.`);
}

async function nearestExisting(file: string): Promise<string> {
  const parent = path.dirname(file);
  const exists = await stat(file).then(
    () => true,
    () => false,
  );
  return exists || parent === file ? file : nearestExisting(parent);
}

/** mkdir -p; Node's own `recursive` never returns where a folder refuses children (below /proc). */
export async function makeFolder(folder: string): Promise<void> {
  if (await isFolder(folder)) return;
  await makeFolder(path.dirname(folder));
  await mkdir(folder).catch(async (error: unknown) => {
    if (!(await isFolder(folder))) throw error;
  });
}

/**
 * A regular file is written whole or not at all: beside itself first, then renamed; it keeps its permissions. A device or
 * a pipe gets the bytes. Throws `invalid-input`.
 */
export async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  try {
    if (await isStdout(file)) await writeStdout(bytes);
    else if (await isSpecial(file)) await writeInto(file, bytes);
    else await replace(await targetOf(file), bytes);
  } catch (error) {
    throw invalidInput(`${file} cannot be written: ${(error as Error).message}. Choose another place.`);
  }
}

async function replace(target: string, bytes: Uint8Array): Promise<void> {
  const partial = `${target}.${process.pid}.partial`;
  try {
    await makeFolder(path.dirname(target));
    const before = await stat(target).catch(() => undefined);
    await writeFile(partial, bytes);
    if (before) await chmod(partial, before.mode);
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {}); // there may not even be a folder to look in
    throw error;
  }
}

/** Without creating or truncating anything: neither means anything to a device or a pipe. */
async function writeInto(file: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(file, constants.O_WRONLY);
  try {
    await handle.writeFile(bytes);
  } finally {
    await handle.close();
  }
}

/** Whether a path is this process's standard output: /dev/stdout, or the file or pipe that it was redirected to. */
async function isStdout(file: string): Promise<boolean> {
  const info = await stat(file).catch(() => undefined);
  if (!info || info.isDirectory()) return false;
  try {
    const { dev, ino } = fstatSync(1);
    return info.dev === dev && info.ino === ino;
  } catch {
    return false; // closed
  }
}

let isStdoutTaken = false;

/** Through the stream: a second opening of a redirected file would begin at its start again, under what follows. */
async function writeStdout(bytes: Uint8Array): Promise<void> {
  isStdoutTaken = true;
  await new Promise<void>((resolve, reject) =>
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve())),
  );
}

/** A line about what was done: on standard output, unless a result itself went there. */
export function tell(line: string): void {
  if (isStdoutTaken) console.error(line);
  else console.log(line);
}
