/** What somebody meant by a name that is not known. */

/** The choice that `word` most likely stands for; undefined where none is near. Case and separators do not count. */
export function nearest<T extends string>(word: string, choices: readonly T[]): T | undefined {
  const asked = plain(word);
  const known = choices.map((choice) => ({ choice, name: plain(choice) }));
  const same = known.find(({ name }) => name === asked);
  if (same || asked === "") return same?.choice;
  const rated = known
    .map(({ choice, name }) => ({ choice, distance: editDistance(asked, name), most: Math.max(1, name.length / 3) }))
    .filter(({ distance, most }) => distance <= most)
    .sort((a, b) => a.distance - b.distance);
  // "height_px" and "prompt_text" say more than the name, and no other name.
  const within = known.filter(({ name }) => name.length > 3 && asked.startsWith(name));
  const longest = within.sort((a, b) => b.name.length - a.name.length)[0];
  return rated[0]?.choice ?? longest?.choice;
}

/** "num_inference_steps", "num-inference-steps" and "numInferenceSteps" are one name. */
export const plain = (name: string): string => name.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");

/** Names longer than this are compared by their beginning: nobody types one of ours that long. */
const MAX_LENGTH = 64;

/** Insertions, deletions, substitutions and swaps of neighbours that make one word of the other. */
function editDistance(a: string, b: string): number {
  const [from, to] = [a.slice(0, MAX_LENGTH), b.slice(0, MAX_LENGTH)];
  let [before, above] = [[] as number[], Array.from({ length: to.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= from.length; i++) {
    const row = [i];
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1] === to[j - 1];
      row[j] = Math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1));
      const isSwap = i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1];
      if (isSwap) row[j] = Math.min(row[j], before[j - 2] + 1);
    }
    [before, above] = [above, row];
  }
  return above[to.length];
}
