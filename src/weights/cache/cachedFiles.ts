/**
 * A model's files, kept on this device as they are read: what is here and still what its source has is not fetched again,
 * what is here in part is gone on with, and where the source cannot be reached what is here is enough.
 */
import { MixdqError } from "../../base/errors.ts";
import {
  sizeOf,
  type Expected,
  type FileVersion,
  type ModelFiles,
  type RemoteFiles,
  type VersionedStream,
} from "../files.ts";
import { UnreachableError } from "../httpExchange.ts";
import { blockBytes, Journal, type Header } from "./journal.ts";
import { keptStream, type Parts } from "./keptFile.ts";
import { hold, type Release } from "./locks.ts";
import { dataOf, freeRoom, journalOf, keptBytes, touch, type KeptModel } from "./models.ts";
import { isQuotaError } from "./storage.ts";

export interface CacheOptions {
  readonly model: KeptModel;
  /** Whether a file that cannot be kept for want of room is an error. Otherwise it is read without being kept. */
  readonly mustKeep: boolean;
  /** Asks the browser not to clear what is kept when it needs room; called before more than a little is kept. */
  readonly persist?: (() => Promise<unknown>) | undefined;
}

/** Losing less is no reason to ask for anything. */
const WORTH_PERSISTING = 50e6;

const NOT_THERE: Header = {
  isThere: false,
  version: { bytes: 0, tag: undefined, isStrong: false },
  sha256: undefined,
  block: 1,
};

/** Throws what the source throws, and `quota` where files must be kept. */
export function cachedFiles(source: RemoteFiles, options: CacheOptions): ModelFiles {
  return new CachedFiles(source, options);
}

/** What becomes of a file: kept and current, wholly or in part; not kept, or as it was; not there. */
type State = "current" | "fetch" | "nowhere";

class CachedFiles implements ModelFiles {
  readonly location: string;
  readonly #source: RemoteFiles;
  readonly #options: CacheOptions;
  readonly #versions = new Map<string, Promise<FileVersion | undefined>>();
  /** Then what is kept counts without being asked about. */
  #isUnreachable = false;
  #touched: Promise<void> | undefined;
  /** Storage that fails is not asked again. */
  #isBroken = false;

  constructor(source: RemoteFiles, options: CacheOptions) {
    this.location = source.location;
    this.#source = source;
    this.#options = options;
  }

  refusalOf(path: string): string | undefined {
    return this.#source.refusalOf?.(path);
  }

