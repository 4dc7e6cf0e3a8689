/** Reading parts of the one file: by ranges where its source has them, else by passing over what lies before. */
import { MixdqError } from "../base/errors.ts";
import { ByteReader } from "../weights/byteReader.ts";
import { noSuchFile, type ByteSpan, type FileStream, type ModelFiles } from "../weights/files.ts";
import type { TensorEntry } from "../weights/header.ts";

/** A file among the files of its folder. */
export interface FileSource {
  readonly files: ModelFiles;
  readonly path: string;
}

/** For messages. */
export const whereOf = ({ files, path }: FileSource): string => `${files.location}/${path}`;

export async function openSource({ files, path }: FileSource, signal?: AbortSignal): Promise<FileStream> {
  const stream = await files.open(path, signal);
  if (stream === undefined) throw noSuchFile(files, path, "a model's file", "Check the model's address.");
  return stream;
}

/** A reader that stands at `begin`, and can go as far as `end`. */
async function readerAt(source: FileSource, { begin, end }: ByteSpan, signal?: AbortSignal): Promise<ByteReader> {
  const { files, path } = source;
  const part = await files.range?.(path, { begin, end }, signal);
  if (part) return new ByteReader(part.body, whereOf(source), signal);
  const whole = await openSource(source, signal);
  const reader = new ByteReader(whole.body, whereOf(source), signal);
  if ((await reader.skip(begin)) < begin) {
    await reader.close();
    throw cutShort(source, end);
  }
  return reader;
}

/** What lies between two tensors is read along up to here: a request costs more. */
const MAX_GAP = 2 ** 20;

/** The tensors' bytes, one after the other in the order of the file, each whole. `dataStart`: where the header ends. */
export async function* readEntries<T extends { readonly entry: TensorEntry }>(
  source: FileSource,
  dataStart: number,
  wanted: readonly T[],
  signal?: AbortSignal,
): AsyncGenerator<readonly [T, Uint8Array<ArrayBuffer>], void, undefined> {
  const sorted = wanted.toSorted((a, b) => a.entry.begin - b.entry.begin);
  for (let first = 0; first < sorted.length;) {
    let last = first;
    while (last + 1 < sorted.length && sorted[last + 1].entry.begin - sorted[last].entry.end <= MAX_GAP) last++;
    const run = sorted.slice(first, last + 1);
    first = last + 1;
    let at = dataStart + run[0].entry.begin;
    const reader = await readerAt(source, { begin: at, end: dataStart + run.at(-1)!.entry.end }, signal);
    try {
      for (const item of run) {
        const { begin, end } = item.entry;
        await reader.skip(dataStart + begin - at);
        const bytes = await reader.read(end - begin);
        at = dataStart + end;
        if (bytes.length < end - begin) throw cutShort(source, at);
        yield [item, bytes];
      }
    } finally {
      await reader.close();
    }
  }
}

function cutShort(source: FileSource, end: number): MixdqError {
  const message = `${whereOf(source)}: the file ends before byte ${end}, expected all of it. The file is cut short: download it again.`;
  return new MixdqError("integrity", message);
}
