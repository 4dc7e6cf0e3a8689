/** What is kept of models on this device: looked at, asked about, deleted. */
import { MixdqError } from "../base/errors.ts";
import type { Precision } from "../base/types.ts";
import { nameOfModel, remoteFiles } from "../weights/address.ts";
import { deleteModel, keptFiles, keptModel, listModels, type KeptModel } from "../weights/cache/models.ts";
import { cacheStorage } from "../weights/cache/open.ts";
import { memoryStorage, type Storage } from "../weights/cache/storage.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findWeights } from "../weights/modelWeights.ts";
import { modelAddress } from "./env.ts";

/** A model of which something is kept. */
export interface CachedModel {
  /** As createEngine takes it: a hub's id, or an address without password and query. */
  readonly model: string;
  /** What it takes on this device. */
  readonly bytes: number;
  readonly lastUsed: Date;
  /** Whether all weights of one precision are there; else a load goes on with what is. */
  readonly isComplete: boolean;
}

let memory: Storage | undefined;

/** For pages without a file system; as long as the page lives. */
export const pageMemory = (): Storage => (memory ??= memoryStorage());

/** Asks the browser not to clear this site's storage by itself. Some ask their user; only a page may ask. */
export async function persistStorage(): Promise<boolean> {
  const { storage } = globalThis.navigator as Partial<Navigator>;
  if (await storage?.persisted?.()) return true;
  return (await storage?.persist?.()) ?? false;
}

/** The models that are kept, last used first; none where nothing can be kept. */
export async function listCachedModels(): Promise<readonly CachedModel[]> {
  const storage = await cacheStorage(pageMemory());
  if (!storage) return [];
  const named = (await listModels(storage)).filter(({ name }) => name !== "");
  return Promise.all(
    named.map(async ({ name: model, key, bytes, usedAt }) => {
      const isComplete = await isWhole(keptFiles({ storage, key, name: model }));
      return { model, bytes, lastUsed: new Date(usedAt), isComplete };
    }),
  );
}

/**
 * Whether all weights of a model are kept, so that it loads without a network: of `precision`, or of any. `model` as for
 * createEngine. Throws `invalid-input` for what is no model's name.
 */
export async function hasModelInCache(model: string, precision?: Precision): Promise<boolean> {
  const kept = await find(model);
  return kept !== undefined && isWhole(keptFiles(kept), precision);
}

/**
 * Deletes what is kept of a model, if anything is. Throws `busy` while it is being loaded, in this tab or in another, and
 * `invalid-input`.
 */
export async function deleteModelInCache(model: string): Promise<void> {
  const kept = await find(model);
  if (kept === undefined || (await deleteModel(kept))) return;
  throw new MixdqError(
    "busy",
    `${kept.name} is being loaded, here or in another tab. Wait for it, or dispose of the engine.`,
  );
}

async function find(model: string): Promise<KeptModel | undefined> {
  const address = modelAddress(model);
  const storage = await cacheStorage(pageMemory());
  return storage && keptModel(storage, remoteFiles(address).location, nameOfModel(address));
}

/** fp16 and the integers read the same files. */
async function isWhole(files: ModelFiles, precision?: Precision): Promise<boolean> {
  for (const each of precision === undefined ? (["fp16", "fp32"] as const) : [precision]) {
    try {
      const { paths } = await findWeights(files, each);
      const sizes = await Promise.all(paths.map((path) => files.size!(path)));
      if (sizes.every((size) => size !== undefined)) return true;
    } catch (error) {
      if (!(error instanceof MixdqError)) throw error; // something that it names is not there
    }
  }
  return false;
}
