/** A model's files as an engine reads them: from the network, and from what is kept of it on this device. */
import { MixdqError } from "../../base/errors.ts";
import { nameOfModel, remoteFiles, type ModelAddress } from "../address.ts";
import type { ModelFiles } from "../files.ts";
import type { HttpOptions } from "../http.ts";
import { cachedFiles, type CacheOptions } from "./cachedFiles.ts";
import { keptModel } from "./models.ts";
import { opfsStorage } from "./opfs.ts";
import type { Storage } from "./storage.ts";

export interface KeepOptions extends Omit<HttpOptions, "token">, Pick<CacheOptions, "persist"> {
  /** true: kept, or an error; false: neither kept nor taken from what is; undefined: kept where there is room. */
  readonly cache?: boolean | undefined;
  /** For browsers that have no file system for this page. */
  readonly memory?: Storage | undefined;
}

/** Throws `invalid-input` for an address that is none, `unsupported` where nothing can be kept and must be. */
export async function openAddress(address: ModelAddress, options: KeepOptions): Promise<ModelFiles> {
  const { cache, memory, persist, ...http } = options;
  const source = remoteFiles(address, http);
  if (cache === false) return source;
  const storage = await cacheStorage(memory);
  if (!storage) {
    if (!cache) return source;
    throw new MixdqError(
      "unsupported",
      "cache: true needs a page over https:// or on localhost: this one may keep no files. Leave the option out.",
    );
  }
  const model = await keptModel(storage, source.location, nameOfModel(address));
  return cachedFiles(source, { model, mustKeep: cache === true, persist });
}

/** Where this page's models are kept; undefined where nothing can be, or not be checked. */
export async function cacheStorage(memory?: Storage): Promise<Storage | undefined> {
  if ((globalThis.crypto as Crypto | undefined)?.subtle === undefined) return undefined;
  return (await opfsStorage()) ?? memory;
}
