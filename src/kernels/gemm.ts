/**
 * Linear layers and convolutions. One formula (shaders/shared/gemm_finish.wgsl), four ways to it: floats or integers, each
 * direct or tiled. Weights that are only stored as integers are decoded by the float shaders.
 */
import type { Activation, Conv2dOp, LinearOp, LinearPart, Tensor, Weight } from "../graph/ops.ts";
import { activate } from "./functions.ts";
import {
  pixels,
  quads,
  spread,
  storageDefines,
  storeNumbers,
  type Bound,
  type Dispatch,
  type Kernel,
  type KernelContext,
  type Quantization,
} from "./kernel.ts";
import { floatFactors, quantizationOf, quantizedFactors, quantizedWeights, storedZero } from "./quantized.ts";
import { matrix, table, vector } from "./weights.ts";

const ACTIVATION_DEFINES: Record<Activation, Record<string, true>> = {
  none: { LINEAR: true },
  silu: { SILU: true },
  relu: { RELU: true },
  gelu: { GELU: true },
  quick_gelu: { QUICK_GELU: true },
  geglu: { LINEAR: true, GEGLU: true },
};

/** A product into some channels of y: what all four ways need to know. */
interface Product {
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

/** Elements (of 16 channels) of both operands that gemm_i8_tiled stages at a time. */
const STAGED_ELEMENTS = 4;

/** Into how many slices an integer product's inner dimension is cut; sums of integers do not mind. */
function slicesFor(workgroups: number, steps: number): number {
  const wanted = Math.ceil(ENOUGH_WORKGROUPS / workgroups);
  return Math.max(1, Math.min(wanted, Math.floor(steps / LEAST_STEPS), MOST_SLICES));
}

function dispatches(product: Product, context: KernelContext): Dispatch[] {
  const { path, kind, x, x2, y, rows, n, first, taps, activation, weights, quantization, biases, bos, added } = product;
  const { caps } = context;
  const gated = activation === "geglu";
  const columns = quads(n) * 4 * (gated ? 2 : 1);
  const isInteger = (quantization?.activations.length ?? 0) > 0;
  const packed = quantization && quantizedWeights(weights, quantization, gated);
  const weightType = packed ? "u32" : context.weightType;

  const shared = {
    path,
    kind,
    constants: {
      ROWS: rows,
      N4: quads(n),
      C4: quads(x.shape[3]),
      Y4: quads(y.shape[3]),
      ...(first > 0 && { Y_FIRST: quads(first) }),
      ...(bos.length > 0 && { TOKENS: x.shape[1] * x.shape[2], BOS_IMAGES: bos[0]!.shape[0]! }),
      ...product.constants,
    },
    numbers: {
      ...storeNumbers(y),
      ...(isInteger && { X_ZERO: storedZero(x), ...(x2 && { X2_ZERO: storedZero(x2) }) }),
    },
    writes: ["y"],
    work: rows * columns * taps * (x.shape[3] + (x2?.shape[3] ?? 0)),
  };
  const operands: Record<string, Bound> = {
    x,
    ...(x2 && { x2 }),
    w: packed ? packed.codes : matrix(weights, context.weightType, gated),
  };
  const parameters: Record<string, Bound> = packed ? { parameters: packed.parameters } : {};
  const end: Record<string, Bound> = {
    ...(biases.length > 0 && { bias: vector(biases, gated) }),
    ...(bos.length > 0 && { bos: table(bos) }),
    ...added,
    y,
  };
  const defines = {
    ...storageDefines(caps, { in: x.dtype, out: y.dtype, weights: weightType }),
    ...product.defines,
    ...(quantization && quantizedDefines(quantization, isInteger, context)),
    ...(isInteger && quantization!.channels.every((count) => count % 16 === 0) && { WHOLE_ELEMENTS: true as const }),
    ...(gated && { GEGLU: true as const }),
  };
  const endDefines = {
    ...ACTIVATION_DEFINES[activation],
    ...(biases.length > 0 && { BIAS: true as const }),
    ...(bos.length > 0 && { BOS: true as const }),
    ...(added["row_bias"] && { ROW_BIAS: true as const }),
    ...(added["residual"] && { RESIDUAL: true as const }),
  };
  const whole = { ...shared, bindings: { ...operands, ...parameters, ...end } };
  const shader = isInteger ? "gemm_i8" : "gemm";
  if (caps.gemm === "direct")
    return [
      {
        ...whole,
        shader: `${shader}_direct`,
        defines: { ...defines, ...endDefines },
        workgroups: [Math.ceil(quads(n) / 8), Math.ceil(rows / 32), 1],
      },
    ];

  const tile = tileFor(rows, columns);
  const [groupsM, groupsN] = [Math.ceil(rows / tile.BM), Math.ceil(columns / tile.BN)];
  const tiled = { ...defines, ...tile, ...(isInteger ? { BE: STAGED_ELEMENTS } : { BK4: 4 }) };
  const isOneSum = isInteger && !("SPLIT" in defines || "GROUPED" in defines);
  const steps = taps * Math.ceil((quads(x.shape[3]) + quads(x2?.shape[3] ?? 0)) / (4 * STAGED_ELEMENTS));
  const slices = isOneSum ? slicesFor(groupsM * groupsN, steps) : 1;
  if (slices === 1)
    return [
      {
        ...whole,
        shader: `${shader}_tiled`,
        defines: { ...tiled, ...endDefines },
        workgroups: [groupsM, groupsN, 1],
      },
    ];
  const sums = context.scratch(`${path}.sums`, [slices, 1, rows, columns], "u32");
  const xSums = context.scratch(`${path}.x_sums`, [slices, 1, rows, 1], "u32");
  return [
    {
      ...shared,
      shader: "gemm_i8_tiled",
      defines: { ...tiled, SLICES: slices },
      bindings: { ...operands, sums, x_sums: xSums },
      writes: ["sums", "x_sums"],
      workgroups: [groupsM, groupsN, slices],
    },
    {
      ...shared,
      shader: "gemm_i8_reduce",
      defines: { ...defines, ...endDefines, SLICES: slices },
      bindings: { sums, x_sums: xSums, ...parameters, ...end },
      workgroups: spread(Math.ceil((rows * quads(n)) / 64), caps),
      work: slices * rows * columns,
    },
  ];
}

function quantizedDefines(
  { weight, hasHalves }: Quantization,
  isInteger: boolean,
  { caps }: KernelContext,
): Record<string, true> {
  const { bits, group, symmetric, range } = weight;
  return {
    [`W${bits}`]: true,
    ...(group !== null ? { GROUPED: true as const } : hasHalves && { SPLIT: true as const }),
    ...(!isInteger && { CODES: true as const }),
    ...(isInteger && caps.packedDot && { PACKED_DOT: true as const }),
    ...(isInteger && !(bits === 8 && symmetric) && { ZERO_POINT: true as const }),
    // Only the least-squares search allows zero points between two codes, and 8 bits do not gain by it.
    ...(isInteger && range === "mse" && bits < 8 && { FRACTIONAL: true as const }),
  };
}

/** Parts that one dispatch can compute: over the same input, in the same format. */
function partGroups(op: LinearOp): LinearPart[][] {
  const formatOf = ({ x, quant, bias, bos }: LinearPart): string =>
    JSON.stringify([(x ?? op.x).id, quant, bias !== undefined, bos?.shape[0]]);
  const groups: LinearPart[][] = [];
  for (const part of op.parts) {
    const last = groups.at(-1);
    if (last && formatOf(last[0]!) === formatOf(part)) last.push(part);
    else groups.push([part]);
  }
  return groups;
}

const channelsOf = (parts: readonly LinearPart[]): number =>
  parts.reduce((sum, { weight }) => sum + weight.shape[0]!, 0);

const partQuantization = (op: LinearOp, { x = op.x, quant }: LinearPart): Quantization | undefined =>
  quant && quantizationOf(quant, { x, taps: 1, split: false });

const convQuantization = ({ x, x2, kernel, quant, split = false }: Conv2dOp): Quantization | undefined =>
  quant && quantizationOf(quant, { x, x2, taps: kernel * kernel, split });

export const linear: Kernel<LinearOp> = {
  dispatches(op, context) {
    const { path, y, activation, residual } = op;
    let first = 0;
    return partGroups(op).flatMap((parts) => {
      const { x = op.x } = parts[0]!;
      const channels = channelsOf(parts);
      const product: Product = {
        // A fused layer that falls apart is reported layer by layer.
        path: parts.length === op.parts.length ? path : parts.map((part) => part.path).join("+"),
        kind: "linear",
        x,
        y,
        rows: pixels(x),
        n: activation === "geglu" ? channels / 2 : channels,
        first,
        taps: 1,
        activation,
        weights: parts.map(({ weight }) => weight),
        quantization: partQuantization(op, parts[0]!),
        biases: parts.flatMap(({ bias }) => bias ?? []),
        bos: parts.flatMap(({ bos }) => bos ?? []),
        defines: {},
        constants: {},
        added: residual ? { residual } : {},
      };
      first += channels;
      return dispatches(product, context);
    });
  },

  reference(op, { tensor, weight }) {
    const { y, parts, activation, residual } = op;
    const rows = pixels(op.x);
    const k = op.x.shape[3];
    const n = y.shape[3];
    const columns = activation === "geglu" ? 2 * n : n;
    const tokens = op.x.shape[1] * op.x.shape[2];
    const before = new Float64Array(rows * columns);
    let first = 0;
    for (const part of parts) {
      const { x = op.x } = part;
      const input = tensor(x);
      const zero = storedZero(x);
      const quantization = partQuantization(op, part);
      const values = weight(part.weight);
      const w = quantization ? quantizedFactors(values, part.weight, quantization) : floatFactors(values, k);
      const b = part.bias && weight(part.bias);
      const bos = part.bos && weight(part.bos);
      const count = part.weight.shape[0]!;
      const sums = new Float64Array(w.segments);
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < count; column++) {
          let sum = b ? b[column]! : 0;
          if (bos && row % tokens === 0) {
            sum += bos[Math.min(row / tokens, part.bos!.shape[0]! - 1) * count + column]!;
          } else {
            sums.fill(0);
            for (let i = 0; i < k; i++)
              sums[w.segmentOf[i]!]! += (input[row * k + i]! - zero) * w.weights[column * k + i]!;
            for (let segment = 0; segment < w.segments; segment++) sum += w.scale(column, segment) * sums[segment]!;
          }
          before[row * columns + first + column] = sum;
        }
      first += count;
    }
    const out = new Float32Array(rows * n);
    const add = residual && tensor(residual);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < n; column++) {
        const value = before[row * columns + column]! + (add ? add[row * n + column]! : 0);
        out[row * n + column] =
          activation === "geglu"
            ? value * activate("gelu", before[row * columns + n + column]!)
            : activate(activation, value);
      }
    return out;
  },
};

