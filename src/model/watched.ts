/** What the debug dial adds to a network's run: times by kernel from level 2, every tensor's values from level 3. */
import { debug, debugLevel, describeValues } from "../base/debug.ts";
import { summarize } from "../gpu/profiler.ts";
import type { RunOptions } from "../runtime/network.ts";

export async function watched<T>(
  name: string,
  options: RunOptions,
  run: (options: RunOptions) => Promise<T>,
): Promise<T> {
  const level = debugLevel();
  // Somebody who reads the tensors already goes before the dial.
  if (options.onTensor || level < 2) return run(options);
  if (level >= 3)
    return run({
      ...options,
      onTensor: (path, _, values) => debug(3, () => describeValues(`${name} ${path}`, values)),
    });
  return run({
    ...options,
    onProfile: (rows) =>
      debug(2, () =>
        summarize(rows, ({ shader }) => shader)
          .map(
            ({ key, count, ms, work }) =>
              `${name.padEnd(16)} ${key.padEnd(20)} ${String(count).padStart(5)} x ${ms.toFixed(2).padStart(9)} ms ` +
              `${(work / ms / 1e6).toFixed(2).padStart(9)} G/s`,
          )
          .join("\n"),
      ),
  });
}
