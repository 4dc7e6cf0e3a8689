import { expect, test } from "vitest";
import { MixdqError } from "./errors.ts";
import { Json, readJson } from "./json.ts";
import { JsonSyntaxError, parseJsonText } from "./jsonText.ts";

const SOURCE = { where: "a.json", code: "invalid-model", advice: "Save it again." } as const;
const read = (text: string): Json => readJson(text, SOURCE, { most: 2 ** 26 });
const json = (value: unknown): Json => new Json(value, SOURCE);

/** As JSON.parse has it, but for the prototypes. */
test.each([
  "0",
  "-0.5e-3",
  "1e400",
  '"a\\u00e9\\n\\"\\\\\\/ \\ud83d\\ude00 😀"',
  '" \\ud800 alone"',
  "[]",
  "{}",
  ' { "a" : [ 1 , true , null , { "b" : [ [ ] ] } ] , "" : false }\r\n\t',
  '{"1":1,"0":0,"a":{"constructor":2}}',
  '{"a":1,"a":2}',
  '"' + "x".repeat(1e6) + '"',
])("%.40s is read as JSON.parse reads it", (text) => {
  expect(parseJsonText(text)).toEqual(JSON.parse(text));
});

test("what Python's json writes is read", () => {
  expect(parseJsonText('{"a": NaN, "b": [Infinity, -Infinity]}')).toEqual({ a: NaN, b: [Infinity, -Infinity] });
});

test.each([
  ["", "an end, in line 1, column 1"],
  ["[1,]", '"]", in line 1, column 4'],
  ["[1 2]", '"2]" instead of "," or "]"'],
  ["[1", "an end instead of"],
  ['{"a" 1}', '"1}" instead of ":"'],
  ['{"a":1,}', '"}" instead of a key'],
  ["{a:1}", '"a:1}" instead of a key'],
  ["1 2", '"2" after its end'],
  ["[\n01]", '"1]" instead of "," or "]", in line 2, column 2'],
  ["+1", '"+1"'],
  [".5", '".5"'],
  ["1.", '"." after its end'],
  ["nan", '"nan"'],
  ["'a'", "\"'a'\""],
  ['"a', "an end within a string"],
  ['"a\n"', '"\\n\\"" within a string'],
  ['"\\x41"', "a broken escape"],
  ['"\\u12g4"', "a broken escape"],
  ["\ufeff{}", '"\\ufeff{}"'],
  ["\u00a01", '"\u00a01"'],
])("%j is no JSON: %s", (text, message) => {
  expect(() => parseJsonText(text)).toThrow(JsonSyntaxError);
  expect(() => parseJsonText(text)).toThrow(message);
});

test("a key may be called anything, and gives an object nothing", () => {
  const value = parseJsonText('{"__proto__": {"polluted": 1}, "toString": 2}') as Record<string, unknown>;
  expect(Object.keys(value)).toEqual(["__proto__", "toString"]);
  expect(value["polluted"]).toBeUndefined();
  expect(value["constructor"]).toBeUndefined();
  expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
});

test("nesting and the number of values end at their limits, whatever the stack holds", () => {
  const nested = (levels: number): string => "[".repeat(levels) + "]".repeat(levels);
  expect(() => parseJsonText(nested(128))).not.toThrow();
  for (const levels of [129, 20_000, 1_000_000])
    expect(() => parseJsonText(nested(levels))).toThrow("more than 128 levels of nesting, in line 1, column 129");
  expect(() => parseJsonText('{"a":'.repeat(20_000))).toThrow("more than 128 levels");
  expect(() => parseJsonText(`[${"0,".repeat(4_000_000)}0]`)).toThrow("more than 4000000 values");
});

