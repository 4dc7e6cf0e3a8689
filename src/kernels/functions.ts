/** Scalar functions of the CPU twins, in double precision. */
import type { Activation } from "../graph/ops.ts";

/** erf by its Taylor series near 0 and the continued fraction of erfc beyond 2.5; error below 1e-14. */
export function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 2.5) {
    let term = a;
    let sum = a;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
      if (n > 200) break;
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI);
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / (a + fraction));
}

/** `geglu` is no scalar function: linear's twin multiplies by gelu of the gate itself. */
export function activate(name: Activation, x: number): number {
  switch (name) {
    case "none":
    case "geglu":
      return x;
    case "relu":
      return Math.max(x, 0);
    case "silu":
      return x / (1 + Math.exp(-x));
    case "quick_gelu":
      return x / (1 + Math.exp(-1.702 * x));
    case "gelu":
      return 0.5 * x * (1 + erf(x / Math.SQRT2));
  }
}
