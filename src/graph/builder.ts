/**
 * Builds a Graph op by op and checks every shape as it goes: a graph that was built can be run.
 * A model's description (unet.ts, clip.ts, vae.ts) calls these methods and nothing else.
 */
import { MixdqError } from "../base/errors.ts";
import type {
  Activation,
  AttentionOp,
  ChannelSlice,
  DType,
  Graph,
  LinearPart,
  Op,
  Shape,
  Tensor,
  UnaryOp,
  Weight,
} from "./ops.ts";

export interface LinearOptions {
  /** Default: true. */
  bias?: boolean;
  activation?: Activation;
  residual?: Tensor;
  /** The result is part of the residual stream; with a residual it always is. */
  stream?: boolean;
}

export interface ConvOptions {
  kernel?: 1 | 3;
  stride?: 1 | 2;
  /** Default: same. */
  padding?: "same" | "end";
  /** Nearest-neighbour enlargement to this [height, width] (twice the input's, give or take one) before the convolution. */
  upsampleTo?: readonly [height: number, width: number];
  skip?: Tensor;
  rowBias?: Tensor;
  residual?: Tensor;
  activation?: Activation;
  bias?: boolean;
  /** The result is part of the residual stream; with a residual it always is. */
  stream?: boolean;
}

export class GraphBuilder {
  readonly #name: string;
  readonly #dtype: "f32" | "f16";
  readonly #stream: "f32" | "f16";
  readonly #ops: Op[] = [];
  readonly #inputs: Record<string, Tensor> = {};
  readonly #outputs: Record<string, Tensor> = {};
  readonly #weights = new Map<string, Weight>();
  #aliases: (name: string) => readonly string[] = () => [];
  #count = 0;

  /**
   * `dtype` is how activations are stored; `stream` how inputs and the residual stream are (whatever is added up from
   * block to block: an error there is never forgotten). Default: as activations.
   */
  constructor(name: string, dtype: "f32" | "f16", stream: "f32" | "f16" = dtype) {
    this.#name = name;
    this.#dtype = dtype;
    this.#stream = stream;
  }

  /** Names under which older checkpoints keep a weight, asked for each weight that is declared from here on. */
  aliases(of: (name: string) => readonly string[]): void {
    this.#aliases = of;
  }

