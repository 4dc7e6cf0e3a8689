/** The variants of a matrix product, fastest first on most GPUs; the last one takes everything. */
import type { Dispatch, Family, KernelContext } from "../kernel.ts";
import { variantFor, type Variant } from "../variant.ts";
import { directFloat, directInt8 } from "./direct.ts";
import { isInteger, type Product } from "./product.ts";
import { tiledFloat, tiledInt8 } from "./tiled.ts";

export const FLOAT_VARIANTS: readonly Variant<Product>[] = [tiledFloat, directFloat];
export const INT8_VARIANTS: readonly Variant<Product>[] = [tiledInt8, directInt8];

/** Rows up to which a product belongs to the class of few rows: half of the larger tile. */
const FEW_ROWS = 32;

/** A product's dispatches, by the variant that is chosen for its family. */
export function gemm(product: Product, context: KernelContext): Dispatch[] {
  const [variants, family] = familyOf(product);
  return variantFor(variants, context.caps[family], product, context.caps).dispatches(product, context);
}

function familyOf(product: Product): [readonly Variant<Product>[], Family] {
  const few = product.rows <= FEW_ROWS;
  return isInteger(product)
    ? [INT8_VARIANTS, few ? "int8FewRows" : "int8"]
    : [FLOAT_VARIANTS, few ? "floatFewRows" : "float"];
}
