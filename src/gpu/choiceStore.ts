/** Keeps what the tuner measured, per adapter and build: in memory, and in a store where the surroundings have one. */
import { isObject } from "../base/json.ts";
import { TILED, variantNames } from "../kernels/choices.ts";
import { FAMILIES, type DeviceFacts, type KernelChoice } from "../kernels/kernel.ts";
import type { GpuDevice } from "./device.ts";
import { SHADERS } from "./sources.ts";

/** Texts by key, for as long as the surroundings keep them. A store that fails costs a measurement, nothing else. */
export interface ChoiceStore {
  get(key: string): Promise<string | undefined>;
  set(key: string, text: string): Promise<void>;
}

const measured = new Map<string, Promise<KernelChoice>>();

/** The same adapter with the same features and the same shaders. */
export function choiceKey({ adapter, features, packedDot }: GpuDevice): string {
  return [adapter, ...features, packedDot ? "packed-dot" : "", digest()].join("|");
}

/** The choice that was kept, if all its variants are still there. */
export async function keptChoice(
  key: string,
  facts: DeviceFacts,
  store: ChoiceStore | undefined,
): Promise<KernelChoice | undefined> {
  const inMemory = measured.get(key);
  if (inMemory) return inMemory;
  const text = await store?.get(key).catch(() => undefined);
  return text === undefined ? undefined : readChoice(text, facts);
}

/** Keeps the measurement from now on, so that two engines that start together measure once; a failed one is forgotten. */
export async function keepChoice(
  key: string,
  choice: Promise<KernelChoice>,
  store: ChoiceStore | undefined,
): Promise<void> {
  measured.set(key, choice);
  try {
    await store?.set(key, JSON.stringify(await choice)).catch(() => {});
    await choice;
  } catch (error) {
    measured.delete(key);
    throw error;
  }
}

function readChoice(text: string, facts: DeviceFacts): KernelChoice | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isObject(json)) return undefined;
  const names = FAMILIES.map((family) => [family, json[family]] as const);
  const isKnown = names.every(([family, name]) => variantNames(family, facts).includes(name as string));
  return isKnown ? { ...TILED, ...Object.fromEntries(names) } : undefined;
}

/** FNV-1a over all shader texts, 32 bits: another build has another one. */
function digest(): string {
  let hash = 0x811c9dc5;
  for (const text of SHADERS.values())
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16);
}

/** The browser's own storage, in pages and workers alike; undefined where there is none (an insecure page). */
export function browserStore(): ChoiceStore | undefined {
  if (typeof caches === "undefined") return undefined;
  const address = (key: string): string => `https://mixdq-web.invalid/kernels/${encodeURIComponent(key)}`;
  return {
    get: async (key) => (await (await caches.open("mixdq-web kernels")).match(address(key)))?.text(),
    set: async (key, text) => (await caches.open("mixdq-web kernels")).put(address(key), new Response(text)),
  };
}
