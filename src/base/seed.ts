/** Seeds of PyTorch's generators: 64 bits, signed or not. The one place that says which are taken and what they mean. */
import { MixdqError } from "./errors.ts";

/** A seed of PyTorch's generators, 64 bits: a number where that is exact, else a bigint. */
export type Seed = number | bigint;

const LEAST = -(2n ** 63n);
const MOST = 2n ** 64n - 1n;
/** Decimal digits, as text; no seed has more of them. */
export const SEED_TEXT = /^\s*[+-]?\d{1,20}\s*$/;

const EXPECTED = "a whole number from -2^63 to 2^64 - 1";

/**
 * What `torch.Generator.manual_seed` takes: a whole number from -2^63 to 2^64 - 1, here as a number, a bigint or decimal
 * digits. Throws `invalid-input` for anything else; `what` names it in the message.
 */
export function parseSeed(value: unknown, what = "seed"): Seed {
  if (typeof value === "number" && Number.isSafeInteger(value)) return value + 0;
  const isExact = typeof value === "bigint" || (typeof value === "string" && SEED_TEXT.test(value));
  const seed = isExact ? BigInt(typeof value === "string" ? value.trim().replace("+", "") : value) : undefined;
  if (seed === undefined || seed < LEAST || seed > MOST) {
    const advice =
      typeof value === "number" && Number.isInteger(value)
        ? " Beyond 2^53 a number is not exact: give a bigint or the digits as text."
        : "";
    throw new MixdqError("invalid-input", `${what}: got ${String(value).slice(0, 80)}, expected ${EXPECTED}.${advice}`);
  }
  return compact(seed);
}

/** The seed of a later picture in a series that counts on. Past the end it begins again where 64 bits do. */
export function seedAfter(first: Seed, count: number): Seed {
  const next = BigInt(first) + BigInt(count);
  return compact(next > MOST ? next - 2n ** 64n : next);
}

/** As JSON can hold it: digits as text where a number would not be exact. */
export function seedToJson(seed: Seed): number | string {
  return typeof seed === "bigint" ? String(seed) : seed;
}

/** The 32 bits that PyTorch's Mersenne Twister on the CPU begins with; a negative seed stands for its two's complement. */
export function twisterSeed(seed: Seed): number {
  return Number(BigInt.asUintN(32, BigInt(seed)));
}

function compact(seed: bigint): Seed {
  const number = Number(seed);
  return Number.isSafeInteger(number) ? number : seed;
}
