import { appendFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fuzz } from "../e2e/fuzz/run.ts";
import { TARGETS } from "../e2e/fuzz/targets.ts";
test("s", { timeout: 1200_000 }, async () => {
  const targets = TARGETS.filter((t) => t.name === "scheduler_config.json").map((t) => ({ ...t, run: async (f: any, c: any) => {
    const s = performance.now(); appendFileSync("/tmp/fz.log", "begin " + JSON.stringify([...f].map(([, v]: any) => typeof v === "string" ? v.slice(0, 600) : new TextDecoder().decode(v).slice(0,600))) + "\n");
    try { await t.run(f, c); } finally { appendFileSync("/tmp/fz.log", `end ${(performance.now() - s).toFixed(0)}\n`); } } }));
  const { rows, failures } = await fuzz(targets as any, { seed: 5, from: 0, inputs: 30 });
  appendFileSync("/tmp/fz.log", rows.map((r) => `${r.target} ${r.inputs} ${r.taken}`).join("; ") + "\n" + failures.slice(0, 12).join("\n") + "\nDONE\n");
  expect(failures.length).toBe(0);
});
