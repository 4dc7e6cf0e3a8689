/** Files in memory, for tests. */
import { Buffer } from "node:buffer";
import type { ModelFiles } from "../weights/files.ts";
import { writeSafetensors, type TensorToWrite } from "../weights/safetensors.ts";

/** `read` counts the bytes that were asked for, by path. */
export function memoryFiles(contents: Readonly<Record<string, string | Uint8Array>>): ModelFiles & {
  readonly read: Map<string, number>;
} {
  const read = new Map<string, number>();
  const bytesOf = (path: string): Uint8Array | undefined => {
    const content = contents[path];
    return typeof content === "string" ? Buffer.from(content) : content;
  };
  const stream = (path: string, bytes: Uint8Array) => ({
    bytes: bytes.length,
    body: new ReadableStream<Uint8Array>(
      {
        start(controller) {
          this.at = 0;
          void controller;
        },
        pull(controller) {
          const chunk = bytes.slice(this.at, (this.at += 1000));
          read.set(path, (read.get(path) ?? 0) + chunk.length);
          if (chunk.length === 0) controller.close();
          else controller.enqueue(chunk);
        },
      } as UnderlyingDefaultSource<Uint8Array> & { at: number },
      { highWaterMark: 0 },
    ),
  });
  return {
    location: "memory",
    read,
    text: async (path) => {
      const bytes = bytesOf(path);
      return bytes && Buffer.from(bytes).toString();
    },
    open: async (path) => {
      const bytes = bytesOf(path);
      return bytes && stream(path, bytes);
    },
    range: async (path, { begin, end }) => {
      const bytes = bytesOf(path);
      return bytes && stream(path, bytes.subarray(begin, end));
    },
    size: async (path) => bytesOf(path)?.length,
  };
}

/** A file of zeros, with the names and shapes given. */
export function zeros(shapes: Readonly<Record<string, readonly number[]>>): Uint8Array {
  const entries = Object.entries(shapes).map(([name, shape]): [string, TensorToWrite] => [
    name,
    { dtype: "F16", shape, data: new Uint16Array(shape.reduce((a, b) => a * b, 1)) },
  ]);
  return writeSafetensors(Object.fromEntries(entries));
}
