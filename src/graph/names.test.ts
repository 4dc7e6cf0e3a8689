import { expect, test } from "vitest";
import { nameMap } from "./names.ts";

test("a weight is found by its own name and by those of older checkpoints", () => {
  const query = { name: "to_q.weight", shape: [4, 4], aliases: ["query.weight", "q.weight"] };
  const bias = { name: "to_q.bias", shape: [4] };
  const names = nameMap([query, bias]);
  expect([...names]).toEqual([
    ["to_q.weight", query],
    ["query.weight", query],
    ["q.weight", query],
    ["to_q.bias", bias],
  ]);
  expect(names.get("constructor")).toBe(undefined);
});
