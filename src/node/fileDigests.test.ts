import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test } from "vitest";
import { FileDigests } from "./fileDigests.ts";

const root = mkdtempSync(path.join(os.tmpdir(), "mixdq-digests-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

test("large files that have kept size and time are not read again", async () => {
  const [file, bytes] = [path.join(root, "large"), 64 * 2 ** 20];
  writeFileSync(file, Buffer.alloc(bytes));
  const first = new FileDigests(new Map());
  const sha256 = await first.of("large", { at: file });
  expect(sha256).toBe("3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351");
  const known = first.known.get("large")!;
  expect(known).toMatchObject({ bytes, sha256 });
  const noted = new FileDigests(new Map([["large", { ...known, sha256: "as noted" }]]));
  expect(await noted.of("large", { at: file })).toBe("as noted");
  writeFileSync(file, Buffer.alloc(bytes));
  expect(await noted.of("large", { at: file })).toBe(sha256);

  const small = path.join(root, "small");
  writeFileSync(small, "small");
  const { ctimeMs: changedMs } = statSync(small);
  const trusting = new FileDigests(new Map([["small", { bytes: 5, changedMs, sha256: "as noted" }]]));
  expect(await trusting.of("small", { at: small })).toMatch(/^[0-9a-f]{64}$/);
});
