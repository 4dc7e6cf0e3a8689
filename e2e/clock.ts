/** The only clocks of these tests. Two files at a time run on two cores, and a fresh machine compiles every kernel. */

/** Longer than anything here takes on a busy machine: a wait that ends so has found something that never ends. */
export const NEVER_MS = 600_000;

/** A test that asks for an answer within 250 ms: where another file holds both cores, it may ask again. */
export const WHEN_BUSY = { retry: 2 } as const;
