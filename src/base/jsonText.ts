/**
 * JSON text to values, for untrusted files. The text is what Python's json writes: JSON, and `NaN`, `Infinity`
 * and `-Infinity`, which diffusers' own configs hold. Unlike JSON.parse: limits on nesting and on the number of values,
 * objects without a prototype (a key may be called anything), and no word of the text in a message but what is cut short.
 */
import { show } from "./printable.ts";

export interface ParseOptions {
  /** A key that an object has twice is an error. Default: the last one counts, as for Python. */
  readonly uniqueKeys?: boolean;
}

/** What is wrong with the text, and where: "a { without its }, in line 3, column 7". */
export class JsonSyntaxError extends Error {}

/** Files of this family nest six deep; the stack of a browser's worker holds some thousands. */
const MAX_DEPTH = 128;
/** SDXL's tokenizer.json has 250,000, a header of 100,000 tensors has 1,200,000. Each takes about 50 bytes. */
const MAX_VALUES = 4_000_000;
const SHOWN = 24;

const PLAIN = /[^"\\\u0000-\u001f]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const HEX = /[0-9a-fA-F]{4}/y;
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);
const WORDS: readonly (readonly [string, unknown])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
  ["NaN", Number.NaN],
  ["Infinity", Infinity],
  ["-Infinity", -Infinity],
];

/** Throws `JsonSyntaxError`. Time and memory are linear in the text. */
export function parseJsonText(text: string, options: ParseOptions = {}): unknown {
  return new Parser(text, options.uniqueKeys === true).whole();
}

/** undefined where the text is not JSON: for files of our own that may have been cut short. */
export function tryJsonText(text: string): unknown {
  try {
    return parseJsonText(text);
  } catch (error) {
    if (error instanceof JsonSyntaxError) return undefined;
    throw error;
  }
}

class Parser {
  readonly #text: string;
  readonly #uniqueKeys: boolean;
  #at = 0;
  #depth = 0;
  #values = 0;

  constructor(text: string, uniqueKeys: boolean) {
    this.#text = text;
    this.#uniqueKeys = uniqueKeys;
  }

  whole(): unknown {
    this.#skipSpace();
    const value = this.#value();
    this.#skipSpace();
    if (this.#at < this.#text.length) this.#fail(`${this.#here()} after its end`);
    return value;
  }

  #value(): unknown {
    if (++this.#values > MAX_VALUES) this.#fail(`more than ${MAX_VALUES} values`);
    switch (this.#text[this.#at]) {
      case "{":
        return this.#nested(() => this.#object());
      case "[":
        return this.#nested(() => this.#list());
      case '"':
        return this.#string();
    }
    const number = this.#match(NUMBER);
    if (number !== undefined) return Number(number);
    for (const [word, value] of WORDS)
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    return this.#fail(this.#here());
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#fail(`more than ${MAX_DEPTH} levels of nesting`);
    this.#at++;
    const value = read();
    this.#depth--;
    return value;
  }

  #object(): Record<string, unknown> {
    const object = Object.create(null) as Record<string, unknown>;
    this.#skipSpace();
    if (this.#take("}")) return object;
    do {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') this.#fail(`${this.#here()} instead of a key`);
      const key = this.#string();
      if (this.#uniqueKeys && key in object) this.#fail(`the key ${show(key)} twice`);
      this.#skipSpace();
      if (!this.#take(":")) this.#fail(`${this.#here()} instead of ":"`);
      this.#skipSpace();
      object[key] = this.#value();
      this.#skipSpace();
    } while (this.#take(","));
    if (!this.#take("}")) this.#fail(`${this.#here()} instead of "," or "}"`);
    return object;
  }

  #list(): unknown[] {
    const list: unknown[] = [];
    this.#skipSpace();
    if (this.#take("]")) return list;
    do {
      this.#skipSpace();
      list.push(this.#value());
      this.#skipSpace();
    } while (this.#take(","));
    if (!this.#take("]")) this.#fail(`${this.#here()} instead of "," or "]"`);
    return list;
  }

  #string(): string {
    this.#at++;
    let read = "";
    for (;;) {
      read += this.#match(PLAIN)!;
      if (this.#take('"')) return read;
      if (!this.#take("\\")) this.#fail(`${this.#here()} within a string`);
      read += this.#escape();
    }
  }

  #escape(): string {
    const letter = this.#text[this.#at++];
    const plain = ESCAPES.get(letter!);
    if (plain !== undefined) return plain;
    const code = letter === "u" ? this.#match(HEX) : undefined;
    if (code === undefined) this.#fail("a broken escape within a string");
    return String.fromCharCode(Number.parseInt(code, 16));
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.#text)) return undefined;
    const found = this.#text.slice(this.#at, pattern.lastIndex);
    this.#at = pattern.lastIndex;
    return found;
  }

  #skipSpace(): void {
    for (; this.#at < this.#text.length; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    }
  }

  #take(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #here(): string {
    return this.#at < this.#text.length ? show(this.#text.slice(this.#at, this.#at + SHOWN), SHOWN) : "an end";
  }

  #fail(what: string): never {
    let [line, begin] = [1, 0];
    for (let end = this.#text.indexOf("\n"); end >= 0 && end < this.#at; end = this.#text.indexOf("\n", begin)) {
      line++;
      begin = end + 1;
    }
    throw new JsonSyntaxError(`${what}, in line ${line}, column ${this.#at - begin + 1}`);
  }
}
