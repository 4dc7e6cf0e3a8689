import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { nameOf, readBytes, readText, sha256 } from "./inputFiles.ts";

const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-input-"));
const file = path.join(folder, "prompts.txt");
writeFileSync(file, "\uFEFFa red house\n");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("a file as text has no byte order mark, as bytes it has everything", async () => {
  expect(await readText(file)).toBe("a red house\n");
  const bytes = await readBytes(file, { most: 15 });
  expect(bytes).toHaveLength(15);
  expect(sha256(bytes)).toBe(sha256("\uFEFFa red house\n"));
  expect(sha256("abc")).toBe("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); // FIPS 180-2, B.1
  expect(nameOf(`${folder}/prompts.txt/`)).toBe("prompts.txt");
});

test.each<[string, () => Promise<unknown>, string]>([
  ["one that is too large", () => readBytes(file, { most: 14 }), `${file}: got 15 bytes, expected at most 14.`],
  [
    "one that is missing",
    () => readText("nowhere.txt", { flag: "--prompts" }),
    "--prompts nowhere.txt cannot be read: ",
  ],
  ["a folder", () => readText(folder), `${folder} cannot be read: `],
])("%s is refused in one line", async (_, read, says) => {
  await expect(read()).rejects.toMatchObject({ code: "invalid-input", message: expect.stringContaining(says) });
  await expect(read()).rejects.toThrow(/^[^\n]+ Check the path\.$/);
});
