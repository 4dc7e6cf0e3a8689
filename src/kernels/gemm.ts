/** Linear layers and convolutions: one pair of shaders, gemm_direct and gemm_tiled (see shaders/shared/gemm.wgsl). */
import type { Activation, Conv2dOp, LinearOp } from "../graph/ops.ts";
import { activate } from "./functions.ts";
import { pixels, quads, storageDefines, type Bound, type Dispatch, type Kernel, type KernelContext } from "./kernel.ts";
import { matrix, vector } from "./weights.ts";

const ACTIVATION_DEFINES: Record<Activation, Record<string, true>> = {
  none: { LINEAR: true },
  silu: { SILU: true },
  relu: { RELU: true },
  gelu: { GELU: true },
  quick_gelu: { QUICK_GELU: true },
  geglu: { LINEAR: true, GEGLU: true },
};

interface Gemm {
  readonly path: string;
  readonly kind: string;
  readonly rows: number;
  /** Channels of the output. */
  readonly n: number;
  /** Length of a dot product. */
  readonly k: number;
  readonly activation: Activation;
  readonly defines: Record<string, true>;
  readonly constants: Record<string, number>;
  readonly bindings: Record<string, Bound>;
}

/**
 * The tile of gemm_tiled, in pixels x channels. 64 x 64 with 128 invocations; half the rows (64 invocations) where the
 * larger tile would leave most of a big GPU idle (under 128 workgroups), or would be half empty.
 */
function tileFor(rows: number, columns: number): { BM: number; BN: number; BK4: number } {
  const small = rows <= 32 || Math.ceil(rows / 64) * Math.ceil(columns / 64) < 128;
  return { BM: small ? 32 : 64, BN: 64, BK4: 4 };
}

function dispatch(gemm: Gemm, { caps }: KernelContext): Dispatch {
  const { path, kind, rows, n, k, activation } = gemm;
  const columns = quads(n) * 4 * (activation === "geglu" ? 2 : 1);
  const shared = {
    path,
    kind,
    constants: { ROWS: rows, N4: quads(n), ...gemm.constants },
    bindings: gemm.bindings,
    writes: ["y"],
    work: rows * columns * k,
  };
  const defines = { ...gemm.defines, ...ACTIVATION_DEFINES[activation] };
  if (caps.gemm === "direct")
    return {
      ...shared,
      shader: "gemm_direct",
      defines,
      workgroups: [Math.ceil(quads(n) / 8), Math.ceil(rows / 32), 1],
    };
  const tile = tileFor(rows, columns);
  return {
    ...shared,
    shader: "gemm_tiled",
    defines: { ...defines, ...tile },
    workgroups: [Math.ceil(rows / tile.BM), Math.ceil(columns / tile.BN), 1],
  };
}

