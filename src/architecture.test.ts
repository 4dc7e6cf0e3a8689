/** What pages say of the code stays true: the files and the names that they give are there. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "..");
const read = (file: string): string => readFileSync(path.join(ROOT, file), "utf8");

const DOCS = readdirSync(path.join(ROOT, "docs")).filter((file) => file.endsWith(".md"));
const PAGES = [
  ...["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "BENCHMARKS.md", "CHANGELOG.md"],
  ...DOCS.map((file) => `docs/${file}`),
];

/** Everything in backticks, in a line or in a block. */
const codeOf = (page: string): string[] => [...page.matchAll(/```[\s\S]*?```|`[^`\n]+`/g)].map(([code]) => code);

test("every path that a page names exists", () => {
  const mentioned = /(?<![\w./-])(?:src|shaders|e2e|bench|docs|examples|packaging|packages|models|bin)\/[\w./*-]*/g;
  const missing = PAGES.flatMap((page) => {
    const text = read(page);
    const named = codeOf(text).flatMap((code) => [...code.matchAll(mentioned)].map(([found]) => found));
    const linked = [...text.matchAll(/\]\(([^)#:\s]+)(?:#[^)]*)?\)/g)].map(([, to]) =>
      path.posix.join(path.posix.dirname(page), to),
    );
    // Of a pattern with a star, the folder that it begins in.
    return [...named, ...linked]
      .map((file) => file.replace(/\*.*$/, "").replace(/\.$/, ""))
      .filter((file) => !existsSync(path.join(ROOT, file)))
      .map((file) => `${page}: ${file}`);
  });
  expect(missing).toEqual([]);
});

const ARCHITECTURE = read("ARCHITECTURE.md");
const isWordOf = (name: string, text: string): boolean => new RegExp(`(?<![\\w$])${name}(?![\\w$])`).test(text);

test("every room of src/ stands in ARCHITECTURE.md", () => {
  const folders = (of: string): string[] =>
    readdirSync(path.join(ROOT, of), { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [`${of}/${entry.name}`] : [],
    );
  const rooms = [...folders("src").filter((room) => room !== "src/mixdq"), ...folders("src/mixdq")];
  expect(rooms.filter((room) => !ARCHITECTURE.includes(`\`${room}\``))).toEqual([]);
});

test("every name of code in ARCHITECTURE.md occurs in the sources", () => {
  const sources = ["src", "shaders", "e2e"].flatMap((folder) =>
    readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" })
      .filter((file) => /\.(ts|wgsl)$/.test(file))
      .map((file) => read(`${folder}/${file}`)),
  );
  const words = new Set(sources.flatMap((text) => text.match(/[A-Za-z_$][\w$]*/g) ?? []));
  const names = codeOf(ARCHITECTURE)
    .map((code) => code.replaceAll("`", ""))
    .filter((code) => /^[A-Za-z_$][\w$.]*$/.test(code) && !/\.(json|md|ts|html|\d.*)$/.test(code))
    .flatMap((code) => code.split("."));
  expect(names.filter((name) => !words.has(name))).toEqual([]);
});

test("a name that ARCHITECTURE.md places in a file is in that file", () => {
  const placed = /`([A-Za-z_$][\w$.]*)`\s+(?:\(|in\s+)`((?:src|shaders)\/[\w./]+\.(?:ts|wgsl))`/g;
  const found = [...ARCHITECTURE.matchAll(placed)].map(([, name, file]) => ({ name: name.split(".").at(-1)!, file }));
  expect(found.length).toBeGreaterThan(30);
  expect(found.filter(({ name, file }) => !isWordOf(name, read(file)))).toEqual([]);
});