export const conv2d: Kernel<Conv2dOp> = {
  dispatches(op, context) {
    const { path, x, x2, y, kernel, stride, padding, upsample, activation, residual, rowBias } = op;
    const [, height, width] = x.shape;
    const [, outHeight, outWidth] = y.shape;
    const pointwise = kernel === 1 && stride === 1 && !upsample && !x2;
    return dispatches(
      {
        path,
        kind: "conv2d",
        x,
        x2,
        y,
        rows: pixels(y),
        n: y.shape[3],
        first: 0,
        taps: kernel * kernel,
        activation,
        weights: [op.weight],
        quantization: convQuantization(op),
        biases: op.bias ? [op.bias] : [],
        bos: [],
        defines: {
          ...(!pointwise && { CONV: true }),
          ...(kernel === 3 && { CONV3: true }),
          ...(stride === 2 && { STRIDE2: true }),
          ...(padding === "end" && { PAD_END: true }),
          ...(upsample && { UPSAMPLE: true }),
          ...(x2 && { SKIP: true }),
        },
        constants: {
          PIXELS: outHeight * outWidth,
          ...(!pointwise && { OW: outWidth, H: height, W: width }),
          ...(x2 && { S4: quads(x2.shape[3]) }),
        },
        added: { ...(rowBias && { row_bias: rowBias }), ...(residual && { residual }) },
      },
      context,
    );
  },

  reference(op, { tensor, weight }) {
    const { x, x2, y, kernel, stride, padding, upsample, activation, residual, rowBias } = op;
    const [batch, height, width, c1] = x.shape;
    const [, outHeight, outWidth, n] = y.shape;
    const c2 = x2 ? x2.shape[3] : 0;
    const edge = padding === "end" ? 0 : (kernel - 1) / 2;
    const [inHeight, inWidth] = upsample ? [outHeight, outWidth] : [height, width];
    const input = tensor(x);
    const skip = x2 && tensor(x2);
    const [zero, skipZero] = [storedZero(x), x2 ? storedZero(x2) : 0];
    const quantization = convQuantization(op);
    const values = weight(op.weight);
    const w = quantization ? quantizedFactors(values, op.weight, quantization) : floatFactors(values, c1 + c2);
    const b = op.bias && weight(op.bias);
    const add = residual && tensor(residual);
    const rows = rowBias && tensor(rowBias);
    const out = new Float32Array(batch * outHeight * outWidth * n);
    const sums = new Float64Array(w.segments);
    for (let image = 0; image < batch; image++)
      for (let oy = 0; oy < outHeight; oy++)
        for (let ox = 0; ox < outWidth; ox++)
          for (let channel = 0; channel < n; channel++) {
            sums.fill(0);
            for (let ky = 0; ky < kernel; ky++)
              for (let kx = 0; kx < kernel; kx++) {
                let iy = oy * stride + ky - edge;
                let ix = ox * stride + kx - edge;
                if (iy < 0 || ix < 0 || iy >= inHeight || ix >= inWidth) continue;
                if (upsample) [iy, ix] = [Math.floor((iy * height) / outHeight), Math.floor((ix * width) / outWidth)];
                const pixel = (image * height + iy) * width + ix;
                for (let c = 0; c < c1 + c2; c++)
                  sums[w.segmentOf[c]!]! +=
                    (c < c1 ? input[pixel * c1 + c]! - zero : skip![pixel * c2 + c - c1]! - skipZero) *
                    w.weights[((channel * (c1 + c2) + c) * kernel + ky) * kernel + kx]!;
              }
            const at = ((image * outHeight + oy) * outWidth + ox) * n + channel;
            let sum = b ? b[channel]! : 0;
            for (let segment = 0; segment < w.segments; segment++) sum += w.scale(channel, segment) * sums[segment]!;
            if (rows) sum += rows[image * n + channel]!;
            if (add) sum += add[at]!;
            out[at] = activate(activation, sum);
          }
    return out;
  },
};
