import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, expect, test, vi } from "vitest";
import { writeSafetensors } from "../../weights/safetensors.ts";
import { inspect } from "./inspect.ts";

const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-inspect-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function printed(name: string, content: Uint8Array | string): Promise<string> {
  const file = path.join(folder, name);
  writeFileSync(file, content);
  const lines: string[] = [];
  const log = vi.spyOn(console, "log").mockImplementation((line: string) => void lines.push(line));
  try {
    await inspect([file]);
  } finally {
    log.mockRestore();
  }
  return lines.join("\n");
}

test("names and metadata of a file do nothing to the terminal, and a tensor of any dtype is listed", async () => {
  const file = writeSafetensors(
    {
      "a\u001b[2J": { dtype: "F32", shape: [1], data: new Float32Array(1) },
      "b\u009b31m\n\u202e": { dtype: "F8_E4M3", shape: [3], data: new Uint8Array(3) },
      ["__proto__"]: { dtype: "I3", shape: [9], data: new Uint8Array(4) },
    },
    { "k\u0007": "v\u001b]0;x\u0007" },
  );
  const text = await printed("x.safetensors", file);
  expect(text).not.toMatch(/[^\P{Cc}\n]|\p{Cf}/u);
  for (const part of ["a\\u001b[2J", "b\\u009b31m\\u000a\\u202e", "F8_E4M3", "__proto__", "k\\u0007", "v\\u001b]0;x"])
    expect(text).toContain(part);
});

test("a file of another format is named", async () => {
  await expect(printed("x.json", '{"format": "\\u001b[2J"}')).rejects.toThrow(
    'x.json: got "format" "\\u001b[2J", expected "mixdq-config" or "mixdq-calibration".',
  );
});
