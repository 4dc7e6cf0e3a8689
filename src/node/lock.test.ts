/** Who may write a result when two processes want to, and what a process that was killed leaves. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { withLock } from "./lock.ts";

const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-lock-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let count = 0;
const newOutput = (): string => path.join(folder, String(count++), "out.json");
const lockOf = (output: string): string => `${output}.lock`;
const content = (holder: object): string =>
  JSON.stringify({ pid: process.pid, started: "", host: os.hostname(), ...holder });

async function leave(output: string, text: string): Promise<void> {
  await withLock(output, async () => writeFileSync(output, "")); // makes the folder
  writeFileSync(lockOf(output), text);
}

test("a second one is refused while the first works, by name; afterwards nothing is left", async () => {
  const output = newOutput();
  let refused: unknown;
  const result = await withLock(output, async () => {
    expect(JSON.parse(readFileSync(lockOf(output), "utf8"))).toMatchObject({ pid: process.pid });
    refused = await withLock(output, async () => "second").catch((error: unknown) => error);
    writeFileSync(output, "first");
    return "first";
  });
  expect(result).toBe("first");
  expect(refused).toMatchObject({ code: "invalid-input" });
  expect(String(refused)).toMatch(
    new RegExp(`out\\.json: process ${process.pid} on .* is writing it .*choose another --out`),
  );
  expect(readdirSync(path.dirname(output))).toEqual(["out.json"]);
  await expect(withLock(output, async () => "third")).resolves.toBe("third");
});

test("a failure releases it and leaves no folder behind", async () => {
  const output = newOutput();
  await expect(withLock(output, () => Promise.reject(new Error("no GPU")))).rejects.toThrow("no GPU");
  expect(existsSync(path.dirname(output))).toBe(false);
});

test.each([
  ["a process that is gone", () => content({ pid: 2 ** 22 + 1 })],
  ["a process whose number another one has by now", () => content({ started: "1 another-start" })],
  ["a file that names nobody", () => "not ours"],
])("the lock of %s is taken over", async (_, text) => {
  const output = newOutput();
  await leave(output, text());
  await expect(withLock(output, async () => readFileSync(lockOf(output), "utf8"))).resolves.toContain(
    `"pid":${process.pid}`,
  );
  expect(existsSync(lockOf(output))).toBe(false);
});

test("the lock of another machine's process is respected, and the message says what to delete", async () => {
  const output = newOutput();
  await leave(output, content({ host: "elsewhere", pid: 1 }));
  await expect(withLock(output, async () => 1)).rejects.toThrow(`delete ${lockOf(output)}`);
});

test("of many that find a stale lock, one works at a time", async () => {
  const output = newOutput();
  await leave(output, content({ pid: 2 ** 22 + 1 }));
  let working = 0;
  const results = await Promise.allSettled(
    Array.from({ length: 20 }, () =>
      withLock(output, async () => {
        expect(++working).toBe(1);
        await new Promise((resolve) => setTimeout(resolve, 5));
        working--;
      }),
    ),
  );
  expect(results.filter(({ status }) => status === "fulfilled").length).toBeGreaterThan(0);
  for (const result of results)
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "invalid-input" });
});

test.runIf(process.platform !== "win32")("a device is not locked", async () => {
  await expect(withLock("/dev/null", async () => existsSync("/dev/null.lock"))).resolves.toBe(false);
});

test.runIf(process.platform === "linux").each(["SIGTERM", "SIGKILL"] as const)(
  "after %s another process goes on",
  async (signal) => {
    const output = newOutput();
    const { build } = await import("vite");
    await build({
      configFile: false,
      logLevel: "error",
      build: {
        ssr: path.join(import.meta.dirname, "lock.ts"),
        outDir: folder,
        emptyOutDir: false,
        rolldownOptions: { output: { entryFileNames: "lock.mjs" } },
      },
    });
    const script = `import { withLock } from ${JSON.stringify(path.join(folder, "lock.mjs"))};
    await withLock(${JSON.stringify(output)}, () => { console.log("locked"); return new Promise((r) => setTimeout(r, 60_000)); });`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) => child.once("exit", (_, by) => resolve(by)));
    await new Promise((resolve) => child.stdout!.once("data", resolve));
    await expect(withLock(output, async () => 1)).rejects.toThrow(`process ${child.pid}`);
    child.kill(signal);
    expect(await ended).toBe(signal);
    expect(existsSync(lockOf(output))).toBe(signal === "SIGKILL");
    await expect(withLock(output, async () => 1)).resolves.toBe(1);
  },
);
