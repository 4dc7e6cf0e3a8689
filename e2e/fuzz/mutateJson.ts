/** Changes to a JSON file that leave it a file of its kind: values, keys, lists, as they could be written by mistake. */
import type { Chance } from "./chance.ts";
import { anyNumber, anyText, anyValue, Raw } from "./values.ts";

/** A parsed file with something changed; nothing of `json` itself is. */
export function mutateJson(json: unknown, chance: Chance): unknown {
  let changed = json;
  do changed = mutateSomewhere(changed, chance, changed);
  while (chance.oneIn(3));
  return changed;
}

/** Goes down from the whole, at each level as likely to stop as a file is deep, and copies what is on the way. */
function mutateSomewhere(node: unknown, chance: Chance, whole: unknown): unknown {
  if (typeof node !== "object" || node === null || node instanceof Raw) return mutateValue(node, chance, whole);
  if (Array.isArray(node)) {
    if (node.length === 0 || chance.oneIn(6)) return mutateList(node, chance, whole);
    const at = chance.below(node.length);
    return node.with(at, mutateSomewhere(node[at], chance, whole));
  }
  const keys = Object.keys(node);
  if (keys.length === 0 || chance.oneIn(6)) return mutateObject(node as Record<string, unknown>, keys, chance, whole);
  const key = chance.of(keys);
  return { ...node, [key]: mutateSomewhere((node as Record<string, unknown>)[key], chance, whole) };
}

function mutateValue(value: unknown, chance: Chance, whole: unknown): unknown {
  if (chance.oneIn(10)) return somePart(whole, chance);
  if (typeof value === "number" && chance.oneIn(2))
    return chance.of([value + 1, value - 1, -value, value * 2, value / 2, value * 10 ** chance.below(12), value + 0.5]);
  if (typeof value === "number" && chance.oneIn(2)) return anyNumber(chance);
  if (typeof value === "string" && chance.oneIn(2)) return mutateText(value, chance);
  return anyValue(chance);
}

function mutateText(text: string, chance: Chance): string {
  const [at, odd] = [chance.below(text.length + 1), anyText(chance)];
  return chance.of([odd, text.slice(0, at) + odd + text.slice(at), text.slice(0, at), text.slice(at), text + text]);
}

function mutateList(list: readonly unknown[], chance: Chance, whole: unknown): unknown {
  const at = chance.below(list.length + 1);
  switch (chance.below(7)) {
    case 0:
      return list.toSpliced(at, 1);
    case 1:
      return list.toSpliced(at, 0, anyValue(chance));
    case 2:
      return list.toSpliced(at, 0, list[chance.below(list.length)] ?? null);
    case 3:
      return list.toReversed();
    case 4:
      return list.slice(0, at);
    case 5:
      return list.length > 0 && list.length < 50
        ? Array(chance.of([2, 40]))
            .fill(list)
            .flat()
        : [];
    default:
      return mutateValue(list, chance, whole);
  }
}

function mutateObject(
  object: Readonly<Record<string, unknown>>,
  keys: readonly string[],
  chance: Chance,
  whole: unknown,
): unknown {
  const entries = Object.entries(object);
  const at = chance.below(keys.length);
  const [key, value] = entries[at] ?? ["a", 1];
  // Object.fromEntries also where the key is __proto__.
  switch (chance.below(7)) {
    case 0:
      return Object.fromEntries(entries.toSpliced(at, 1));
    case 1:
      return Object.fromEntries(entries.toSpliced(at, 1, [mutateText(key, chance), value]));
    case 2:
      return Object.fromEntries([...entries, [anyText(chance), anyValue(chance)]]);
    case 3:
      return Object.fromEntries([...entries, [mutateText(key, chance), value]]);
    case 4:
      // The same key twice: no object can hold it, so the writer makes it of this.
      return Object.fromEntries([...entries, [`${TWICE}${key}`, chance.oneIn(2) ? value : anyValue(chance)]]);
    case 5: {
      const other = chance.of(entries.length > 0 ? entries : [["b", 2] as [string, unknown]]);
      return { ...object, [key]: other[1], [other[0]]: value };
    }
    default:
      return mutateValue(object, chance, whole);
  }
}

/** Something that the file holds elsewhere. */
function somePart(whole: unknown, chance: Chance): unknown {
  let node = whole;
  for (let depth = chance.below(5); depth > 0 && typeof node === "object" && node !== null; depth--) {
    const values: unknown[] = Object.values(node);
    if (values.length === 0) break;
    node = chance.of(values);
  }
  return node;
}

const TWICE = "@twice@";

/** The text of a value that may hold Raw and keys that are there twice. */
export function writeJson(json: unknown): string {
  const raws: string[] = [];
  const text = JSON.stringify(json, (_, value: unknown) =>
    value instanceof Raw ? `@raw${raws.push(value.text) - 1}@` : value,
  );
  return (text ?? "null")
    .replaceAll(`"${TWICE}`, '"')
    .replace(/"@raw(\d+)@"/g, (_, index: string) => raws[Number(index)]);
}
