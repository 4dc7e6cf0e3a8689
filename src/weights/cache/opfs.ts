/**
 * The browser's file system of the page's own origin (OPFS). Workers write in place, through handles that one thread at a
 * time may hold; a page can read, list and delete. https://fs.spec.whatwg.org
 */
import type { Storage, StoredFile } from "./storage.ts";
import { quotaExceeded } from "./storage.ts";

/** One folder for all that this package keeps. */
const ROOT = "mixdq-web";

/** Only in dedicated workers, and so not among the types of pages. */
interface SyncHandle {
  read(into: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  flush(): void;
  close(): void;
}

interface WorkerFileHandle extends FileSystemFileHandle {
  createSyncAccessHandle(): Promise<SyncHandle>;
}

type Folder = FileSystemDirectoryHandle & { entries(): AsyncIterable<[string, FileSystemHandle]> };

/** undefined where the browser has none for this page: in private windows of some, in sandboxed frames, without https. */
export async function opfsStorage(): Promise<Storage | undefined> {
  try {
    const top = await navigator.storage.getDirectory();
    return storageIn((await top.getDirectoryHandle(ROOT, { create: true })) as Folder);
  } catch {
    return undefined;
  }
}

function storageIn(root: Folder): Storage {
  const writing = new Map<string, Promise<SyncHandle>>();

  async function fileOf(name: string, create: boolean): Promise<FileSystemFileHandle> {
    const [folder, file] = split(name);
    return (await root.getDirectoryHandle(folder, { create })).getFileHandle(file, { create });
  }

  async function handleOf(name: string): Promise<SyncHandle> {
    const open = async () => ((await fileOf(name, true)) as WorkerFileHandle).createSyncAccessHandle();
    const known = writing.get(name) ?? open();
    writing.set(name, known);
    known.catch(() => writing.delete(name));
    return known;
  }

  async function close(name: string): Promise<void> {
    const handle = await writing.get(name);
    writing.delete(name);
    handle?.flush();
    handle?.close();
  }

  return {
    isWritable: "createSyncAccessHandle" in FileSystemFileHandle.prototype,
    close,
    async read(name, from, bytes) {
      const open = writing.get(name);
      if (open) {
        const into = new Uint8Array(bytes);
        return into.subarray(0, (await open).read(into, { at: from }));
      }
      const file = await orNothing(fileOf(name, false).then((handle) => handle.getFile()));
      return file ? new Uint8Array(await file.slice(from, from + bytes).arrayBuffer()) : new Uint8Array();
    },
    async write(name, at, bytes) {
      const handle = await handleOf(name);
      // Some browsers throw, others write less.
      if (handle.write(bytes, { at }) < bytes.length) throw quotaExceeded();
    },
    async list(name) {
      const folder = (await orNothing(root.getDirectoryHandle(name))) as Folder | undefined;
      const files: StoredFile[] = [];
      for await (const [file, handle] of folder?.entries() ?? [])
        if (handle.kind === "file")
          files.push({ name: file, bytes: (await (handle as FileSystemFileHandle).getFile()).size });
      return files;
    },
    async folders() {
      const names: string[] = [];
      for await (const [name, { kind }] of root.entries()) if (kind === "directory") names.push(name);
      return names;
    },
    async remove(name) {
      for (const open of [...writing.keys()]) if (open === name || open.startsWith(`${name}/`)) await close(open);
      const [folder, file] = split(name);
      if (file === "") return void (await orNothing(root.removeEntry(folder, { recursive: true })));
      const parent = await orNothing(root.getDirectoryHandle(folder));
      if (parent) await orNothing(parent.removeEntry(file));
    },
    async room() {
      const { usage, quota } = await navigator.storage.estimate();
      return usage === undefined || quota === undefined ? undefined : { usage, quota };
    },
  };
}

function split(name: string): [folder: string, file: string] {
  const [folder, file = ""] = name.split("/") as [string, string?];
  return [folder, file];
}

async function orNothing<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if ((error as Error).name === "NotFoundError") return undefined;
    throw error;
  }
}
