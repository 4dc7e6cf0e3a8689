/** A component's tensors by what is known of them before any is read. */

/** Names to shapes. */
export type Shapes = ReadonlyMap<string, readonly number[]>;

/** The largest number that follows `prefix` in a name, plus one: how many layers there are. */
export function countOf(shapes: Shapes, prefix: string): number {
  let count = 0;
  for (const name of shapes.keys())
    if (name.startsWith(prefix)) count = Math.max(count, Number(/^\d+/.exec(name.slice(prefix.length))?.[0] ?? -1) + 1);
  return count;
}

/** Those whose names begin with `prefix`, without it. */
export function below(shapes: Shapes, prefix: string): Shapes {
  const found = [...shapes].filter(([name]) => name.startsWith(prefix));
  return new Map(found.map(([name, shape]) => [name.slice(prefix.length), shape]));
}

/** The value of the longest key that a name begins with, and the rest of the name. */
export function byPrefix<T>(map: ReadonlyMap<string, T>, name: string): [value: T, rest: string] | undefined {
  for (let end = name.lastIndexOf("."); end >= 0; end = name.lastIndexOf(".", end - 1)) {
    const value = map.get(name.slice(0, end + 1));
    if (value !== undefined) return [value, name.slice(end + 1)];
    if (end === 0) break;
  }
  return undefined;
}
