/** Every reader of foreign files against inputs that nobody meant to write. More of them: npm run bench -- fuzz. */
import { expect, test } from "vitest";
import { Chance } from "./chance.ts";
import { fuzz } from "./run.ts";
import { TARGETS } from "./targets.ts";

/** Counted, not timed, so that a slow machine is not red: about 40 s on two cores. */
const INPUTS = 30_000;

test("valid files are taken as they are", async () => {
  for (const { name, seeds, run } of TARGETS)
    for (const files of seeds)
      await expect(
        (async () => void (await run(files, new Chance(1, 1))))(),
        `${name}: ${[...files.keys()].join(", ")}`,
      ).resolves.toBeUndefined();
});

test(
  "what is not valid is refused by a MixdqError, in time, within memory, in a line",
  { timeout: 1200_000 },
  async () => {
    const { rows, failures } = await fuzz(TARGETS, { seed: 1, from: 0, inputs: INPUTS });
    expect(failures).toEqual([]);
    // A suite that refuses everything at the first byte, or nothing, would prove little.
    for (const { target, inputs, taken } of rows) {
      expect(inputs, target).toBeGreaterThan(200);
      expect(taken, target).toBeGreaterThan(0);
      if (target !== "the page's address") expect(taken, target).toBeLessThan(inputs);
    }
  },
);
