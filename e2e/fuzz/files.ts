/** Files in memory: what a reader is given, and a folder of them as a loader sees it. */
import type { ModelFiles } from "../../src/weights/files.ts";

/** By name. */
export type Files = ReadonlyMap<string, string | Uint8Array>;

export const only = (name: string, content: string | Uint8Array): Files => new Map([[name, content]]);
export const textOf = (files: Files, name: string): string => content(files, name) ?? "";

export function content(files: Files, name: string): string | undefined {
  const found = files.get(name);
  return typeof found === "string" || found === undefined ? found : new TextDecoder().decode(found);
}

export function bytesOf(files: Files, name: string): Uint8Array<ArrayBuffer> {
  const found = files.get(name) ?? "";
  return typeof found === "string" ? new TextEncoder().encode(found) : new Uint8Array(found);
}

/** A folder in memory, in pieces of `chunk` bytes, whose sizes are known where `isSized`. */
export function folderOf(files: Files, chunk: number, isSized: boolean): ModelFiles {
  return {
    location: "model",
    text: async (name) => content(files, name),
    open: async (name) => {
      if (!files.has(name)) return undefined;
      const bytes = bytesOf(files, name);
      let at = 0;
      const body = new ReadableStream<Uint8Array>({
        pull: (controller) =>
          at < bytes.length ? controller.enqueue(bytes.slice(at, (at += chunk))) : controller.close(),
      });
      return { bytes: isSized ? bytes.length : 0, body };
    },
  };
}
