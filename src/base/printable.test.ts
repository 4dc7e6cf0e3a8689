import { expect, test } from "vitest";
import { MixdqError } from "./errors.ts";
import { asMessage, MAX_MESSAGE_BYTES, printable, show } from "./printable.ts";

test("nothing that a terminal obeys, or that turns a line around, is left", () => {
  expect(printable("a\u001b[2J\u009b1m\u007f\n\u202eb\u2028\ufeff\ud800c")).toBe(
    "a\\u001b[2J\\u009b1m\\u007f\\u000a\\u202eb\\u2028\\ufeff\\ud800c",
  );
  expect(printable("größe 😀 C:\\x")).toBe("größe 😀 C:\\x");
  expect(printable("\u{e0001}")).toBe("\\u{e0001}");
  expect(show("\u001b\u009b")).toBe('"\\u001b\\u009b"');
  expect(show({ "\u009b": 1 })).toBe('{"\\u009b":1}');
});

test("values are shown as JSON, and as Python writes what JSON has not", () => {
  for (const value of [null, true, 1.5, "a", [1, [2]], { a: { b: [] } }])
    expect(show(value)).toBe(JSON.stringify(value));
  expect([undefined, NaN, -Infinity].map((value) => show(value))).toEqual(["nothing", "NaN", "-Infinity"]);
});

test("nothing is longer than it may be, however long or deep it is", () => {
  expect(printable("x".repeat(1e6), 10)).toBe(`${"x".repeat(10)}…`);
  expect(printable("\u001b".repeat(9), 10)).toBe("\\u001b\\u00…");
  expect(show("x".repeat(1e6))).toBe(`"${"x".repeat(79)}…`);
  expect(show(Array(1e6).fill({ a: 1 })).length).toBe(81);
  let deep: unknown = 1;
  for (let i = 0; i < 20_000; i++) deep = i % 2 ? [deep] : { "": deep };
  expect(show(deep).length).toBe(81);
});

test("an error's message is one printable line of at most 2 kB, of which the ends are left", () => {
  const bytes = (text: string): number => new TextEncoder().encode(text).length;
  for (const name of ["x".repeat(90_000_000), "é\n\u001b".repeat(5000), "\u2028".repeat(900), "😀".repeat(600)]) {
    const { message } = new MixdqError("invalid-model", `a.json: ${name}: what to do.`);
    expect(bytes(message)).toBeLessThanOrEqual(MAX_MESSAGE_BYTES);
    expect(message).not.toMatch(/[\p{Cc}\p{Zl}\p{Cs}\ufffd]/u);
    expect(message).toMatch(/^a\.json: .* … .*: what to do\.$/u);
  }
  expect(asMessage("one\n  two")).toBe("one two");
  expect(asMessage("é".repeat(1000))).toBe("é".repeat(1000));
});
