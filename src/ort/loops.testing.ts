/** Plain loops in 64-bit floats over a Graph, for this room's tests: no blocking, no reuse, nothing to get wrong. */
import { elementCount } from "../graph/ops.ts";
import type { Activation, ChannelSlice, Graph, Op, Tensor, Weight } from "../graph/ops.ts";

type Values = ReadonlyMap<number, Float64Array>;
type Weights = (name: string) => ArrayLike<number>;

/** Every output of the graph. */
export function runLoops(graph: Graph, inputs: Record<string, ArrayLike<number>>, weights: Weights) {
  const values = new Map<number, Float64Array>();
  for (const [key, tensor] of Object.entries(graph.inputs)) values.set(tensor.id, Float64Array.from(inputs[key]));
  for (const op of graph.ops) values.set(op.y.id, compute(op, values, weights));
  return Object.fromEntries(Object.entries(graph.outputs).map(([key, tensor]) => [key, values.get(tensor.id)!]));
}

function compute(op: Op, values: Values, weights: Weights): Float64Array {
  const y = new Float64Array(elementCount(op.y.shape));
  const [batch, height, width, channels] = op.y.shape;
  const value = (tensor: Tensor) => values.get(tensor.id)!;
  const param = (weight?: Weight) => (weight ? weights(weight.name) : undefined);
  switch (op.kind) {
    case "linear": {
      const n = op.parts.reduce((sum, part) => sum + part.weight.shape[0], 0);
      const k = op.x.shape[3];
      const sums = new Float64Array((y.length / channels) * n);
      let first = 0;
      for (const part of op.parts) {
        const w = param(part.weight)!;
        const bias = param(part.bias);
        for (let m = 0; m < sums.length / n; m++)
          for (let j = 0; j < part.weight.shape[0]; j++) {
            let sum = bias?.[j] ?? 0;
            for (let i = 0; i < k; i++) sum += value(op.x)[m * k + i] * w[j * k + i];
            sums[m * n + first + j] = sum;
          }
        first += part.weight.shape[0];
      }
      if (op.residual) value(op.residual).forEach((r, i) => (sums[i] += r));
      if (op.activation !== "geglu") return sums.map((x) => activate(x, op.activation));
      return y.map((_, i) => {
        const at = Math.floor(i / channels) * n + (i % channels);
        return sums[at] * activate(sums[at + channels], "gelu");
      });
    }
    case "conv2d": {
      const x = concat(op.x, op.x2, values);
      const [, h, w] = op.x.shape;
      const k = x.length / (batch * h * w);
      const [inH, inW] = op.upsample ? [height * op.stride, width * op.stride] : [h, w];
      const weight = param(op.weight)!;
      const pad = (op.kernel - 1) / 2;
      return y.map((_, at) => {
        const n = at % channels;
        const j = Math.floor(at / channels) % width;
        const i = Math.floor(at / channels / width) % height;
        const b = Math.floor(at / channels / width / height);
        let sum = (param(op.bias)?.[n] ?? 0) + (op.rowBias ? value(op.rowBias)[b * channels + n] : 0);
        for (let di = 0; di < op.kernel; di++)
          for (let dj = 0; dj < op.kernel; dj++) {
            const [ii, jj] = [i * op.stride + di - pad, j * op.stride + dj - pad];
            if (ii < 0 || jj < 0 || ii >= inH || jj >= inW) continue;
            const pixel = op.upsample ? (b * h + (ii >> 1)) * w + (jj >> 1) : (b * h + ii) * w + jj;
            for (let c = 0; c < k; c++)
              sum += x[pixel * k + c] * weight[((n * k + c) * op.kernel + di) * op.kernel + dj];
          }
        return activate(sum + (op.residual ? value(op.residual)[at] : 0), op.activation);
      });
    }
    case "group_norm": {
      const x = concat(op.x, op.x2, values);
      const size = channels / op.groups;
      for (let b = 0; b < batch; b++)
        for (let g = 0; g < op.groups; g++) {
          const members: number[] = [];
          for (let p = 0; p < height * width; p++)
            for (let c = 0; c < size; c++) members.push((b * height * width + p) * channels + g * size + c);
          normalize(x, members, op.eps, (i, v) => {
            y[i] = activate(v * param(op.weight)![i % channels] + param(op.bias)![i % channels], op.activation);
          });
        }
      return y;
    }
    case "layer_norm":
      for (let m = 0; m < y.length; m += channels) {
        const members = Array.from({ length: channels }, (_, c) => m + c);
        normalize(value(op.x), members, op.eps, (i, v) => {
          y[i] = v * param(op.weight)![i % channels] + param(op.bias)![i % channels];
        });
      }
      return y;
    case "attention": {
      const d = channels / op.heads;
      const [tq, tk] = [op.q, op.k].map(({ tensor }) => tensor.shape[1] * tensor.shape[2]);
      const at = (s: ChannelSlice, t: number, token: number, c: number) =>
        value(s.tensor)[
          t * s.tensor.shape[3] * s.tensor.shape[1] * s.tensor.shape[2] + token * s.tensor.shape[3] + s.offset + c
        ];
      for (let b = 0; b < batch; b++)
        for (let head = 0; head < op.heads; head++)
          for (let i = 0; i < tq; i++) {
            const scores = Array.from({ length: op.causal ? i + 1 : tk }, (_, j) => {
              let sum = 0;
              for (let c = 0; c < d; c++) sum += at(op.q, b, i, head * d + c) * at(op.k, b, j, head * d + c);
              return sum * d ** -0.5;
            });
            const top = Math.max(...scores);
            const powers = scores.map((s) => Math.exp(s - top));
            const total = powers.reduce((sum, p) => sum + p, 0);
            for (let c = 0; c < d; c++)
              y[(b * tq + i) * channels + head * d + c] = powers.reduce(
                (s, p, j) => s + (p / total) * at(op.v, b, j, head * d + c),
                0,
              );
          }
      return y;
    }
    case "embedding":
      return y.map((_, i) => {
        const [token, c] = [Math.floor(i / channels), i % channels];
        return (
          param(op.table)![value(op.ids)[token] * channels + c] + param(op.positions)![(token % width) * channels + c]
        );
      });
    case "gather": {
      const tokens = op.x.shape[1] * op.x.shape[2];
      return y.map((_, i) => {
        const [b, c] = [Math.floor(i / channels), i % channels];
        return value(op.x)[(b * tokens + value(op.index)[b]) * channels + c];
      });
    }
    case "unary":
      return value(op.x).map((x) => {
        if (op.fn.name === "affine") return op.fn.scale * x + op.fn.shift;
        return op.fn.name === "silu" ? activate(x, "silu") : 3 * Math.tanh(x / 3);
      });
  }
}

