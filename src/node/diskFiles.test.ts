import { mkdtemp, mkdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { diskFiles } from "./diskFiles.ts";
import { openModel } from "../weights/pack.ts";

let folder: string;
const at = (name: string): string => path.join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "mixdq-disk-"));
  await mkdir(at("unet"));
  await writeFile(at("unet/config.json"), '{"a": 1}');
  await writeFile(at("pointer.json"), "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n");
  await writeFile(at("long.json"), "{}");
  await truncate(at("long.json"), 2 ** 26 + 1);
  await symlink("/dev/zero", at("endless.json"));
  await writeFile(at("manifest.json"), '{"format": "mixdq-files", "version": 1, "files": {}}');
});
afterAll(() => rm(folder, { recursive: true }));

test("a file is read, opened and measured; one that is not there is undefined", async () => {
  const files = await diskFiles(folder);
  expect(await files.text("unet/config.json")).toBe('{"a": 1}');
  expect(await files.size!("unet/config.json")).toBe(8);
  const stream = await files.open("unet/config.json");
  expect([stream!.bytes, await new Response(stream!.body).text()]).toEqual([8, '{"a": 1}']);
  for (const missing of ["vae/config.json", "unet/config.json/x"]) {
    expect(await files.text(missing)).toBeUndefined();
    expect(await files.size!(missing)).toBeUndefined();
    expect(await files.open(missing)).toBeUndefined();
  }
});

test.each([
  ["pointer.json", "invalid-model", "got a Git LFS pointer, expected the file itself. Run `git lfs pull`"],
  ["long.json", "invalid-model", "got 67108865 bytes, expected a text of at most 67108864"],
  ["endless.json", "network", "cannot be read: it is not a file"],
  ["unet", "network", "cannot be read: it is not a file"],
])("%s is refused", async (name, code, message) => {
  const error = await (await diskFiles(folder)).text(name).catch((error: unknown) => error);
  expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
});

test("a list of files, which may be out of date, hides none on disk", async () => {
  const { files } = await openModel(await diskFiles(folder));
  expect(await files.text("unet/config.json")).toBe('{"a": 1}');
});
