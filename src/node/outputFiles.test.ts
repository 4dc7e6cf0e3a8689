/** Where results go when a path is a link, a pipe, a device or a file with permissions of its own. */
import { execFile, execFileSync } from "node:child_process";
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import { symlinkSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeEach, expect, test } from "vitest";
import { assertWritable, isSpecial, targetOf, writeWhole } from "./outputFiles.ts";

const root = mkdtempSync(path.join(os.tmpdir(), "mixdq-output-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let folder = root;
let count = 0;
beforeEach(() => {
  folder = path.join(root, String(count++));
  mkdirSync(folder);
});
const at = (name: string): string => path.join(folder, name);
const BYTES = new TextEncoder().encode("content");

async function write(file: string): Promise<void> {
  await assertWritable(file);
  await writeWhole(file, BYTES);
}

test("a link stays, and what it leads to is replaced whole", async () => {
  mkdirSync(at("there"));
  writeFileSync(at("there/real.png"), "old");
  symlinkSync("there/real.png", at("link.png"));
  symlinkSync(at("link.png"), at("second.png"));
  await write(at("second.png"));
  expect(lstatSync(at("link.png")).isSymbolicLink()).toBe(true);
  expect(lstatSync(at("second.png")).isSymbolicLink()).toBe(true);
  expect(readFileSync(at("there/real.png"), "utf8")).toBe("content");
  expect(readdirSync(at("there"))).toEqual(["real.png"]);
});

test("a link to nothing yet makes what it names", async () => {
  symlinkSync("new/picture.png", at("link.png"));
  await write(at("link.png"));
  expect(lstatSync(at("link.png")).isSymbolicLink()).toBe(true);
  expect(readFileSync(at("new/picture.png"), "utf8")).toBe("content");
});

test("links in a circle are refused", async () => {
  symlinkSync("b", at("a"));
  symlinkSync("a", at("b"));
  await expect(assertWritable(at("a"))).rejects.toMatchObject({ code: "invalid-input" });
  await expect(targetOf(at("a"))).rejects.toThrow("lead in a circle");
});

test("a file that is replaced keeps its permissions", async () => {
  writeFileSync(at("x.json"), "old");
  chmodSync(at("x.json"), 0o640);
  await write(at("x.json"));
  expect(statSync(at("x.json")).mode & 0o777).toBe(0o640);
  expect(readdirSync(folder)).toEqual(["x.json"]);
});

test.runIf(process.platform !== "win32")("a device is written into and stays one", async () => {
  const before = statSync("/dev/null");
  symlinkSync("/dev/null", at("null.png"));
  for (const file of ["/dev/null", at("null.png")]) {
    expect(await isSpecial(file)).toBe(true);
    await write(file);
  }
  expect(statSync("/dev/null")).toMatchObject({ ino: before.ino, rdev: before.rdev, mode: before.mode });
  expect(lstatSync(at("null.png")).isSymbolicLink()).toBe(true);
  expect(readdirSync(folder)).toEqual(["null.png"]);
});

test.runIf(process.platform === "linux")("a device that takes nothing is an error in words", async () => {
  await expect(write("/dev/full")).rejects.toThrow(/^\/dev\/full cannot be written: ENOSPC/);
});

test.runIf(process.platform !== "win32")("a pipe's reader gets the bytes, and the pipe stays", async () => {
  execFileSync("mkfifo", [at("pipe")]);
  const [content] = await Promise.all([readFile(at("pipe"), "utf8"), write(at("pipe"))]);
  expect(content).toBe("content");
  expect(lstatSync(at("pipe")).isFIFO()).toBe(true);
});

/** A process of its own, for the standard output is the process's. */
async function writeToStdout(file: string, redirection: string): Promise<{ stdout: string; stderr: string }> {
  const module = path.join(import.meta.dirname, "outputFiles.ts");
  const bundle = at("outputFiles.mjs");
  const { build } = await import("vite");
  await build({
    configFile: false,
    logLevel: "error",
    build: {
      ssr: module,
      outDir: folder,
      emptyOutDir: false,
      rolldownOptions: { output: { entryFileNames: "outputFiles.mjs" } },
    },
  });
  const script = `import { writeWhole, tell } from ${JSON.stringify(bundle)};
    await writeWhole(${JSON.stringify(file)}, new TextEncoder().encode("content\\n")); tell("done");`;
  writeFileSync(at("run.mjs"), script);
  return promisify(execFile)("sh", ["-c", `"$0" "$1" ${redirection}`, process.execPath, at("run.mjs")]);
}

test.runIf(process.platform === "linux")("/dev/stdout gets the result alone: what is told goes to stderr", async () => {
  expect(await writeToStdout("/dev/stdout", "| cat")).toEqual({ stdout: "content\n", stderr: "done\n" });
  const redirected = await writeToStdout("/dev/stdout", `> ${at("redirected")}`);
  expect(redirected.stderr).toBe("done\n");
  expect(readFileSync(at("redirected"), "utf8")).toBe("content\n");
});
