/** The only clock of these tests. Two files at a time run on two cores, and a fresh machine compiles every kernel. */

/** Longer than anything here takes on a busy machine: a wait that ends so has found something that never ends. */
export const NEVER_MS = 600_000;
