/** Files that commands write: refused before the work, written whole or not at all. */
import { access, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { constants } from "node:fs";
import path from "node:path";
import { invalidInput } from "../base/errors.ts";

/** Throws before the work, not after it, where a result could not be written. */
export async function assertWritable(file: string): Promise<void> {
  if (await isFolder(path.resolve(file)))
    throw invalidInput(`${file} cannot be written: it is a folder. Add a file name.`);
  // Folders are made when there is something to put into them: a run that fails leaves nothing behind.
  const folder = await nearestExisting(path.dirname(path.resolve(file)));
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

/** Writes the whole file or nothing: beside it first, then renamed. */
export async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  const partial = `${file}.${process.pid}.partial`;
  try {
    await makeFolder(path.dirname(path.resolve(file)));
    await writeFile(partial, bytes);
    await rename(partial, file);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {}); // there may not even be a folder to look in
    throw invalidInput(`${file} cannot be written: ${(error as Error).message}. Choose another place.`);
  }
}