  input(name: string, shape: Shape, dtype: DType = this.#stream): Tensor {
    return (this.#inputs[name] = this.#tensor(name, shape, dtype));
  }

  output(name: string, tensor: Tensor): void {
    this.#outputs[name] = tensor;
  }

  finish(): Graph {
    return {
      name: this.#name,
      ops: this.#ops,
      inputs: this.#inputs,
      outputs: this.#outputs,
      weights: [...this.#weights.values()],
    };
  }

  /** x [B, H, W, K] -> [B, H, W, n], or n / 2 for geglu. */
  linear(path: string, x: Tensor, n: number, options: LinearOptions = {}): Tensor {
    return this.linears(path, x, [{ path, n }], options);
  }

  /** Several linear layers over one input, their outputs side by side in the channels of one tensor. */
  linears(
    path: string,
    x: Tensor,
    layers: readonly { path: string; n: number }[],
    { bias = true, activation = "none", residual, stream = false }: LinearOptions = {},
  ): Tensor {
    const [batch, height, width, k] = x.shape;
    const total = layers.reduce((sum, layer) => sum + layer.n, 0);
    this.#quads(path, "input channels", k);
    for (const { path: part, n } of layers) this.#quads(part, "output channels", n);
    const outChannels = activation === "geglu" ? total / 2 : total;
    const y = this.#tensor(path, [batch, height, width, outChannels], this.#resultType(residual, stream));
    if (activation === "geglu") this.#quads(path, "gated channels", total / 2);
    if (residual && activation === "geglu") this.#fail(path, "a residual", "none with geglu");
    if (residual) this.#same(path, "residual", residual.shape, y.shape);
    const parts = layers.map(({ path: part, n }): LinearPart => {
      const weight = this.#weight(`${part}.weight`, [n, k]);
      return bias ? { path: part, weight, bias: this.#weight(`${part}.bias`, [n]) } : { path: part, weight };
    });
    this.#ops.push({ kind: "linear", path, x, parts, activation, ...(residual && { residual }), y });
    return y;
  }

  /** x [B, H, W, K] (with a skip's channels after it) -> [B, H', W', n]. */
  conv2d(path: string, x: Tensor, n: number, options: ConvOptions = {}): Tensor {
    const {
      kernel = 3,
      stride = 1,
      padding = "same",
      upsampleTo,
      skip,
      rowBias,
      residual,
      activation = "none",
      bias = true,
      stream = false,
    } = options;
    const [batch, height, width, k1] = x.shape;
    let inputSize: readonly [number, number] = [height, width];
    if (upsampleTo) {
      for (const [axis, from, to] of [
        ["height", height, upsampleTo[0]],
        ["width", width, upsampleTo[1]],
      ] as const)
        if (Math.abs(to - 2 * from) > 1) this.#fail(path, `upsampled ${axis} ${to}`, `about twice the input's ${from}`);
      if (stride !== 1) this.#fail(path, `stride ${stride} after upsampling`, "1");
      inputSize = upsampleTo;
    }
    if (skip) {
      this.#same(path, "skip connection", skip.shape.slice(0, 3), x.shape.slice(0, 3));
      this.#quads(path, "channels before the skip connection", k1);
    }
    const k = k1 + (skip ? skip.shape[3] : 0);
    const outSize = (size: number): number =>
      padding === "end" ? Math.floor(size / stride) : Math.ceil(size / stride);
    const y = this.#tensor(
      path,
      [batch, outSize(inputSize[0]), outSize(inputSize[1]), n],
      this.#resultType(residual, stream),
    );
    if (rowBias) this.#same(path, "row bias", rowBias.shape, [batch, 1, 1, n]);
    if (skip) this.#alike(path, x, skip);
    if (rowBias) this.#alike(path, y, rowBias);
    if (residual) this.#same(path, "residual", residual.shape, y.shape);
    this.#ops.push({
      kind: "conv2d",
      path,
      x,
      ...(skip && { x2: skip }),
      weight: this.#weight(`${path}.weight`, [n, k, kernel, kernel]),
      ...(bias && { bias: this.#weight(`${path}.bias`, [n]) }),
      kernel,
      stride,
      padding,
      upsample: upsampleTo !== undefined,
      ...(rowBias && { rowBias }),
      ...(residual && { residual }),
      activation,
      y,
    });
    return y;
  }

  groupNorm(
    path: string,
    x: Tensor,
    {
      groups,
      eps,
      skip,
      activation = "none",
    }: { groups: number; eps: number; skip?: Tensor; activation?: "none" | "silu" },
  ): Tensor {
    const [batch, height, width, c1] = x.shape;
    if (skip) this.#same(path, "skip connection", skip.shape.slice(0, 3), x.shape.slice(0, 3));
    if (skip) this.#alike(path, x, skip);
    const channels = c1 + (skip ? skip.shape[3] : 0);
    this.#quads(path, "channels", c1);
    this.#quads(path, "channels", channels);
    if (channels % groups !== 0) this.#fail(path, `${channels} channels`, `a multiple of norm_num_groups = ${groups}`);
    const y = this.#tensor(path, [batch, height, width, channels]);
    const { weight, bias } = this.#affine(path, channels);
    this.#ops.push({
      kind: "group_norm",
      path,
      x,
      ...(skip && { x2: skip }),
      weight,
      bias,
      groups,
      eps,
      activation,
      y,
    });
    return y;
  }

  layerNorm(path: string, x: Tensor, eps: number, { stream = false }: { stream?: boolean } = {}): Tensor {
    this.#quads(path, "channels", x.shape[3]);
    const y = this.#tensor(path, x.shape, this.#resultType(undefined, stream));
    this.#ops.push({ kind: "layer_norm", path, x, ...this.#affine(path, x.shape[3]), eps, y });
    return y;
  }

  /** q [B, Hq, Wq, heads * d], k and v [B, Hk, Wk, heads * d] -> [B, Hq, Wq, heads * d]. */
  attention(
    path: string,
    { q, k, v, heads, causal = false }: Pick<AttentionOp, "q" | "k" | "v" | "heads"> & { causal?: boolean },
  ): Tensor {
    const [batch, height, width] = q.tensor.shape;
    if (q.channels % heads !== 0) this.#fail(path, `${q.channels} channels`, `a multiple of ${heads} heads`);
    this.#quads(path, "channels per head", q.channels / heads);
    for (const [what, slice] of Object.entries({ k, v })) {
      if (slice.channels !== q.channels)
        this.#fail(path, `${slice.channels} channels in ${what}`, `${q.channels} as in q`);
      if (slice.tensor.shape[0] !== batch)
        this.#fail(path, `batch ${slice.tensor.shape[0]} in ${what}`, `${batch} as in q`);
    }
    this.#alike(path, q.tensor, k.tensor);
    this.#alike(path, k.tensor, v.tensor);
    this.#same(path, "token grid of v", v.tensor.shape.slice(0, 3), k.tensor.shape.slice(0, 3));
    const y = this.#tensor(path, [batch, height, width, q.channels]);
    this.#ops.push({ kind: "attention", path, q, k, v, heads, causal, y });
    return y;
  }

