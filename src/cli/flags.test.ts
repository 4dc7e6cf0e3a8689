/** Flags as values, and the usage that is made of them. */
import { expect, expectTypeOf, test } from "vitest";
import { invalidInput } from "../base/errors.ts";
import { command } from "./command.ts";
import * as flag from "./flags.ts";

const FLAGS = {
  out: flag.required(flag.text("FILE", "the file to write"), "the file to write"),
  prompt: flag.required(flag.text("TEXT", "what it shows"), "say what", true),
  steps: flag.withDefault(flag.integer("denoising steps"), 4),
  ratio: flag.number("of bits"),
  kind: flag.choice(["a", "b"], "which"),
  quick: flag.toggle("less exact"),
  bits: flag.widths("to choose from", [2, 4, 8]),
  start: flag.tensor("where it begins"),
};
const read = (...args: string[]) => flag.readFlags(["--out", "o", "--prompt", "p", ...args], FLAGS).flags;

test("flags become values of their types, with defaults", () => {
  expect(read()).toEqual({
    ...{ out: "o", prompt: "p", steps: 4, ratio: undefined, kind: undefined, quick: false },
    ...{ bits: undefined, start: undefined },
  });
  const values = read(
    "--steps=9",
    "--ratio",
    "-1.5e3",
    "--kind=b",
    "--quick",
    "--bits=8, 2,8",
    "--start",
    "a#b.st#key",
  );
  expect(values).toEqual({
    ...{ out: "o", prompt: "p", steps: 9, ratio: -1500, kind: "b", quick: true, bits: [2, 8] },
    start: { file: "a#b.st", key: "key", where: "--start a#b.st#key" },
  });
  expectTypeOf(values.steps).toEqualTypeOf<number>();
  expectTypeOf(values.ratio).toEqualTypeOf<number | undefined>();
  expectTypeOf(values.kind).toEqualTypeOf<"a" | "b" | undefined>();
});

test.each<[string[], string]>([
  [["--steps", "1.5"], "--steps 1.5: expected a whole number."],
  [["--steps", "-1"], "--steps -1: expected a whole number."],
  [["--ratio", ""], "--ratio : expected a number."],
  [["--kind", "c"], "--kind c: expected a, b."],
  [["--bits", "4,x"], "--bits 4,x: expected bit-widths of 2, 4, 8 with commas between them"],
  [["--bits", "3"], "--bits 3: expected bit-widths of 2, 4, 8"],
  [["--start", "file"], "--start file: expected FILE#KEY"],
  [["--start", "#key"], "--start #key: expected FILE#KEY"],
  [["--out", ""], "--out is missing: the file to write."],
  [["--stpes", "4"], "Unknown option '--stpes', did you mean --steps? This command knows --out, --prompt, "],
  [["--frobnicate"], "Unknown option '--frobnicate'. This command knows --out, "],
  [["--toString"], "Unknown option '--toString'. This command knows --out, "],
  [["-s", "4"], "Unknown option '--s'. This command knows --out, "],
  [["else"], 'Unexpected argument "else"'],
  [["--quick=yes"], "does not take an argument"],
])("%j is refused in one line", (args, says) => {
  expect(() => read(...args)).toThrow(expect.objectContaining({ code: "invalid-input" }));
  expect(() => read(...args)).toThrow(says);
});

test("a prompt may be empty, a file's name may not", () => {
  expect(flag.readFlags(["--out=o", "--prompt="], FLAGS).flags.prompt).toBe("");
  expect(() => flag.readFlags(["--out=o"], FLAGS)).toThrow("--prompt is missing: say what.");
});

test("a command's usage is its flags, and what must be given is in its first line", () => {
  const { usage } = command({
    name: "draw",
    summary: "a picture",
    flags: FLAGS,
    notes: ["Nothing else."],
    run: async () => {},
  });
  const lines = usage.split("\n");
  expect(lines[0]).toBe("mixdq draw --out FILE --prompt TEXT");
  expect(lines[1]).toBe("  a picture");
  expect(lines).toContain("  --steps N             denoising steps; default 4");
  expect(lines).toContain("  --quick               less exact");
  for (const name of Object.keys(FLAGS)) expect(usage).toContain(`  --${name}`);
  expect(lines.at(-1)).toBe("  Nothing else.");
  expect(Math.max(...lines.map(({ length }) => length))).toBeLessThanOrEqual(120);
});

test("what is wrong with a request is said of the flag", async () => {
  const run = async (): Promise<never> => {
    throw invalidInput("numInferenceSteps: got 0, expected more.");
  };
  const draw = command({ name: "draw", summary: "", flags: { steps: FLAGS.steps }, run });
  await expect(draw([])).rejects.toThrow(/^--steps: got 0, expected more\.$/);
  const other = command({ name: "other", summary: "", flags: {}, run });
  await expect(other([])).rejects.toThrow(/^numInferenceSteps: got 0/);
});

test("a command runs with its values, and a subcommand in its place", async () => {
  const seen: unknown[] = [];
  const merge = command({ name: "draw merge", summary: "", flags: {}, run: async () => void seen.push("merge") });
  const draw = command({
    ...{ name: "draw", summary: "", flags: { steps: FLAGS.steps }, subcommands: { merge } },
    positionals: { placeholder: "PATH", help: "where", most: 1 },
    run: async ({ steps }, paths) => void seen.push([steps, ...paths]),
  });
  await draw(["here", "--steps", "2"]);
  await draw(["merge"]);
  await draw(["constructor"]);
  expect(seen).toEqual([[2, "here"], "merge", [4, "constructor"]]);
  await expect(draw(["here", "there"])).rejects.toThrow('Unexpected argument "there"');
  expect(draw.usage).toMatch(/^mixdq draw PATH\n[^]*\n\nmixdq draw merge\n/);
});
