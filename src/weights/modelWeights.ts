/** Which files hold a model's weights, before any of them is read. */
import { findComponent, readJson } from "./folder.ts";
import type { ModelFiles } from "./files.ts";
import { openModel } from "./pack.ts";
import type { Precision } from "../base/types.ts";

export interface ModelWeights {
  /** 0 where headers and indexes do not say. */
  readonly bytes: number;
  readonly paths: readonly string[];
}

/** The components whose weights make a picture; a safety checker or an image encoder is not fetched. */
const COMPONENTS = ["unet", "vae", "text_encoder", "text_encoder_2"];

/** Of a folder in the variant that the precision wants, or of a pack. Throws what reading the files throws. */
export async function findWeights(
  source: ModelFiles,
  precision: Precision,
  signal?: AbortSignal,
): Promise<ModelWeights> {
  const { files, pack } = await openModel(source, signal);
  if (pack) {
    const { shards } = pack.manifest;
    return { bytes: shards.reduce((sum, { bytes }) => sum + bytes, 0), paths: shards.map(({ file }) => file) };
  }
  const index = await readJson(files, "model_index.json", signal);
  // [library, class]; [null, null] for a part that this model does without.
  const parts = Object.entries(index ?? {}).filter(([, entry]) => Array.isArray(entry) && entry[0] !== null);
  const names = parts.map(([name]) => name).filter((name) => COMPONENTS.includes(name));
  const found = await Promise.all(names.map((name) => findComponent(files, name, { precision, signal })));
  return { bytes: found.reduce((sum, { bytes }) => sum + bytes, 0), paths: found.flatMap(({ paths }) => paths) };
}