export const linear: Kernel<LinearOp> = {
  dispatches(op, context) {
    const { path, x, y, parts, activation, residual } = op;
    const gated = activation === "geglu";
    const biases = parts.flatMap(({ bias }) => (bias ? [bias] : []));
    return [
      dispatch(
        {
          path,
          kind: "linear",
          rows: pixels(x),
          n: y.shape[3],
          k: x.shape[3],
          activation,
          defines: {
            ...storageDefines(context.caps, { in: x.dtype, out: y.dtype, weights: context.weightType }),
            ...(biases.length > 0 && { BIAS: true }),
            ...(residual && { RESIDUAL: true }),
          },
          constants: { C4: quads(x.shape[3]) },
          bindings: {
            x,
            w: matrix(
              parts.map(({ weight }) => weight),
              context.weightType,
              gated,
            ),
            ...(biases.length > 0 && { bias: vector(biases, gated) }),
            ...(residual && { residual }),
            y,
          },
        },
        context,
      ),
    ];
  },

  reference({ x, y, parts, activation, residual }, { tensor, weight }) {
    const rows = pixels(x);
    const k = x.shape[3];
    const n = y.shape[3];
    const columns = activation === "geglu" ? 2 * n : n;
    const input = tensor(x);
    const before = new Float64Array(rows * columns);
    let first = 0;
    for (const part of parts) {
      const w = weight(part.weight);
      const b = part.bias && weight(part.bias);
      const count = part.weight.shape[0]!;
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < count; column++) {
          let sum = b ? b[column]! : 0;
          for (let i = 0; i < k; i++) sum += input[row * k + i]! * w[column * k + i]!;
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
    return [
      dispatch(
        {
          path,
          kind: "conv2d",
          rows: pixels(y),
          n: y.shape[3],
          k: kernel * kernel * (x.shape[3] + (x2 ? x2.shape[3] : 0)),
          activation,
          defines: {
            ...storageDefines(context.caps, { in: x.dtype, out: y.dtype, weights: context.weightType }),
            ...(!pointwise && { CONV: true }),
            ...(kernel === 3 && { CONV3: true }),
            ...(stride === 2 && { STRIDE2: true }),
            ...(padding === "end" && { PAD_END: true }),
            ...(upsample && { UPSAMPLE: true }),
            ...(x2 && { SKIP: true }),
            ...(op.bias && { BIAS: true }),
            ...(rowBias && { ROW_BIAS: true }),
            ...(residual && { RESIDUAL: true }),
          },
          constants: {
            C4: quads(x.shape[3]),
            PIXELS: outHeight * outWidth,
            ...(!pointwise && { OW: outWidth, H: height, W: width }),
            ...(x2 && { S4: quads(x2.shape[3]) }),
          },
          bindings: {
            x,
            ...(x2 && { x2 }),
            w: matrix([op.weight], context.weightType),
            ...(op.bias && { bias: vector([op.bias]) }),
            ...(rowBias && { row_bias: rowBias }),
            ...(residual && { residual }),
            y,
          },
        },
        context,
      ),
    ];
  },

  reference({ x, x2, y, kernel, stride, padding, upsample, activation, residual, rowBias, ...op }, { tensor, weight }) {
    const [batch, height, width, c1] = x.shape;
    const [, outHeight, outWidth, n] = y.shape;
    const c2 = x2 ? x2.shape[3] : 0;
    const edge = padding === "end" ? 0 : (kernel - 1) / 2;
    const [inHeight, inWidth] = upsample ? [outHeight, outWidth] : [height, width];
    const input = tensor(x);
    const skip = x2 && tensor(x2);
    const w = weight(op.weight);
    const b = op.bias && weight(op.bias);
    const add = residual && tensor(residual);
    const rows = rowBias && tensor(rowBias);
    const out = new Float32Array(batch * outHeight * outWidth * n);
    for (let image = 0; image < batch; image++)
      for (let oy = 0; oy < outHeight; oy++)
        for (let ox = 0; ox < outWidth; ox++)
          for (let channel = 0; channel < n; channel++) {
            let sum = b ? b[channel]! : 0;
            for (let ky = 0; ky < kernel; ky++)
              for (let kx = 0; kx < kernel; kx++) {
                let iy = oy * stride + ky - edge;
                let ix = ox * stride + kx - edge;
                if (iy < 0 || ix < 0 || iy >= inHeight || ix >= inWidth) continue;
                if (upsample) [iy, ix] = [Math.floor((iy * height) / outHeight), Math.floor((ix * width) / outWidth)];
                const pixel = (image * height + iy) * width + ix;
                for (let c = 0; c < c1 + c2; c++)
                  sum +=
                    (c < c1 ? input[pixel * c1 + c]! : skip![pixel * c2 + c - c1]!) *
                    w[((channel * (c1 + c2) + c) * kernel + ky) * kernel + kx]!;
              }
            const at = ((image * outHeight + oy) * outWidth + ox) * n + channel;
            if (rows) sum += rows[image * n + channel]!;
            if (add) sum += add[at]!;
            out[at] = activate(activation, sum);
          }
    return out;
  },
};
