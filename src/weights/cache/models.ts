/** The models that are kept: one folder each, with a file that says which it is and when it was last used. */
import { isObject } from "../../base/json.ts";
import { tryJsonText } from "../../base/jsonText.ts";
import type { ModelFiles } from "../files.ts";
import { sha256 } from "../sha256.ts";
import { Journal } from "./journal.ts";
import { keptStream } from "./keptFile.ts";
import { hold, holdIfFree } from "./locks.ts";
import type { Room, Storage } from "./storage.ts";

/** A model's place. */
export interface KeptModel {
  readonly storage: Storage;
  /** The folder's name. */
  readonly key: string;
  /** What it is called, as createEngine takes it, without secrets. */
  readonly name: string;
}

/** What is known of a kept model. */
export interface ModelEntry {
  readonly name: string;
  readonly key: string;
  readonly usedAt: number;
  /** Of its files, as far as they are here. */
  readonly bytes: number;
}

const ENTRY = "model.json";
const FORMAT = "mixdq-model";
const MAX_ENTRY_BYTES = 2 ** 16;

/** `location`: the files' address without secrets, which decides what is the same model. */
export async function keptModel(storage: Storage, location: string, name: string): Promise<KeptModel> {
  const digest = await sha256(new TextEncoder().encode(location));
  return { storage, key: digest.slice(0, 32), name };
}

/** Paths become names: a file system of one level has no folders in a name. */
export const dataOf = ({ key }: KeptModel, path: string): string => `${key}/${encodeURIComponent(path)}.data`;
export const journalOf = ({ key }: KeptModel, path: string): string => `${key}/${encodeURIComponent(path)}.kept`;

/** It is being used now. */
export async function touch({ storage, key, name }: KeptModel): Promise<void> {
  const text = JSON.stringify({ format: FORMAT, version: 1, name, usedAt: Date.now() });
  const file = `${key}/${ENTRY}`;
  const release = await holdIfFree(file);
  if (!release) return; // another tab says the same
  try {
    await storage.remove(file);
    await storage.write(file, 0, new TextEncoder().encode(text));
    await storage.close(file);
  } finally {
    release();
  }
}

/** All that is kept, last used first. */
export async function listModels(storage: Storage): Promise<ModelEntry[]> {
  const entries = await Promise.all((await storage.folders()).map((key) => readEntry(storage, key)));
  return entries.sort((a, b) => b.usedAt - a.usedAt);
}

/** A folder without a readable entry is one that nobody can ask for: the first to go. */
async function readEntry(storage: Storage, key: string): Promise<ModelEntry> {
  const [files, text] = await Promise.all([
    storage.list(key),
    storage.read(`${key}/${ENTRY}`, 0, MAX_ENTRY_BYTES).then((bytes) => new TextDecoder().decode(bytes)),
  ]);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const json = tryJsonText(text);
  const { name, usedAt } = isObject(json) && json["format"] === FORMAT ? json : {};
  return {
    ...{ key, bytes },
    name: typeof name === "string" ? name : "",
    usedAt: typeof usedAt === "number" && Number.isFinite(usedAt) ? usedAt : 0,
  };
}

/** false where it is being loaded, here or in another tab. */
export async function deleteModel({ storage, key }: Pick<KeptModel, "storage" | "key">): Promise<boolean> {
  const release = await holdIfFree(key);
  if (!release) return false;
  try {
    await storage.remove(key);
    return true;
  } finally {
    release();
  }
}

/** Of the model's data. */
export async function keptBytes({ storage, key }: Pick<KeptModel, "storage" | "key">): Promise<number> {
  const files = await storage.list(key);
  return files.reduce((sum, { name, bytes }) => sum + (name.endsWith(".data") ? bytes : 0), 0);
}

/** Kept free for what else an app stores. */
const SPARE_BYTES = 32e6;

/**
 * Makes room for so many bytes of a model by deleting the others, the longest unused first. What room there is where that is
 * not enough; undefined where it is, or nobody knows.
 */
export async function freeRoom({ storage, key }: KeptModel, bytes: number): Promise<Room | undefined> {
  let room = await storage.room();
  const isEnough = (): boolean => !room || room.quota - room.usage >= bytes + Math.min(SPARE_BYTES, 0.1 * room.quota);
  if (isEnough()) return undefined;
  const others = (await listModels(storage)).filter((model) => model.key !== key).reverse();
  for (const other of others) {
    if (!(await deleteModel({ storage, key: other.key }))) continue;
    room = await storage.room();
    if (isEnough()) return undefined;
  }
  return room;
}

/** What is kept of a model, whole files only, as if nothing else were there; for looking, and for exporting. */
export function keptFiles(model: KeptModel): ModelFiles {
  const { storage, key } = model;
  const find = async (path: string): Promise<Journal | undefined> => {
    const journal = await Journal.read(storage, journalOf(model, path));
    return journal?.isComplete ? journal : undefined;
  };
  const files: ModelFiles = {
    location: model.name,
    isLocal: true,
    size: async (path) => (await find(path))?.end,
    async text(path, signal) {
      const stream = await files.open(path, signal);
      return stream && new TextDecoder().decode(await new Response(stream.body).arrayBuffer());
    },
    async open(path, signal) {
      const journal = await find(path);
      if (!journal) return undefined;
      const release = await hold(key, "shared", signal);
      const body = keptStream({
        ...{ where: `${model.name}/${path}`, storage, data: dataOf(model, path), journal, bytes: journal.end! },
        fetch: async () => new Response("").body ?? new ReadableStream({ start: (controller) => controller.close() }),
        mayWrite: async () => false,
        onWriteError: async () => false,
        onEnd: async () => release(),
      });
      return { bytes: journal.end!, body };
    },
  };
  return files;
}
