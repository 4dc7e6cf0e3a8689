/**
 * What the page is set to, and its form in the URL's query: what differs from the default is in the query, so a link
 * makes the same picture again. Pure: reads and writes strings, touches no DOM.
 */
import { BACKENDS, PRECISIONS } from "../base/choices.ts";
import { parseSeed, type Seed } from "../base/seed.ts";
import type { Backend, Precision } from "../base/types.ts";

export interface Settings {
  prompt: string;
  negative: string;
  /** undefined: another one each time. */
  seed: Seed | undefined;
  /** undefined: the model's own; the same for width, height and guidance. */
  steps: number | undefined;
  width: number | undefined;
  height: number | undefined;
  guidance: number | undefined;
  /** One picture, or fp16 and `precision` of the same seed side by side. */
  mode: Mode;
  /** w8a8 or w4a8 in mode compare. */
  precision: Precision;
  model: string;
  /** URL of a bit-width configuration for w8a8 and w4a8; "": the model's own. */
  config: string;
  backend: Backend;
  /** What the shown difference is multiplied by, 1..32. */
  amplify: number;
  /** Where the divider stands, 0..100 % from the left. */
  split: number;
  /** Only in the query from here on. Another scheduler class than the model's own; "": that. */
  scheduler: string;
  /** With commas between them, instead of steps; "": as the scheduler makes them. */
  timesteps: string;
  eta: number | undefined;
  /** Guidance rescale, 0..1. */
  rescale: number | undefined;
  /** See src/base/debug.ts. */
  debug: number;
}

/** What the form has no field for. */
export type Unseen = Pick<Settings, "scheduler" | "timesteps" | "eta" | "rescale" | "debug">;

export type Mode = "picture" | "compare";
export const MODES: readonly Mode[] = ["picture", "compare"];

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
  mode: "picture",
  precision: "fp16",
  model: "models/postcard",
  config: "",
  backend: "webgpu",
  amplify: 8,
  split: 50,
  scheduler: "",
  timesteps: "",
  eta: undefined,
  rescale: undefined,
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

  const within = (key: Key, fallback: number, least: number, most: number): number =>
    Math.min(most, Math.max(least, Math.round(number(key, fallback) ?? fallback)));

  const mode = choice("mode", MODES, DEFAULTS.mode);
  const precision = choice("precision", PRECISIONS, DEFAULTS.precision);
  return {
    prompt: text("prompt") ?? DEFAULTS.prompt,
    negative: text("negative") ?? DEFAULTS.negative,
    seed: readSeed(text("seed")),
    steps: number("steps", DEFAULTS.steps),
    width: number("width", DEFAULTS.width),
    height: number("height", DEFAULTS.height),
    guidance: number("guidance", DEFAULTS.guidance),
    mode,
    precision: mode === "compare" ? comparable(precision) : precision,
    model: text("model") || DEFAULTS.model,
    config: text("config") ?? DEFAULTS.config,
    backend: choice("backend", BACKENDS, DEFAULTS.backend),
    amplify: within("amplify", DEFAULTS.amplify, 1, 32),
    split: within("split", DEFAULTS.split, 0, 100),
    scheduler: text("scheduler") ?? DEFAULTS.scheduler,
    timesteps: text("timesteps") ?? DEFAULTS.timesteps,
    eta: number("eta", DEFAULTS.eta),
    rescale: number("rescale", DEFAULTS.rescale),
    debug: number("debug", DEFAULTS.debug) ?? DEFAULTS.debug,
  };
}

/** What is no seed counts as none. */
export function readSeed(value: string | null): Seed | undefined {
  if (value === null) return DEFAULTS.seed;
  try {
    return parseSeed(value);
  } catch {
    return undefined;
  }
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

export const isQuantized = (precision: Precision): boolean => precision === "w8a8" || precision === "w4a8";

/** What fp16 is compared with: fp16 against itself would say nothing. */
export function comparable(precision: Precision): Precision {
  return isQuantized(precision) ? precision : "w4a8";
}

export function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
