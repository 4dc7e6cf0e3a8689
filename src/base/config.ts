/** Reads a component's config.json key by key: typed, with the constructor's defaults, errors that name the file. */
import { Json, listed, readJson } from "./json.ts";

/** SDXL's largest config has 2 KB. */
export const MAX_CONFIG_CHARACTERS = 2 ** 20;
/** Of a width or a vocabulary: SDXL's vocabulary has 49,408, its widest layer 10,240. */
const MAX_SIZE = 2 ** 20;

const ADVICE = "Correct the file, or use a model that this engine can run.";

/** The text of a config.json. Throws `invalid-model`; `where` is the file, for messages. */
export const parseConfigText = (text: string, where: string): unknown =>
  readJson(
    text,
    { ...sourceOf(where), advice: "Save the model again." },
    { most: MAX_CONFIG_CHARACTERS, what: "a component's settings" },
  ).value;

const sourceOf = (where: string) => ({ where, code: "invalid-model", advice: ADVICE }) as const;

export class Config {
  readonly where: string;
  readonly values: Readonly<Record<string, unknown>>;
  readonly #json: Json;

  /** Throws `invalid-model` for anything but an object. */
  constructor(where: string, values: unknown, advice = ADVICE) {
    this.#json = new Json(values, { ...sourceOf(where), advice });
    this.values = this.#json.object();
    this.where = where;
  }

  get className(): string {
    return this.string("_class_name", "");
  }

  /** The key's value, or `fallback` where it is missing or null. */
  get(key: string, fallback?: unknown): Json {
    return this.#json.get(key).or(fallback);
  }

  /** A positive integer of at most `most`. */
  integer(key: string, fallback?: number, most = MAX_SIZE): number {
    return this.get(key, fallback).integer(1, most);
  }

  /** A finite number within the bounds. */
  number(key: string, fallback?: number, least?: number, most?: number): number {
    return this.get(key, fallback).number(least, most);
  }

  boolean(key: string, fallback?: boolean): boolean {
    return this.get(key, fallback).boolean();
  }

  string(key: string, fallback?: string): string {
    return this.get(key, fallback).string();
  }

  oneOf<T extends string | null>(key: string, choices: readonly T[], fallback?: T): T {
    return this.get(key, fallback).oneOf(choices);
  }

  /** One to `mostItems` integers from `least` to `most`. */
  integers(
    key: string,
    fallback: readonly number[] | undefined,
    mostItems: number,
    most = MAX_SIZE,
    least = 1,
  ): readonly number[] {
    return this.get(key, fallback)
      .items(1, mostItems)
      .map((item) => item.integer(least, most));
  }

  strings(key: string, mostItems: number): readonly string[] {
    return this.get(key)
      .items(1, mostItems)
      .map((item) => item.string());
  }

  /** undefined where the key is missing or null. */
  optional<T>(key: string, read: (key: string) => T): T | undefined {
    return this.get(key).isMissing ? undefined : read(key);
  }

  /** Refuses a setting that changes the computation in a way this engine does not have. */
  only(key: string, ...allowed: unknown[]): void {
    const { value, isMissing } = this.get(key);
    if (isMissing || allowed.includes(value)) return;
    this.fail(key, allowed.length > 0 ? listed(allowed) : "null");
  }

  fail(key: string, expected: string): never {
    return this.#json.get(key).fail(expected);
  }
}
