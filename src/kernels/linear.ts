/** Linear layers whose results lie side by side, and which are computed at once wherever input and format allow it. */
import type { LinearOp, LinearPart } from "../graph/ops.ts";
import { floatFactors, quantizedFactors } from "./factors.ts";
import { activate } from "./functions.ts";
import type { Product } from "./gemm/product.ts";
import { gemm } from "./gemm/variants.ts";
import { pixels, type Kernel, type Quantization } from "./kernel.ts";
import { quantizationOf, storedZero } from "./quantized.ts";

export const linear: Kernel<LinearOp> = {
  dispatches(op, context) {
    const { path, y, activation, residual } = op;
    let first = 0;
    return partGroups(op).flatMap((parts) => {
      const { x = op.x } = parts[0];
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
        quantization: partQuantization(op, parts[0]),
        biases: parts.flatMap(({ bias }) => bias ?? []),
        bos: parts.flatMap(({ bos }) => bos ?? []),
        defines: {},
        constants: {},
        added: residual ? { residual } : {},
      };
      first += channels;
      return gemm(product, context);
    });
  },

  reference(op, { tensor, weight, matrices }) {
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
      const w = quantization
        ? quantizedFactors(matrices.get(part.weight.name)!, quantization)
        : floatFactors(weight(part.weight), k);
      const b = part.bias && weight(part.bias);
      const bos = part.bos && weight(part.bos);
      const count = part.weight.shape[0];
      const sums = new Float64Array(w.segments);
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < count; column++) {
          let sum = b ? b[column] : 0;
          if (bos && row % tokens === 0) {
            sum += bos[Math.min(row / tokens, part.bos!.shape[0] - 1) * count + column];
          } else {
            sums.fill(0);
            for (let i = 0; i < k; i++) sums[w.segmentOf[i]] += (input[row * k + i] - zero) * w.weights[column * k + i];
            for (let segment = 0; segment < w.segments; segment++) sum += w.scale(column, segment) * sums[segment];
          }
          before[row * columns + first + column] = sum;
        }
      first += count;
    }
    const out = new Float32Array(rows * n);
    const add = residual && tensor(residual);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < n; column++) {
        const value = before[row * columns + column] + (add ? add[row * n + column] : 0);
        out[row * n + column] =
          activation === "geglu"
            ? value * activate("gelu", before[row * columns + n + column])
            : activate(activation, value);
      }
    return out;
  },
};

/** Parts that one dispatch can compute: over the same input, in the same format. */
function partGroups(op: LinearOp): LinearPart[][] {
  const formatOf = ({ x, quant, bias, bos }: LinearPart): string =>
    JSON.stringify([(x ?? op.x).id, quant, bias !== undefined, bos?.shape[0]]);
  const groups: LinearPart[][] = [];
  for (const part of op.parts) {
    const last = groups.at(-1);
    if (last && formatOf(last[0]) === formatOf(part)) last.push(part);
    else groups.push([part]);
  }
  return groups;
}

const channelsOf = (parts: readonly LinearPart[]): number =>
  parts.reduce((sum, { weight }) => sum + weight.shape[0], 0);

const partQuantization = (op: LinearOp, { x = op.x, quant }: LinearPart): Quantization | undefined =>
  quant && quantizationOf(quant, { x, taps: 1, split: false });
