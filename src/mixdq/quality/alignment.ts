/** How much of what the prompts ask for is in the pictures: the part of a CLIP score, where everything can be named. */

/** Values by attribute's name, e.g. { time: "sunset", object: "house" }. */
export type Attributes = Readonly<Record<string, string>>;

/** The share 0..1 of the attributes that a prompt states which the picture shows as stated; others do not count. */
export function shareFound(stated: Attributes, seen: Attributes): number {
  const names = Object.keys(stated);
  return names.filter((name) => seen[name] === stated[name]).length / names.length;
}

export interface AttributeCount {
  /** Prompts that state the attribute. */
  readonly stated: number;
  /** Pictures that show it as stated. */
  readonly found: number;
}

/** The same attribute by attribute, over all pairs of a prompt and its picture, sorted by name. */
export function countByAttribute(
  pairs: readonly { readonly stated: Attributes; readonly seen: Attributes }[],
): Record<string, AttributeCount> {
  const names = [...new Set(pairs.flatMap(({ stated }) => Object.keys(stated)))].sort();
  return Object.fromEntries(
    names.map((name) => {
      const stating = pairs.filter(({ stated }) => name in stated);
      const found = stating.filter(({ stated, seen }) => seen[name] === stated[name]);
      return [name, { stated: stating.length, found: found.length }];
    }),
  );
}