test("keys that must be unique are, at every depth", () => {
  expect(() => parseJsonText('{"a":{"b":1,"c":2,"b":3}}', { uniqueKeys: true })).toThrow('the key "b" twice');
  expect(() => parseJsonText('{"a":1,"\\u0061":2}', { uniqueKeys: true })).toThrow('the key "a" twice');
  expect(parseJsonText('{"a":{"b":1},"b":2}', { uniqueKeys: true })).toEqual({ a: { b: 1 }, b: 2 });
});

test("text that is too long or not JSON is refused with where, got, expected and what to do", () => {
  const refused = (text: string, most: number) => () => readJson(text, SOURCE, { most, what: "a config" });
  expect(refused("[1, 2]", 5)).toThrow("a.json: got 6 characters, expected at most 5. Save it again.");
  expect(refused("<html>", 9)).toThrow(
    'a.json: got something that is not JSON ("<html>", in line 1, column 1), expected a config. Save it again.',
  );
});

const FILE = read(
  `{"n": 1.5, "i": 7, "s": "x", "b": true, "z": null, "inf": Infinity, "l": [{"a": [1, "two"]}], "o": {}}`,
);

test.each<[string, () => unknown, string]>([
  ["a key of no object", () => FILE.get("l").get("a"), 'a.json: got "l" [{"a":[1,"two"]}], expected a JSON object'],
  ["half a number", () => FILE.get("n").integer(1, 9), 'got "n" 1.5, expected a whole number from 1 to 9'],
  ["a number above", () => FILE.get("i").integer(1, 6), 'got "i" 7, expected a whole number from 1 to 6'],
  ["infinity", () => FILE.get("inf").number(), 'got "inf" Infinity, expected a finite number'],
  [
    "infinity with bounds",
    () => FILE.get("inf").number(0, 1),
    'got "inf" Infinity, expected a finite number from 0 to 1',
  ],
  ["infinity for an integer", () => FILE.get("inf").integer(0, 9), 'got "inf" Infinity, expected a whole number'],
  ["what float32 does not hold", () => json(1e39).float32(), "got 1e+39, expected a finite number that float32 can"],
  ["no word", () => FILE.get("i").string(), 'got "i" 7, expected a string'],
  ["another word", () => FILE.get("s").matching(/^y/, "a y"), 'got "s" "x", expected a y'],
  ["none of the choices", () => FILE.get("s").oneOf(["a", "b", null]), 'got "s" "x", expected "a", "b" or null'],
  ["no truth", () => FILE.get("z").boolean(), 'got "z" null, expected true or false'],
  ["nothing", () => FILE.get("toString").string(), 'got "toString" nothing, expected a string'],
  ["a list too long", () => FILE.get("l").items(0, 0), "a.json: l: got 1 items, expected at most 0"],
  ["an object too small", () => FILE.get("o").entries("things", 1, 3), "a.json: o: got 0 things, expected 1 to 3"],
  ["an unknown key", () => FILE.onlyKeys(["n"]), 'a.json: got the key "i", expected only n'],
  [
    "an item deep within",
    () => FILE.get("l").items(1, 1)[0].get("a").items(2, 2)[1].number(),
    'a.json: l[0]: got "a[1]" "two", expected a finite number. Save it again.',
  ],
  ["an item of the whole", () => json([1]).items(1, 1)[0].string(), 'a.json: got "[0]" 1, expected a string'],
  ["what has a name", () => FILE.get("o").named("me", FILE).get("x").boolean(), 'a.json: me: got "x" nothing'],
])("%s is refused with its place", (_, get, message) => {
  expect(get).toThrow(MixdqError);
  expect(get).toThrow(message);
});

test("what is there is returned, and what is missing or null is what it is by default", () => {
  expect(FILE.get("i").or(3).integer(0, 9)).toBe(7);
  expect([FILE.get("z").or(3).integer(0, 9), FILE.get("no").or("d").string()]).toEqual([3, "d"]);
  expect([FILE.get("z").isMissing, FILE.get("no").isMissing, FILE.get("b").isMissing]).toEqual([true, true, false]);
  expect(Object.is(json(-0).integer(0, 1), 0)).toBe(true);
});