function concat(x: Tensor, x2: Tensor | undefined, values: Values): Float64Array {
  const first = values.get(x.id)!;
  if (!x2) return first;
  const [c1, c2] = [x.shape[3], x2.shape[3]];
  const second = values.get(x2.id)!;
  return new Float64Array(first.length + second.length).map((_, i) => {
    const [pixel, c] = [Math.floor(i / (c1 + c2)), i % (c1 + c2)];
    return c < c1 ? first[pixel * c1 + c] : second[pixel * c2 + c - c1];
  });
}

function normalize(x: Float64Array, members: number[], eps: number, set: (i: number, value: number) => void): void {
  const mean = members.reduce((sum, i) => sum + x[i], 0) / members.length;
  const variance = members.reduce((sum, i) => sum + (x[i] - mean) ** 2, 0) / members.length;
  for (const i of members) set(i, (x[i] - mean) / Math.sqrt(variance + eps));
}

function activate(x: number, activation: Activation): number {
  switch (activation) {
    case "silu":
      return x / (1 + Math.exp(-x));
    case "quick_gelu":
      return x / (1 + Math.exp(-1.702 * x));
    case "relu":
      return Math.max(0, x);
    case "gelu":
      return 0.5 * x * (1 + erf(x / Math.SQRT2));
    default:
      return x;
  }
}

/** Taylor's series, exact enough in 64 bits for |x| < 5; beyond that erf is 1 to 12 digits. */
function erf(x: number): number {
  if (Math.abs(x) > 5) return Math.sign(x);
  let [sum, term] = [x, x];
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 200; n++) sum += (term *= (-x * x) / n) / (2 * n + 1);
  return (2 / Math.sqrt(Math.PI)) * sum;
}
