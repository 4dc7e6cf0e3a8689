/** Products through workgroup memory, tile by tile; integer ones in slices where there are too few tiles to fill a GPU. */
import { quads, spread, type Dispatch, type KernelContext } from "../kernel.ts";
import { segmentsOf } from "../quantized.ts";
import type { Variant } from "../variant.ts";
import { columnsOf, describeProduct, join, wholeOf, type Product } from "./product.ts";

/**
 * The tile of the tiled shaders, in pixels x channels. 64 x 64 with 128 invocations; half the rows (64 invocations) where
 * the larger tile would leave most of a big GPU idle (under 128 workgroups), or would be half empty.
 */
function tileFor(rows: number, columns: number): { BM: number; BN: number } {
  const small = rows <= 32 || Math.ceil(rows / 64) * Math.ceil(columns / 64) < 128;
  return { BM: small ? 32 : 64, BN: 64 };
}

/** Workgroups that keep a large GPU busy, and the fewest steps of a slice that are worth a second dispatch. */
const ENOUGH_WORKGROUPS = 128;
const LEAST_STEPS = 8;
const MOST_SLICES = 8;

/** What is staged of both operands at a time: quads of channels; of integers, blocks of 16 channels. */
const STAGED_QUADS = 4;
const STAGED_BLOCKS = 4;

export const tiledFloat: Variant<Product> = {
  name: "tiled",
  needs: [],
  accepts: () => true,
  dispatches(product, context) {
    const { sizes, operands, scales, epilogue } = describeProduct(product, context);
    const { tile, count } = tilesOf(product);
    return [
      {
        ...wholeOf(product),
        ...join(sizes, operands, scales, epilogue, { defines: { ...tile, BK4: STAGED_QUADS } }),
        shader: "gemm_tiled",
        workgroups: spread(count, context.caps),
      },
    ];
  },
};

export const tiledInt8: Variant<Product> = {
  name: "tiled",
  needs: [],
  accepts: () => true,
  dispatches(product, context) {
    const { tile, count } = tilesOf(product);
    const slices = slicesOf(product, count);
    const tiling = { defines: { ...tile, BK16: STAGED_BLOCKS } };
    if (slices > 1) return sliced(product, context, { slices, tiling, count });
    const { sizes, operands, scales, epilogue } = describeProduct(product, context);
    return [
      {
        ...wholeOf(product),
        ...join(sizes, operands, scales, epilogue, tiling),
        shader: "gemm_i8_tiled",
        workgroups: spread(count, context.caps),
      },
    ];
  },
};

interface Slicing {
  readonly slices: number;
  readonly tiling: { readonly defines: Dispatch["defines"] };
  /** Tiles of a slice. */
  readonly count: number;
}

/** Two dispatches: int32 sums of every slice of the inner dimension, then their sum and the epilogue. */
function sliced(product: Product, context: KernelContext, { slices, tiling, count }: Slicing): Dispatch[] {
  const { path, rows, n } = product;
  const columns = columnsOf(product);
  const { sizes, operands, scales, epilogue } = describeProduct(product, context);
  const sums = context.scratch(`${path}.sums`, [slices, 1, rows, columns], "u32");
  const xSums = context.scratch(`${path}.x_sums`, [slices, 1, rows, 1], "u32");
  const slicing = { defines: { SLICES: slices }, bindings: { sums, x_sums: xSums } };
  return [
    {
      ...wholeOf(product),
      ...join(sizes, operands, tiling, slicing),
      shader: "gemm_i8_tiled",
      writes: ["sums", "x_sums"],
      workgroups: spread(count * slices, context.caps),
    },
    {
      ...wholeOf(product),
      ...join(sizes, scales, epilogue, slicing),
      shader: "gemm_i8_reduce",
      workgroups: spread(Math.ceil((rows * quads(n)) / 64), context.caps),
      work: slices * rows * columns,
    },
  ];
}

function tilesOf(product: Product): { tile: { BM: number; BN: number }; count: number } {
  const columns = columnsOf(product);
  const tile = tileFor(product.rows, columns);
  return { tile, count: Math.ceil(product.rows / tile.BM) * Math.ceil(columns / tile.BN) };
}

/** Into how many slices an integer product's inner dimension is cut: the order of int32 sums does not change them. */
function slicesOf({ x, x2, taps, quantization }: Product, tiles: number): number {
  if (segmentsOf(quantization!).length > 1) return 1;
  const steps = taps * Math.ceil((quads(x.shape[3]) + quads(x2?.shape[3] ?? 0)) / (4 * STAGED_BLOCKS));
  const wanted = Math.ceil(ENOUGH_WORKGROUPS / tiles);
  return Math.max(1, Math.min(wanted, Math.floor(steps / LEAST_STEPS), MOST_SLICES));
}
