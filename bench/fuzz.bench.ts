/**
 * Every reader of foreign files (e2e/fuzz/targets.ts) against as many inputs as asked for, and one of them again:
 *   npm run bench -- fuzz [FUZZ_INPUTS=1000000] [FUZZ_SEED=1] [FUZZ_FROM=0]
 * With FUZZ_INPUTS=1 the input itself is printed, as JSON.
 */
import { expect, test } from "vitest";
import { fuzz, inputOf } from "../e2e/fuzz/run.ts";
import { TARGETS } from "../e2e/fuzz/targets.ts";

const number = (name: string, fallback: number): number => Number(process.env[name] ?? fallback);
const [inputs, seed, from] = [number("FUZZ_INPUTS", 1_000_000), number("FUZZ_SEED", 1), number("FUZZ_FROM", 0)];

test("fuzzing", { timeout: 24 * 3600_000 }, async () => {
  if (inputs === 1) {
    const { target, files } = inputOf(TARGETS, seed, from);
    const printable = Array.from(files, ([name, content]) => [
      name,
      typeof content === "string" ? content : Buffer.from(content).toString("latin1"),
    ]);
    console.log(`${target.name}: ${JSON.stringify(Object.fromEntries(printable), undefined, 2)}`);
  }
  const before = process.cpuUsage();
  const { rows, failures, grownBytes } = await fuzz(TARGETS, { seed, from, inputs });
  console.table(
    rows.map(({ target, inputs, taken, refused, sumMs, mostMs, mostMessageBytes }) => ({
      target,
      inputs,
      taken,
      refused: Array.from(refused, ([code, count]) => `${code} ${count}`).join(", "),
      "mean ms": Number((sumMs / Math.max(1, inputs)).toFixed(2)),
      "most ms": Math.round(mostMs),
      "longest message": mostMessageBytes,
    })),
  );
  const { user, system } = process.cpuUsage(before);
  console.log(
    `seed ${seed}, inputs ${from} to ${from + inputs - 1}; ${Math.round((user + system) / 1e6)} s of CPU time; ` +
      `memory grew by ${Math.round(grownBytes / 2 ** 20)} MiB`,
  );
  expect(failures).toEqual([]);
});