  async size(path: string, signal?: AbortSignal): Promise<number | undefined> {
    const journal = await this.#journal(path);
    const state = await this.#stateOf(path, journal, undefined, signal);
    if (state === "current") return journal!.end ?? journal!.header.version.bytes;
    if (state === "nowhere") return undefined;
    const size = await sizeOf(this.#source, path, signal);
    if (size === undefined && this.#mayWrite()) await this.#attempt(() => this.#noteMissing(path));
    return size;
  }

  async text(path: string, signal?: AbortSignal, expected?: Expected): Promise<string | undefined> {
    const journal = await this.#journal(path);
    const state = await this.#stateOf(path, journal, expected, signal);
    if (state === "nowhere") return undefined;
    if (state === "current" && journal!.isComplete) return this.#keptText(path, journal!, signal);
    const file = await this.#source.textFile(path, signal);
    const keep = async (): Promise<void> => {
      if (!file) return this.#noteMissing(path);
      const bytes = new TextEncoder().encode(file.text);
      const release = await hold(`${this.#options.model.key}/${path}`, "exclusive", signal);
      try {
        const parts = await this.#begin(path, file.version, expected);
        const body = new Response(bytes).body!;
        await new Response(keptStream({ ...parts, bytes: bytes.length, fetch: async () => body })).arrayBuffer();
      } finally {
        release();
      }
    };
    if (this.#mayWrite()) await this.#attempt(keep);
    return file?.text;
  }

  async open(path: string, signal?: AbortSignal, expected?: Expected) {
    const releases: Release[] = [];
    const onEnd = async (): Promise<void> => releases.splice(0).forEach((release) => release());
    try {
      releases.push(await hold(this.#options.model.key, "shared", signal));
      let journal = await this.#journal(path);
      let state = await this.#stateOf(path, journal, expected, signal);
      const lock = async (): Promise<void> => {
        releases.push(await hold(`${this.#options.model.key}/${path}`, "exclusive", signal));
      };
      if (this.#mayWrite() && (state === "fetch" || (state === "current" && !journal!.isComplete))) {
        await lock();
        // Another tab may have had the lock, and kept the file.
        journal = await this.#journal(path);
        state = await this.#stateOf(path, journal, expected, signal);
      }
      const isLocked = releases.length > 1;
      const stream =
        state === "nowhere"
          ? undefined
          : state === "current"
            ? this.#kept(path, journal!, { isLocked, lock, signal, onEnd })
            : await this.#fetched(path, { isLocked, expected, signal, onEnd });
      if (stream === undefined) await onEnd();
      return stream;
    } catch (error) {
      await onEnd();
      throw error;
    }
  }

  async reserve(bytes: number): Promise<void> {
    const { model, mustKeep, persist } = this.#options;
    if (!this.#mayWrite()) return;
    await this.#attempt(async () => {
      const missing = bytes - (await keptBytes(model));
      if (missing <= 0) return;
      const lacking = await freeRoom(model, missing);
      if (lacking && mustKeep) throw noRoom(this.location, missing, lacking);
      if (missing >= WORTH_PERSISTING) await persist?.();
    });
  }

  async forget(path: string): Promise<void> {
    await this.#attempt(() => this.#drop(path));
  }

  /** What is to be done about a file: its source is asked, unless the caller knows the content. */
  async #stateOf(
    path: string,
    journal: Journal | undefined,
    expected: Expected | undefined,
    signal: AbortSignal | undefined,
  ): Promise<State> {
    if (!journal) return "fetch";
    const { header } = journal;
    if (expected) {
      const isSame = header.isThere && header.sha256 === expected.sha256;
      return isSame && (journal.isComplete || header.version.isStrong) ? "current" : "fetch";
    }
    const now = await this.#versionOf(path, journal, signal);
    if (now === "unknown") return header.isThere ? "current" : "nowhere";
    if (now === undefined) {
      if (header.isThere && this.#mayWrite()) await this.#attempt(() => this.#noteMissing(path));
      return "nowhere";
    }
    const { version } = header;
    const isSame = header.isThere && now.tag !== undefined && now.tag === version.tag;
    const hasLength = now.bytes === 0 || version.bytes === 0 || now.bytes === version.bytes;
    return isSame && hasLength && (journal.isComplete || version.isStrong) ? "current" : "fetch";
  }

  /** "unknown" where the source does not say and what is kept will do. */
  async #versionOf(
    path: string,
    journal: Journal,
    signal: AbortSignal | undefined,
  ): Promise<FileVersion | undefined | "unknown"> {
    const isEnough = journal.isComplete || !journal.header.isThere;
    if (this.#isUnreachable && isEnough) return "unknown";
    let asked = this.#versions.get(path);
    if (!asked) this.#versions.set(path, (asked = this.#source.version(path, signal)));
    try {
      return await asked;
    } catch (error) {
      this.#versions.delete(path);
      if (!(error instanceof MixdqError) || error.code !== "network" || !isEnough) throw error;
      if (error instanceof UnreachableError) this.#isUnreachable = true;
      return "unknown";
    }
  }

  #kept(
    path: string,
    journal: Journal,
    {
      isLocked,
      lock,
      signal,
      onEnd,
    }: { isLocked: boolean; lock(): Promise<void>; signal: AbortSignal | undefined; onEnd(): Promise<void> },
  ) {
    const { version } = journal.header;
    const bytes = journal.end ?? version.bytes;
    const body = keptStream({
      ...this.#parts(path, journal, onEnd),
      bytes,
      fetch: (from, end) => this.#rest(path, journal, from, Math.min(end, bytes), signal),
      mayWrite: async () => {
        if (!this.#mayWrite()) return false;
        if (!isLocked) await lock();
        return true;
      },
    });
    return { bytes, body, version };
  }

  /** What is missing of a file that is kept in part. */
  async #rest(
    path: string,
    { header: { version }, end: wasComplete }: Journal,
    from: number,
    end: number,
    signal: AbortSignal | undefined,
  ): Promise<ReadableStream<Uint8Array>> {
    const damaged = `${this.location}/${path}: the copy on this device is damaged at byte ${from}`;
    try {
      if (!version.isStrong) throw new MixdqError("integrity", `${damaged}. Load the model again.`);
      return await this.#source.part(path, { from, end, version }, signal);
    } catch (error) {
      // A file that has changed is not gone on with, the next time either.
      if (error instanceof MixdqError && error.code === "integrity") await this.forget(path);
      if (!(error instanceof UnreachableError) || wasComplete === undefined) throw error;
      throw new MixdqError("integrity", `${damaged}, and its source cannot be reached. Connect and load it again.`, {
        cause: error,
      });
    }
  }

  async #fetched(
    path: string,
    {
      isLocked,
      expected,
      signal,
      onEnd,
    }: { isLocked: boolean; expected: Expected | undefined; signal: AbortSignal | undefined; onEnd(): Promise<void> },
  ): Promise<VersionedStream | undefined> {
    const file = await this.#source.openFile(path, signal);
    if (!file) {
      if (isLocked) await this.#attempt(() => this.#noteMissing(path));
      return undefined;
    }
    const parts = isLocked && (await this.#attempt(() => this.#begin(path, file.version, expected, onEnd)));
    if (!parts) {
      await onEnd();
      return file;
    }
    return { ...file, body: keptStream({ ...parts, fetch: async () => file.body }) };
  }

  /** An empty journal in place of what there was. */
  async #begin(
    path: string,
    version: FileVersion,
    expected: Expected | undefined,
    onEnd: () => Promise<void> = async () => {},
  ): Promise<Omit<Parts, "fetch">> {
    await this.#drop(path);
    const { model } = this.#options;
    const header = { isThere: true, version, sha256: expected?.sha256, block: blockBytes(version.bytes) };
    const journal = await Journal.begin(model.storage, journalOf(model, path), header);
    return this.#parts(path, journal, onEnd);
  }

  #parts(path: string, journal: Journal, onEnd: () => Promise<void>): Omit<Parts, "fetch"> {
    const { model, mustKeep } = this.#options;
    const where = `${this.location}/${path}`;
    const { bytes } = journal.header.version;
    let hasMadeRoom = false;
    return {
      ...{ where, storage: model.storage, data: dataOf(model, path), journal, bytes, onEnd },
      mayWrite: async () => this.#mayWrite(),
      onWriteError: async (error) => {
        if (!isQuotaError(error)) {
          this.#isBroken = true;
          return false;
        }
        const missing = Math.max(0, bytes - journal.bytes);
        const lacking = await freeRoom(model, missing).catch(() => ({ usage: 0, quota: 0 }));
        // The browser may say that there is room and mean something else: tried once.
        if (!lacking && !hasMadeRoom) return (hasMadeRoom = true);
        if (mustKeep) throw noRoom(where, missing, lacking);
        return false;
      },
    };
  }

  async #keptText(path: string, journal: Journal, signal: AbortSignal | undefined): Promise<string> {
    const { key } = this.#options.model;
    const releases = [await hold(key, "shared", signal)];
    const lock = async (): Promise<void> => void releases.push(await hold(`${key}/${path}`, "exclusive", signal));
    const onEnd = async (): Promise<void> => releases.splice(0).forEach((release) => release());
    const { body } = this.#kept(path, journal, { isLocked: false, lock, signal, onEnd });
    return new TextDecoder().decode(await new Response(body).arrayBuffer());
  }

