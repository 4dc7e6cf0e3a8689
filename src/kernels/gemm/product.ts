/**
 * A matrix product: what linear layers and convolutions have in common, as shaders take it. One formula
 * (shaders/shared/gemm_epilogue.wgsl) over floats or integers; weights that are only stored as integers are decoded by the
 * float shaders.
 */
import type { Activation, Tensor, Weight } from "../../graph/ops.ts";
import {
  quads,
  storageDefines,
  storeUniforms,
  type DeviceFacts,
  type Dispatch,
  type KernelContext,
  type Quantization,
} from "../kernel.ts";
import { quantizedWeights, storedZero } from "../quantized.ts";
import { matrix, table, vector } from "../weights.ts";

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

/** Over activations that are integers too. */
export const isInteger = ({ quantization }: Product): boolean => (quantization?.activations.length ?? 0) > 0;

/** Of the weight matrix, in whole quads; both halves of a gated one. */
export const columnsOf = ({ n, activation }: Product): number => quads(n) * 4 * (activation === "geglu" ? 2 : 1);

/** What every dispatch that computes all of y has in common. */
export function wholeOf(product: Product): Pick<Dispatch, "path" | "kind" | "work" | "writes"> {
  const { path, kind, rows, taps, x, x2 } = product;
  const inner = taps * (x.shape[3] + (x2?.shape[3] ?? 0));
  return { path, kind, work: rows * columnsOf(product) * inner, writes: ["y"] };
}

/**
 * What one file of shaders/shared wants of a dispatch. A dispatch carries what the files that its shader imports want, and
 * no more: WebGPU refuses a pipeline constant that the shader does not declare.
 */
export interface Part {
  readonly defines?: Dispatch["defines"];
  readonly constants?: Dispatch["constants"];
  readonly uniforms?: NonNullable<Dispatch["uniforms"]>;
  readonly bindings?: Dispatch["bindings"];
}

export function join(...parts: readonly Part[]): Required<Part> {
  return {
    defines: Object.assign({}, ...parts.map(({ defines }) => defines)),
    constants: Object.assign({}, ...parts.map(({ constants }) => constants)),
    uniforms: Object.assign({}, ...parts.map(({ uniforms }) => uniforms)),
    bindings: Object.assign({}, ...parts.map(({ bindings }) => bindings)),
  };
}

/**
 * A product as shaders take it, whichever way it is computed: its `sizes`, what is multiplied (`operands`), what turns
 * integer sums into floats (`scales`), and what follows the product (`epilogue`).
 */
export function describeProduct(product: Product, context: KernelContext) {
  const { x, x2, y, rows, n, first, activation, weights, quantization, biases, bos, added } = product;
  const { caps } = context;
  const gated = activation === "geglu";
  const integer = isInteger(product);
  const packed = quantization && quantizedWeights(weights, quantization, gated);
  const sizes: Part = {
    defines: { ...product.defines, ...(gated && { GEGLU: true as const }) },
    constants: { ROWS: rows, N4: quads(n), C4: quads(x.shape[3]), ...product.constants },
  };
  const operands: Part = {
    defines: {
      ...storageDefines(caps, { in: x.dtype, weights: packed ? "u32" : context.weightType }),
      ...(quantization && operandDefines(quantization, integer, caps)),
    },
    uniforms: integer ? { X_ZERO: storedZero(x), ...(x2 && { X2_ZERO: storedZero(x2) }) } : {},
    bindings: { x, ...(x2 && { x2 }), w: packed ? packed.codes : matrix(weights, context.weightType, gated) },
  };
  const scales: Part = packed
    ? {
        defines: scaleDefines(quantization!, integer),
        uniforms: operands.uniforms!,
        bindings: { parameters: packed.parameters },
      }
    : {};
  const epilogue: Part = {
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
      ...(bos.length > 0 && { TOKENS: x.shape[1] * x.shape[2], BOS_IMAGES: bos[0].shape[0] }),
    },
    uniforms: storeUniforms(y),
    bindings: {
      ...(biases.length > 0 && { bias: vector(biases, gated) }),
      ...(bos.length > 0 && { bos: table(bos) }),
      ...added,
      y,
    },
  };
  return { sizes, operands, scales, epilogue };
}

/** Of shaders/shared/codes.wgsl, and of gemm_i8.wgsl where the activations are integers too. */
function operandDefines(
  { weight: { bits, symmetric }, channels }: Quantization,
  integer: boolean,
  { packedDot }: DeviceFacts,
): Record<string, true> {
  return {
    [`W${bits}`]: true,
    ...(!integer && { CODES: true as const }),
    ...(integer && packedDot && { PACKED_DOT: true as const }),
    ...(integer && !(bits === 8 && symmetric) && { ZERO_POINT: true as const }),
    ...(integer && channels.every((count) => count % 16 === 0) && { WHOLE_BLOCKS: true as const }),
  };
}

/** Of shaders/shared/segments.wgsl and gemm_i8_dequantize.wgsl. */
function scaleDefines(
  { weight: { bits, group, range }, hasHalves }: Quantization,
  integer: boolean,
): Record<string, true> {
  return {
    ...(group !== null ? { GROUPED: true as const } : hasHalves && { SPLIT: true as const }),
    // Only the least-squares search allows zero points between two codes, and 8 bits do not gain by it.
    ...(integer && range === "mse" && bits < 8 && { FRACTIONAL: true as const }),
  };
}