  /** ids [B, 1, T, 1] u32 -> [B, 1, T, channels]. */
  embedding(
    path: string,
    ids: Tensor,
    {
      table,
      vocabulary,
      positions,
      positionCount,
      channels,
    }: {
      table: string;
      vocabulary: number;
      positions: string;
      positionCount: number;
      channels: number;
    },
  ): Tensor {
    const [batch, , tokens] = ids.shape;
    this.#quads(path, "channels", channels);
    if (tokens > positionCount)
      this.#fail(path, `${tokens} tokens`, `at most ${positionCount} (max_position_embeddings)`);
    const y = this.#tensor(path, [batch, 1, tokens, channels]);
    this.#ops.push({
      kind: "embedding",
      path,
      ids,
      table: this.#weight(`${table}.weight`, [vocabulary, channels]),
      positions: this.#weight(`${positions}.weight`, [positionCount, channels]),
      y,
    });
    return y;
  }

  /** x [B, 1, T, C], index [B, 1, 1, 1] u32 -> [B, 1, 1, C]. */
  gather(path: string, x: Tensor, index: Tensor): Tensor {
    const y = this.#tensor(path, [x.shape[0], 1, 1, x.shape[3]], x.dtype);
    this.#ops.push({ kind: "gather", path, x, index, y });
    return y;
  }

  unary(path: string, x: Tensor, fn: UnaryOp["fn"]): Tensor {
    const y = this.#tensor(path, x.shape, x.dtype);
    this.#ops.push({ kind: "unary", path, x, fn, y });
    return y;
  }

  #tensor(name: string, shape: Shape, dtype: DType = this.#dtype): Tensor {
    return { id: this.#count++, name, shape, dtype };
  }

  #resultType(residual: Tensor | undefined, stream: boolean): DType {
    return residual?.dtype ?? (stream ? this.#stream : this.#dtype);
  }

  #weight(name: string, shape: readonly number[]): Weight {
    const known = this.#weights.get(name);
    if (known) {
      this.#same(name, "shape of a weight used twice", shape, known.shape);
      return known;
    }
    const aliases = this.#aliases(name);
    const weight: Weight = aliases.length > 0 ? { name, shape, aliases } : { name, shape };
    this.#weights.set(name, weight);
    return weight;
  }

  #affine(path: string, channels: number): { weight: Weight; bias: Weight } {
    return { weight: this.#weight(`${path}.weight`, [channels]), bias: this.#weight(`${path}.bias`, [channels]) };
  }

  /** Kernels move channels four at a time. */
  #quads(path: string, what: string, count: number): void {
    if (count % 4 !== 0) this.#fail(path, `${count} ${what}`, "a multiple of 4");
  }

  #same(path: string, what: string, got: readonly number[], expected: readonly number[]): void {
    if (got.length !== expected.length || got.some((size, axis) => size !== expected[axis]))
      this.#fail(path, `${what} of shape [${got.join(", ")}]`, `[${expected.join(", ")}]`);
  }

  /** Kernels read what belongs together in one storage type. */
  #alike(path: string, a: Tensor, b: Tensor): void {
    if (a.dtype !== b.dtype) this.#fail(path, `${b.name} stored as ${b.dtype}`, `${a.dtype} as ${a.name}`);
  }

  #fail(path: string, got: string, expected: string): never {
    throw new MixdqError(
      "invalid-model",
      `${this.#name} ${path}: got ${got}, expected ${expected}. config.json asks for it: take the config and the weights from one model.`,
    );
  }
}

/** All channels of a tensor. */
export function whole(tensor: Tensor): ChannelSlice {
  return { tensor, offset: 0, channels: tensor.shape[3] };
}

/** The i-th of n equal slices of a tensor's channels. */
export function slice(tensor: Tensor, i: number, n: number): ChannelSlice {
  const channels = tensor.shape[3] / n;
  return { tensor, offset: i * channels, channels };
}
