/**
 * A matrix product as dispatches: what linear layers and convolutions have in common. One formula
 * (shaders/shared/gemm_finish.wgsl), four ways to it: floats or integers, each direct or tiled. Weights that are only
 * stored as integers are decoded by the float shaders.
 */
import type { Activation, Tensor, Weight } from "../graph/ops.ts";
import {
  quads,
  spread,
  storageDefines,
  storeNumbers,
  type DeviceCaps,
  type Dispatch,
  type KernelContext,
  type Quantization,
} from "./kernel.ts";
import { quantizedWeights, segmentsOf, storedZero } from "./quantized.ts";
import { matrix, table, vector } from "./weights.ts";

/** A product into some channels of y. */
export interface Product {
  readonly path: string;
  readonly kind: string;
  readonly x: Tensor;
  readonly x2?: Tensor | undefined;
  readonly y: Tensor;
  /** Output pixels. */
  readonly rows: number;
  /** Output channels (of one half for geglu), and where they begin in y. */
  readonly n: number;
  readonly first: number;
  readonly taps: number;
  readonly activation: Activation;
  readonly weights: readonly Weight[];
  readonly quantization?: Quantization | undefined;
  readonly biases: readonly Weight[];
  readonly bos: readonly Weight[];
  /** Of the geometry. */
  readonly defines: Record<string, true>;
  readonly constants: Record<string, number>;
  /** Row bias and residual. */
  readonly added: Record<string, Tensor>;
}

const ACTIVATION_DEFINES: Record<Activation, Record<string, true>> = {
  none: { LINEAR: true },
  silu: { SILU: true },
  relu: { RELU: true },
  gelu: { GELU: true },
  quick_gelu: { QUICK_GELU: true },
  geglu: { LINEAR: true, GEGLU: true },
};

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

/** What the tiled shaders stage of both operands at a time: quads of channels; elements (of 16 channels) in integers. */
const STAGED_QUADS = 4;
const STAGED_ELEMENTS = 4;

/** Into how many slices an integer product's inner dimension is cut; sums of integers do not mind. */
function slicesFor(workgroups: number, steps: number): number {
  const wanted = Math.ceil(ENOUGH_WORKGROUPS / workgroups);
  return Math.max(1, Math.min(wanted, Math.floor(steps / LEAST_STEPS), MOST_SLICES));
}

/**
 * What one file of shaders/shared wants of a dispatch. A dispatch carries what the files that its shader imports want, and
 * no more: WebGPU refuses a pipeline constant that the shader does not declare.
 */
interface Part {
  readonly defines?: Dispatch["defines"];
  readonly constants?: Dispatch["constants"];
  readonly numbers?: NonNullable<Dispatch["numbers"]>;
  readonly bindings?: Dispatch["bindings"];
}

function join(...parts: readonly Part[]): Required<Part> {
  return {
    defines: Object.assign({}, ...parts.map(({ defines }) => defines)),
    constants: Object.assign({}, ...parts.map(({ constants }) => constants)),
    numbers: Object.assign({}, ...parts.map(({ numbers }) => numbers)),
    bindings: Object.assign({}, ...parts.map(({ bindings }) => bindings)),
  };
}

/** One dispatch; or two, where the inner dimension is cut into slices so that there is enough to do at a time. */
export function gemm(product: Product, context: KernelContext): Dispatch[] {
  const { path, kind, rows, n, x, x2, taps } = product;
  const { caps } = context;
  const { isInteger, columns, sizes, operands, scales, finish } = prepare(product, context);
  const shader = isInteger ? "gemm_i8" : "gemm";
  const work = rows * columns * taps * (x.shape[3] + (x2?.shape[3] ?? 0));
  const whole = { path, kind, work, writes: ["y"] };
  if (caps.gemm === "direct")
    return [
      {
        ...whole,
        ...join(sizes, operands, scales, finish),
        shader: `${shader}_direct`,
        workgroups: spread(Math.ceil(quads(n) / 8) * Math.ceil(rows / 32), caps),
      },
    ];

  const tile = tileFor(rows, columns);
  const tiles = Math.ceil(rows / tile.BM) * Math.ceil(columns / tile.BN);
  const tiling = { defines: { ...tile, ...(isInteger ? { BE: STAGED_ELEMENTS } : { BK4: STAGED_QUADS }) } };
  const isOneSum = isInteger && segmentsOf(product.quantization!) === 1;
  const steps = taps * Math.ceil((quads(x.shape[3]) + quads(x2?.shape[3] ?? 0)) / (4 * STAGED_ELEMENTS));
  const slices = isOneSum ? slicesFor(tiles, steps) : 1;
  if (slices === 1)
    return [
      {
        ...whole,
        ...join(sizes, operands, scales, finish, tiling),
        shader: `${shader}_tiled`,
        workgroups: spread(tiles, caps),
      },
    ];
  const sums = context.scratch(`${path}.sums`, [slices, 1, rows, columns], "u32");
  const xSums = context.scratch(`${path}.x_sums`, [slices, 1, rows, 1], "u32");
  const sliced = { defines: { SLICES: slices }, bindings: { sums, x_sums: xSums } };
  return [
    {
      ...whole,
      ...join(sizes, operands, tiling, sliced),
      shader: "gemm_i8_tiled",
      writes: ["sums", "x_sums"],
      workgroups: spread(tiles * slices, caps),
    },
    {
      ...whole,
      ...join(sizes, scales, finish, sliced),
      shader: "gemm_i8_reduce",
      workgroups: spread(Math.ceil((rows * quads(n)) / 64), caps),
      work: slices * rows * columns,
    },
  ];
}

