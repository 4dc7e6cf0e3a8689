/** Reads a component's config.json key by key: typed, with the constructor's defaults, errors that name the file. */
import { MixdqError } from "./errors.ts";

const ADVICE = "Correct the file, or use a model that this engine can run.";

export class Config {
  readonly where: string;
  readonly values: Readonly<Record<string, unknown>>;

  constructor(where: string, values: unknown) {
    if (typeof values !== "object" || values === null || Array.isArray(values))
      throw new MixdqError(
        "invalid-model",
        `${where}: got ${JSON.stringify(values)}, expected a JSON object with the component's settings. ${ADVICE}`,
      );
    this.where = where;
    this.values = values as Record<string, unknown>;
  }

  get className(): string {
    return this.string("_class_name", "");
  }

  /** A positive integer. */
  integer(key: string, fallback?: number): number {
    const value = this.#get(key, fallback);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 1) this.fail(key, "a positive integer");
    return value;
  }

  number(key: string, fallback?: number): number {
    const value = this.#get(key, fallback);
    if (typeof value !== "number" || !Number.isFinite(value)) this.fail(key, "a number");
    return value;
  }

  boolean(key: string, fallback?: boolean): boolean {
    const value = this.#get(key, fallback);
    if (typeof value !== "boolean") this.fail(key, "true or false");
    return value;
  }

  string(key: string, fallback?: string): string {
    const value = this.#get(key, fallback);
    if (typeof value !== "string") this.fail(key, "a string");
    return value;
  }

  integers(key: string, fallback?: readonly number[]): readonly number[] {
    const value = this.#get(key, fallback);
    if (!Array.isArray(value) || value.length === 0 || value.some((n) => !Number.isSafeInteger(n) || n < 1))
      this.fail(key, "a list of positive integers");
    return value as number[];
  }

  strings(key: string): readonly string[] {
    const value = this.#get(key, undefined);
    if (!Array.isArray(value) || value.length === 0 || value.some((s) => typeof s !== "string"))
      this.fail(key, "a list of strings");
    return value as string[];
  }

  /** undefined where the key is missing or null. */
  optional<T>(key: string, read: (key: string) => T): T | undefined {
    return this.values[key] === undefined || this.values[key] === null ? undefined : read(key);
  }

  /** Refuses a setting that changes the computation in a way this engine does not have. */
  only(key: string, ...allowed: unknown[]): void {
    const value = this.values[key];
    if (value === undefined || value === null || allowed.includes(value)) return;
    this.fail(key, allowed.length > 0 ? allowed.map((a) => JSON.stringify(a)).join(" or ") : "null");
  }

  fail(key: string, expected: string): never {
    const got = JSON.stringify(this.values[key]) ?? "nothing";
    throw new MixdqError("invalid-model", `${this.where}: "${key}" is ${got}, expected ${expected}. ${ADVICE}`);
  }

  #get<T>(key: string, fallback: T): unknown {
    return this.values[key] ?? fallback;
  }
}
