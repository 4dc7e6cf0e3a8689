/**
 * The one reader of untrusted JSON: text to values within limits (jsonText.ts), and values to types, with one
 * message for whatever is not as expected: where, got, expected, what to do.
 */
import { MixdqError, type ErrorCode } from "./errors.ts";
import { JsonSyntaxError, parseJsonText, type ParseOptions } from "./jsonText.ts";
import { printable, show } from "./printable.ts";

export { show };

/** A file, or whatever the JSON comes from, and how its faults are reported. */
export interface JsonSource {
  /** For messages: the file or address. */
  readonly where: string;
  readonly code: ErrorCode;
  /** What to do about a fault; a sentence. */
  readonly advice: string;
}

export interface JsonTextOptions extends ParseOptions {
  /** Characters that the text may have. */
  readonly most: number;
  /** What the text should be, for messages. Default: JSON. */
  readonly what?: string;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Throws the source's error for text that is too long or not JSON. */
export function readJson(text: string, source: JsonSource, options: JsonTextOptions): Json {
  const { most, what = "JSON" } = options;
  const root = new Json(undefined, source);
  if (text.length > most) throw root.error(`${text.length} characters`, `at most ${most}`);
  try {
    return new Json(parseJsonText(text, options), source);
  } catch (cause) {
    if (!(cause instanceof JsonSyntaxError)) throw cause;
    throw root.error(`something that is not JSON (${cause.message})`, what, cause);
  }
}

/** A value of a foreign file, and where in the file it is. Every method that reads throws the source's error. */
export class Json {
  /** undefined where the file has none. */
  readonly value: unknown;
  readonly #source: JsonSource;
  readonly #parent: Json | undefined;
  readonly #key: string | number;

  constructor(value: unknown, source: JsonSource, parent?: Json, key: string | number = "") {
    this.value = value;
    this.#source = source;
    this.#parent = parent;
    this.#key = key;
  }

  /** null counts as missing: programs that write absent values so mean the default. */
  get isMissing(): boolean {
    return this.value === undefined || this.value === null;
  }

  /** An error-only view of something else in this place of the file. */
  at(name: string): Json {
    return new Json(undefined, this.#source, this, name);
  }

  /** The same value for messages called `name` and in `place`: an entry that has said its own name. */
  named(name: string, place: Json): Json {
    return new Json(this.value, this.#source, place, name);
  }

  /** `fallback` where the value is missing. */
  or(fallback: unknown): Json {
    return this.isMissing ? new Json(fallback, this.#source, this.#parent, this.#key) : this;
  }

  object(): Readonly<Record<string, unknown>> {
    return isObject(this.value) ? this.value : this.fail("a JSON object");
  }

  /** A key's value, missing or not; of an object. */
  get(key: string): Json {
    const object = this.object();
    return new Json(Object.hasOwn(object, key) ? object[key] : undefined, this.#source, this, key);
  }

  /** Keys and values of an object that has `least` to `most` of `what`. */
  entries(what: string, least: number, most: number): [string, Json][] {
    const object = this.object();
    const keys = Object.keys(object);
    if (keys.length < least || keys.length > most)
      throw this.inside(`${keys.length} ${what}`, least > 0 ? `${least} to ${most}` : `at most ${most}`);
    return keys.map((key) => [key, new Json(object[key], this.#source, this, key)]);
  }

  /** Throws for a key that is none of these: it would be a setting that does nothing. */
  onlyKeys(keys: readonly string[]): void {
    const unknown = Object.keys(this.object()).find((key) => !keys.includes(key));
    if (unknown !== undefined) throw this.inside(`the key ${show(unknown)}`, `only ${keys.join(", ")}`);
  }

  items(least: number, most: number): Json[] {
    if (!Array.isArray(this.value)) this.fail("a list");
    const { length } = this.value as unknown[];
    if (length < least || length > most)
      throw this.inside(`${length} items`, least > 0 ? `${least} to ${most}` : `at most ${most}`);
    return Array.from(this.value as unknown[], (item, i) => new Json(item, this.#source, this, i));
  }

  integer(least: number, most: number): number {
    const { value } = this;
    return Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most
      ? // Never a negative zero.
        (value as number) + 0
      : this.fail(
          `a whole number ${most < Number.MAX_SAFE_INTEGER ? `from ${least} to ${most}` : `of at least ${least}`}`,
        );
  }

  /** A finite number. */
  number(least = -Number.MAX_VALUE, most = Number.MAX_VALUE): number {
    const { value } = this;
    if (typeof value === "number" && value >= least && value <= most) return value;
    return this.fail(
      least === -Number.MAX_VALUE && most === Number.MAX_VALUE
        ? "a finite number"
        : most === Number.MAX_VALUE
          ? `a finite number of at least ${least}`
          : `a finite number from ${least} to ${most}`,
    );
  }

  /** A finite number that stays one in float32. */
  float32(): number {
    const { value } = this;
    if (typeof value === "number" && Number.isFinite(Math.fround(value))) return value;
    return this.fail("a finite number that float32 can hold");
  }

  boolean(): boolean {
    return typeof this.value === "boolean" ? this.value : this.fail("true or false");
  }

  string(expected = "a string"): string {
    return typeof this.value === "string" ? this.value : this.fail(expected);
  }

  /** A string that matches all of `pattern`. */
  matching(pattern: RegExp, expected: string): string {
    const text = this.string(expected);
    return pattern.test(text) ? text : this.fail(expected);
  }

  oneOf<T extends string | number | boolean | null>(choices: readonly T[]): T {
    const match = choices.find((choice) => choice === this.value);
    return match !== undefined ? match : this.fail(listed(choices));
  }

  /** Throws an error that says of this value what was expected. */
  fail(expected: string): never {
    throw this.error(show(this.value), expected);
  }

  /** An error about this value; `got` says what it is. */
  error(got: string, expected: string, cause?: unknown): MixdqError {
    const path = this.#path();
    const name = path.pop();
    return this.#failure(path, name === undefined ? got : `"${name}" ${got}`, expected, cause);
  }

  /** An error about something within this value. */
  inside(got: string, expected: string): MixdqError {
    return this.#failure(this.#path(), got, expected);
  }

  #failure(places: readonly string[], got: string, expected: string, cause?: unknown): MixdqError {
    const { where, code, advice } = this.#source;
    const message = `${[where, ...places].join(": ")}: got ${got}, expected ${expected}. ${advice}`;
    return new MixdqError(code, message, cause === undefined ? undefined : { cause });
  }

  /** From the outside in, items of a list behind its name: ["components", "unet", "tensors[3]"]. */
  #path(): string[] {
    if (this.#parent === undefined) return [];
    const path = this.#parent.#path();
    if (typeof this.#key === "string") path.push(printable(this.#key));
    else path.push(`${path.pop() ?? ""}[${this.#key}]`);
    return path;
  }
}

/** "a", "b" or "c". */
export function listed(choices: readonly unknown[]): string {
  const texts = choices.map((choice) => show(choice));
  return texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} or ${texts.at(-1)}`;
}
