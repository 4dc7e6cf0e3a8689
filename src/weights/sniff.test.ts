import { expect, test } from "vitest";
import { isInsteadOf, isNote } from "./sniff.ts";

test.each<[string, string]>([
  ["config.json", '{"error": "Entry not found"}'],
  ["config.json", '{"statusCode": 404, "error": "Not Found", "message": "Cannot GET /config.json"}'],
  ["config.json", '{"success": false, "errors": [{"code": 7003}]}'],
  ["config.json", "\n<!DOCTYPE html>"],
  ["config.json", "Not found"],
  ["config.json", '"Not found"'],
  ["config.json", ""],
  ["merges.txt", "<html>"],
  ["merges.txt", '<?xml version="1.0"?>'],
  ["merges.txt", "404: Not Found"],
  ["merges.txt", '{"message": "Forbidden"}'],
])("in the place of %s: %s", (path, text) => expect(isInsteadOf(path, text)).toBe(true));

test.each<[string, string]>([
  ["config.json", "{}"],
  ["config.json", "[]"],
  ["config.json", '\uFEFF {"error": 1, "weight_map": {}}'],
  ["config.json", '{"status": 1, "path": "x"}'],
  // Damaged: whoever reads it says so.
  ["config.json", '{"error": '],
  ["vocab.json", '{"error": 0, "message": 1, "a</w>": 2}'],
  ["merges.txt", "< /\n< |\nn ot\n"],
  ["merges.txt", "#version: 0.2\ni n\n"],
  ["LICENSE", "Permission is denied\nto nobody.\n"],
])("%s itself: %s", (path, text) => expect(isInsteadOf(path, text)).toBe(false));

test("the length that a safetensors file begins with is no text, whatever it is", () => {
  for (let length = 2; length < 100_000_000; length = Math.ceil(length * 1.001)) {
    const head = new Uint8Array(8);
    new DataView(head.buffer).setUint32(0, length, true);
    if (isNote(head)) expect.fail(`a header of ${length} bytes is taken for text`);
  }
});
