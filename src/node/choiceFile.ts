/** What the tuner measured, in a file of the user's cache folder. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import type { ChoiceStore } from "../gpu/choiceStore.ts";
import { isObject } from "../base/json.ts";
import { writeWhole } from "./outputFiles.ts";

/** More choices than this are of builds and drivers long gone. */
const MOST = 32;

/** `folder`: where caches lie; default $XDG_CACHE_HOME, else ~/.cache. */
export function choiceFile(folder = process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache")): ChoiceStore {
  const file = path.join(folder, "mixdq-web", "kernels.json");
  const read = async (): Promise<[string, unknown][]> => {
    const json: unknown = JSON.parse(await readFile(file, "utf8"));
    return isObject(json) ? Object.entries(json) : [];
  };
  return {
    async get(key) {
      const text = (await read()).find(([name]) => name === key)?.[1];
      return typeof text === "string" ? text : undefined;
    },
    async set(key, text) {
      const others = (await read().catch(() => [])).filter(([name]) => name !== key);
      const kept = Object.fromEntries([...others.slice(1 - MOST), [key, text]]);
      await writeWhole(file, new TextEncoder().encode(JSON.stringify(kept, undefined, 2)));
    },
  };
}
