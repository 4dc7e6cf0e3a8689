/** Reproducible chance for baselines; nothing that matters is decided by it. */
export { seededRandom as makeRandom } from "../quality/bootstrap.ts";

/** Fisher & Yates. */
export function shuffle<T>(items: readonly T[], random: () => number): T[] {
  const shuffled = [...items];
  for (let i = shuffled.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [shuffled[i], shuffled[j]] = [shuffled[j], shuffled[i]];
  }
  return shuffled;
}