  async #journal(path: string): Promise<Journal | undefined> {
    const { model } = this.#options;
    return this.#attempt(async () => {
      await (this.#touched ??= model.storage.isWritable ? touch(model) : Promise.resolve());
      return Journal.read(model.storage, journalOf(model, path));
    });
  }

  /** Then the next load without a network knows, too. */
  async #noteMissing(path: string): Promise<void> {
    const { model } = this.#options;
    await this.#drop(path);
    await (await Journal.begin(model.storage, journalOf(model, path), NOT_THERE)).close();
  }

  async #drop(path: string): Promise<void> {
    const { model } = this.#options;
    await model.storage.remove(journalOf(model, path));
    await model.storage.remove(dataOf(model, path));
  }

  #mayWrite(): boolean {
    return this.#options.model.storage.isWritable && !this.#isBroken;
  }

  /** A file system that fails is no reason not to load a model; want of room may be one. */
  async #attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    if (this.#isBroken) return undefined;
    try {
      return await work();
    } catch (error) {
      if (error instanceof MixdqError) throw error;
      if (!isQuotaError(error)) this.#isBroken = true;
      else if (this.#options.mustKeep) throw noRoom(this.location, 0, undefined);
      return undefined;
    }
  }
}

/** `room`: what the browser says there is; undefined where it refused although it said that there is enough. */
function noRoom(
  where: string,
  missing: number,
  room: { readonly usage: number; readonly quota: number } | undefined,
): MixdqError {
  const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6).toLocaleString("en")} MB`;
  const has = room
    ? `has ${megabytes(Math.max(0, room.quota - room.usage))} free of ${megabytes(room.quota)}`
    : "is full";
  return new MixdqError(
    "quota",
    `${where}: ${missing > 0 ? `${megabytes(missing)} are to be kept` : "a file is to be kept"}, and the browser's storage for this ` +
      `site ${has}. Free space on the disk, delete other models (deleteModelInCache), or load it without cache: true.`,
  );
}
