/** A model's files that tell, once they have been read, whether they are the same as another time. */
import { createHash } from "node:crypto";
import { MixdqError } from "../base/errors.ts";
import { sizeOf, type FileStream, type ModelFiles } from "../weights/files.ts";
import { sha256 } from "./inputFiles.ts";

/**
 * The same files, and a hash over those that have been read to their end: what tells whether a model is still the one
 * that a recording was begun with.
 */
export function hashedFiles(files: ModelFiles): ModelFiles & { digest(): string } {
  const digests = new Map<string, string>();
  return {
    location: files.location,
    isLocal: files.isLocal,
    notes: files.notes,
    refusalOf: (name) => files.refusalOf?.(name),
    size: (name, signal) => sizeOf(files, name, signal),
    async text(name, signal) {
      const content = await files.text(name, signal);
      if (content !== undefined) digests.set(name, sha256(content));
      return content;
    },
    async open(name, signal): Promise<FileStream | undefined> {
      const stream = await files.open(name, signal);
      if (stream === undefined) return undefined;
      const hash = createHash("sha256");
      const body = stream.body.pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform(chunk, controller) {
            hash.update(chunk);
            controller.enqueue(chunk);
          },
          flush: () => void digests.set(name, hash.digest("hex")),
        }),
      );
      return { bytes: stream.bytes, body };
    },
    digest() {
      if (digests.size === 0) throw new MixdqError("invalid-model", `${files.location}: nothing was read.`);
      const lines = [...digests].sort(([a], [b]) => (a < b ? -1 : 1)).map((entry) => entry.join(" "));
      return sha256(lines.join("\n"));
    },
  };
}
