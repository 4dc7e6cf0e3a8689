/**
 * What the page is set to, and its form in the URL's query: what differs from the default is in the query, so a link
 * makes the same picture again. Pure: reads and writes strings, touches no DOM.
 */
import { BACKENDS, PRECISIONS } from "../choices.ts";
import type { Backend, Precision } from "../types.ts";

export interface Settings {
  prompt: string;
  negative: string;
  /** undefined: another one each time. */
  seed: number | undefined;
  /** undefined: the model's own; the same for width, height and guidance. */
  steps: number | undefined;
  width: number | undefined;
  height: number | undefined;
  guidance: number | undefined;
  precision: Precision;
  model: string;
  backend: Backend;
  /** See src/debug.ts. Only in the query. */
  debug: number;
}

/** Prompts that the default model was trained on. */
export const EXAMPLES = [
  "a red house by the sea at sunset with two pine trees",
  "a white lighthouse by the sea at night",
  "a forest of pine trees in winter at noon with mountains",
  "a blue tent by a lake",
  "a castle on a hill at dawn",
];

export const DEFAULTS: Settings = {
  prompt: EXAMPLES[0],
  negative: "",
  seed: 42,
  steps: undefined,
  width: undefined,
  height: undefined,
  guidance: undefined,
  precision: "fp16",
  model: "models/postcard",
  backend: "webgpu",
  debug: 0,
};

/** The query's names, short because people type them. */
const NAMES = { width: "w", height: "h" } as const;

type Key = keyof Settings;
const queryName = (key: Key): string => (key in NAMES ? NAMES[key as keyof typeof NAMES] : key);

export function readSettings(query: string): Settings {
  const params = new URLSearchParams(query);
  const text = (key: Key): string | null => params.get(queryName(key));
  const number = (key: Key, fallback: number | undefined): number | undefined => {
    const value = text(key);
    if (value === null) return fallback;
    return value.trim() !== "" && Number.isFinite(Number(value)) ? Number(value) : undefined;
  };
  const choice = <T extends string>(key: Key, choices: readonly T[], fallback: T): T =>
    choices.find((value) => value === text(key)) ?? fallback;

  return {
    prompt: text("prompt") ?? DEFAULTS.prompt,
    negative: text("negative") ?? DEFAULTS.negative,
    seed: number("seed", DEFAULTS.seed),
    steps: number("steps", DEFAULTS.steps),
    width: number("width", DEFAULTS.width),
    height: number("height", DEFAULTS.height),
    guidance: number("guidance", DEFAULTS.guidance),
    precision: choice("precision", PRECISIONS, DEFAULTS.precision),
    model: text("model") || DEFAULTS.model,
    backend: choice("backend", BACKENDS, DEFAULTS.backend),
    debug: number("debug", DEFAULTS.debug) ?? DEFAULTS.debug,
  };
}

/** "" when everything is at its default, else "?prompt=…&seed=…". */
export function writeSettings(settings: Settings): string {
  const params = new URLSearchParams();
  for (const key of Object.keys(DEFAULTS) as Key[]) {
    if (settings[key] !== DEFAULTS[key]) params.set(queryName(key), String(settings[key] ?? ""));
  }
  const query = params.toString();
  return query && `?${query}`;
}

export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
