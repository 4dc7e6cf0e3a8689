import { invalidInput } from "../../base/errors.ts";
/** Pairs of pictures that a report shows. */
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { SamplePicture } from "../../mixdq/report/report.ts";

const REFERENCE = ".fp16.png";
const QUANTIZED = ".quantized.png";

/** NAME.fp16.png beside NAME.quantized.png, by name; none without a folder. Throws `invalid-input`. */
export async function readPictures(folder: string | undefined): Promise<SamplePicture[]> {
  if (folder === undefined) return [];
  const names = await readdir(folder).catch((error: Error) => {
    throw invalidInput(`--pictures ${folder} cannot be read: ${error.message}.`);
  });
  const titles = names.filter((name) => name.endsWith(REFERENCE)).map((name) => name.slice(0, -REFERENCE.length));
  const pairs = titles.filter((title) => names.includes(title + QUANTIZED)).sort();
  if (pairs.length === 0)
    throw invalidInput(`--pictures ${folder}: got no pairs, expected NAME${REFERENCE} beside NAME${QUANTIZED}.`);
  const read = (name: string): Promise<Uint8Array> => readFile(path.join(folder, name));
  const load = async (title: string): Promise<SamplePicture> => ({
    title,
    reference: await read(title + REFERENCE),
    quantized: await read(title + QUANTIZED),
  });
  return Promise.all(pairs.map(load));
}
