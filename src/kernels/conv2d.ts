/** Convolutions; also over two tensors as if they were one, and over an upsampled one that nobody ever stores. */
import type { Conv2dOp } from "../graph/ops.ts";
import { floatFactors, quantizedFactors } from "./factors.ts";
import { activate } from "./functions.ts";
import { gemm } from "./gemm/variants.ts";
import { pixels, quads, type Kernel, type Quantization } from "./kernel.ts";
import { quantizationOf, storedZero } from "./quantized.ts";

export const conv2d: Kernel<Conv2dOp> = {
  dispatches(op, context) {
    const { path, x, x2, y, kernel, stride, padding, upsample, activation, residual, rowBias } = op;
    const [, height, width] = x.shape;
    const [, outHeight, outWidth] = y.shape;
    const pointwise = kernel === 1 && stride === 1 && !upsample && !x2;
    return gemm(
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

  reference(op, { tensor, weight, matrices }) {
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
    const w = quantization
      ? quantizedFactors(matrices.get(op.weight.name)!, quantization)
      : floatFactors(weight(op.weight), c1 + c2);
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
                  sums[w.segmentOf[c]] +=
                    (c < c1 ? input[pixel * c1 + c] - zero : skip![pixel * c2 + c - c1] - skipZero) *
                    w.weights[((channel * (c1 + c2) + c) * kernel + ky) * kernel + kx];
              }
            const at = ((image * outHeight + oy) * outWidth + ox) * n + channel;
            let sum = b ? b[channel] : 0;
            for (let segment = 0; segment < w.segments; segment++) sum += w.scale(channel, segment) * sums[segment];
            if (rows) sum += rows[image * n + channel];
            if (add) sum += add[at];
            out[at] = activate(activation, sum);
          }
    return out;
  },
};

const convQuantization = ({ x, x2, kernel, quant, split = false }: Conv2dOp): Quantization | undefined =>
  quant && quantizationOf(quant, { x, x2, taps: kernel * kernel, split });
