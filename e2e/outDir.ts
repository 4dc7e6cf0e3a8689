/** Where tests build to: a folder for each of vitest's workers, which run two files at a time and would swap each other's. */
import path from "node:path";

const CACHE = path.resolve(import.meta.dirname, "../node_modules/.cache/mixdq-web");

export const outDirOf = (name: string): string => path.join(CACHE, `${name}-${process.env["VITEST_POOL_ID"] ?? "0"}`);