/**
 * A product as shaders take it, whichever way it is computed: its `sizes`, what is multiplied (`operands`), what makes
 * numbers of integers (`scales`) and how it `finish`es. `columns` of the weight matrix, in whole quads.
 */
function prepare(product: Product, context: KernelContext) {
  const { x, x2, y, rows, n, first, activation, weights, quantization, biases, bos, added } = product;
  const { caps } = context;
  const gated = activation === "geglu";
  const isInteger = (quantization?.activations.length ?? 0) > 0;
  const packed = quantization && quantizedWeights(weights, quantization, gated);
  const sizes: Part = {
    defines: { ...product.defines, ...(gated && { GEGLU: true as const }) },
    constants: { ROWS: rows, N4: quads(n), C4: quads(x.shape[3]), ...product.constants },
  };
  const operands: Part = {
    defines: {
      ...storageDefines(caps, { in: x.dtype, weights: packed ? "u32" : context.weightType }),
      ...(quantization && operandDefines(quantization, isInteger, caps)),
    },
    numbers: isInteger ? { X_ZERO: storedZero(x), ...(x2 && { X2_ZERO: storedZero(x2) }) } : {},
    bindings: { x, ...(x2 && { x2 }), w: packed ? packed.codes : matrix(weights, context.weightType, gated) },
  };
  const scales: Part = packed
    ? {
        defines: scaleDefines(quantization!, isInteger),
        numbers: operands.numbers!,
        bindings: { parameters: packed.parameters },
      }
    : {};
  const finish: Part = {
    defines: {
      ...storageDefines(caps, { out: y.dtype }),
      ...ACTIVATION_DEFINES[activation],
      ...(biases.length > 0 && { BIAS: true as const }),
      ...(bos.length > 0 && { BOS: true as const }),
      ...(added["row_bias"] && { ROW_BIAS: true as const }),
      ...(added["residual"] && { RESIDUAL: true as const }),
    },
    constants: {
      Y4: quads(y.shape[3]),
      ...(first > 0 && { Y_FIRST: quads(first) }),
      ...(bos.length > 0 && { TOKENS: x.shape[1] * x.shape[2], BOS_IMAGES: bos[0]!.shape[0]! }),
    },
    numbers: storeNumbers(y),
    bindings: {
      ...(biases.length > 0 && { bias: vector(biases, gated) }),
      ...(bos.length > 0 && { bos: table(bos) }),
      ...added,
      y,
    },
  };
  return { isInteger, columns: quads(n) * 4 * (gated ? 2 : 1), sizes, operands, scales, finish };
}

/** Of shaders/shared/codes.wgsl, and of gemm_i8.wgsl where the activations are integers too. */
function operandDefines(
  { weight: { bits, symmetric }, channels }: Quantization,
  isInteger: boolean,
  caps: DeviceCaps,
): Record<string, true> {
  return {
    [`W${bits}`]: true,
    ...(!isInteger && { CODES: true as const }),
    ...(isInteger && caps.packedDot && { PACKED_DOT: true as const }),
    ...(isInteger && !(bits === 8 && symmetric) && { ZERO_POINT: true as const }),
    ...(isInteger && channels.every((count) => count % 16 === 0) && { WHOLE_ELEMENTS: true as const }),
  };
}

/** Of shaders/shared/segments.wgsl and gemm_i8_numbers.wgsl. */
function scaleDefines(
  { weight: { bits, group, range }, hasHalves }: Quantization,
  isInteger: boolean,
): Record<string, true> {
  return {
    ...(group !== null ? { GROUPED: true as const } : hasHalves && { SPLIT: true as const }),
    // Only the least-squares search allows zero points between two codes, and 8 bits do not gain by it.
    ...(isInteger && range === "mse" && bits < 8 && { FRACTIONAL: true as const }),
  };
}
