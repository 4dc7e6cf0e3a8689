/**
 * The one debug dial: `?debug=` in the page's URL, `--debug` on the command line. Each level prints all of the one
 * below, to stderr or the console.
 *
 *   1  adapter, features, each family's kernel variant, stage times
 *   2  every plan: one line a dispatch, with its place in memory; milliseconds by kernel
 *   3  every tensor after it was computed: least, greatest, mean, count of NaN and infinity (slow: step by step)
 */
let level = 0;

export function setDebug(to: number): void {
  level = to;
}

export const debugLevel = (): number => level;

/** `text` is only made where it is printed. */
export function debug(at: number, text: () => string): void {
  if (level >= at) console.error(text());
}

/** One line about a tensor's values, for level 3. */
export function describeValues(path: string, values: Float32Array): string {
  let [least, greatest, sum, broken] = [Infinity, -Infinity, 0, 0];
  for (const value of values) {
    if (!Number.isFinite(value)) broken++;
    else {
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
      sum += value;
    }
  }
  const mean = sum / Math.max(1, values.length - broken);
  const numbers = [least, greatest, mean].map((n) => n.toPrecision(4).padStart(11)).join("");
  return `${numbers} ${broken > 0 ? `${broken} NaN or infinite` : ""} ${path}`;
}
