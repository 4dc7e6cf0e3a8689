/**
 * Where files are kept: named runs of bytes in folders one deep, read and written in place. Two browsers' worth of it are
 * opfs.ts and the one in memory below; all its functions can be called across a message port.
 */

export interface Storage {
  /** Bytes from `from` on: fewer at the file's end, none where there is no such file. */
  read(name: string, from: number, bytes: number): Promise<Uint8Array<ArrayBuffer>>;
  /** In place or at the end; makes the file. Throws an error named QuotaExceededError where there is no room. */
  write(name: string, at: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Nothing more will be written for now: it is on the disk then, and may be written by others. */
  close(name: string): Promise<void>;
  /** All files below a folder, without its name; none where there is no such folder. */
  list(folder: string): Promise<readonly StoredFile[]>;
  folders(): Promise<readonly string[]>;
  /** A folder, or a file as `folder/name`, if it is there. */
  remove(name: string): Promise<void>;
  /** Bytes; undefined where nobody knows. */
  room(): Promise<Room | undefined>;
  /** Whether this thread may write. */
  readonly isWritable: boolean;
}

export interface StoredFile {
  readonly name: string;
  readonly bytes: number;
}

export interface Room {
  readonly usage: number;
  readonly quota: number;
}

/** Also of Node's file systems. */
export function isQuotaError(error: unknown): boolean {
  const { name, code } = Object(error) as { name?: unknown; code?: unknown };
  return name === "QuotaExceededError" || code === "ENOSPC" || code === "EDQUOT";
}

export function quotaExceeded(): Error {
  return Object.assign(new Error("no room"), { name: "QuotaExceededError" });
}

/** What a page without a file system of its own may take: models of a few hundred megabytes are worth it, larger are not. */
const MEMORY_BYTES = 256 * 2 ** 20;

/** As long as this object lives. */
export function memoryStorage(quota = MEMORY_BYTES): Storage {
  /** Room grows by half, so that a file of many writes is not copied at each. */
  const files = new Map<string, { bytes: Uint8Array<ArrayBuffer>; length: number }>();
  const usage = (): number => [...files.values()].reduce((sum, { length }) => sum + length, 0);
  return {
    isWritable: true,
    async read(name, from, bytes) {
      const file = files.get(name);
      return file ? file.bytes.slice(from, Math.min(from + bytes, file.length)) : new Uint8Array();
    },
    async write(name, at, bytes) {
      const file = files.get(name) ?? { bytes: new Uint8Array(bytes.length), length: 0 };
      const length = Math.max(file.length, at + bytes.length);
      if (usage() + length - file.length > quota) throw quotaExceeded();
      if (length > file.bytes.length) {
        const larger = new Uint8Array(Math.max(length, Math.ceil(1.5 * file.bytes.length)));
        larger.set(file.bytes.subarray(0, file.length));
        file.bytes = larger;
      }
      file.bytes.set(bytes, at);
      file.length = length;
      files.set(name, file);
    },
    async close() {},
    async list(folder) {
      const below = [...files].filter(([name]) => name.startsWith(`${folder}/`));
      return below.map(([name, { length: bytes }]) => ({ name: name.slice(folder.length + 1), bytes }));
    },
    folders: async () => [...new Set([...files.keys()].map((name) => name.split("/")[0]))],
    async remove(name) {
      for (const each of [...files.keys()]) if (each === name || each.startsWith(`${name}/`)) files.delete(each);
    },
    room: async () => ({ usage: usage(), quota }),
  };
}
