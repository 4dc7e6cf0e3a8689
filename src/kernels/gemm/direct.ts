/** Products straight from global memory: an invocation computes 4 pixels x 4 channels. The simple form of the formula. */
import { quads, spread, type Dispatch, type KernelContext } from "../kernel.ts";
import type { Variant } from "../variant.ts";
import { describeProduct, join, wholeOf, type Product } from "./product.ts";

export const directFloat = direct("gemm_direct");
export const directInt8 = direct("gemm_i8_direct");

function direct(shader: string): Variant<Product> {
  return {
    name: "direct",
    needs: [],
    accepts: () => true,
    dispatches(product: Product, context: KernelContext): Dispatch[] {
      const { sizes, operands, scales, epilogue } = describeProduct(product, context);
      return [
        {
          ...wholeOf(product),
          ...join(sizes, operands, scales, epilogue),
          shader,
          workgroups: spread(Math.ceil(quads(product.n) / 8) * Math.ceil(product.rows / 32), context.caps),
        },
      ];
    },
  };
}
