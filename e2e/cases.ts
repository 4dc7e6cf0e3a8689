/**
 * Small graphs that exercise one kernel each, with the shapes that break kernels: sizes that do not divide a tile,
 * sizes of one, groups that do not fill a quad, skips, odd upsampling, batches, extreme values.
 */
import { GraphBuilder, slice, whole } from "../src/graph/builder.ts";
import type { Activation, Graph, Shape, Tensor } from "../src/graph/ops.ts";

type Storage = "f32" | "f16";

export interface KernelCase {
  readonly name: string;
  readonly build: (dtype: Storage, stream?: Storage) => Graph;
  /** Scales the random inputs and weights: large, tiny. */
  readonly magnitude?: number;
  /** Software adapters take many seconds for it: run in one storage format only. */
  readonly isHeavy?: boolean;
}

const graph =
  (name: string, body: (g: GraphBuilder) => Tensor) =>
  (dtype: Storage, stream = dtype): Graph => {
    const g = new GraphBuilder(name, dtype, stream);
    g.output("y", body(g));
    return g.finish();
  };

const ACTIVATIONS: readonly Activation[] = ["none", "silu", "relu", "gelu", "quick_gelu", "geglu"];

function linear(shape: Shape, n: number, activation: Activation, residual = false, magnitude = 1): KernelCase {
  const name = `linear ${shape.join("x")} -> ${n} ${activation}${residual ? " + residual" : ""} x${magnitude}`;
  return {
    name,
    magnitude,
    build: graph(name, (g) => {
      const x = g.input("x", shape);
      const rest = residual ? { residual: g.input("r", [shape[0], shape[1], shape[2], n]) } : {};
      return g.linear("fc", x, n, { activation, ...rest });
    }),
  };
}

interface Conv {
  shape: Shape;
  n: number;
  kernel?: 1 | 3;
  stride?: 1 | 2;
  padding?: "end";
  upsampleTo?: [number, number];
  skip?: number;
  rowBias?: boolean;
  residual?: boolean;
  activation?: Activation;
  bias?: boolean;
}

function conv({ shape, n, skip, rowBias, residual, ...options }: Conv): KernelCase {
  const flags = [
    `${options.kernel ?? 3}x${options.kernel ?? 3}`,
    options.stride === 2 && "stride 2",
    options.padding && `padded at the ${options.padding}`,
    options.upsampleTo && `to ${options.upsampleTo.join("x")}`,
    skip && `skip ${skip}`,
    rowBias && "row bias",
    residual && "residual",
    options.activation,
    options.bias === false && "no bias",
  ].filter(Boolean);
  const name = `conv ${shape.join("x")} -> ${n} ${flags.join(", ")}`;
  return {
    name,
    build: graph(name, (g) => {
      const [batch, height, width] = shape;
      const x = g.input("x", shape);
      const [h, w] = options.upsampleTo ?? [height, width];
      const stride = options.stride ?? 1;
      return g.conv2d("conv", x, n, {
        ...options,
        ...(skip && { skip: g.input("x2", [batch, height, width, skip]) }),
        ...(rowBias && { rowBias: g.input("t", [batch, 1, 1, n]) }),
        ...(residual && { residual: g.input("r", [batch, Math.ceil(h / stride), Math.ceil(w / stride), n]) }),
      });
    }),
  };
}

function groupNorm(shape: Shape, groups: number, activation: "none" | "silu", skip = 0): KernelCase {
  const name = `group_norm ${shape.join("x")}${skip ? `+${skip}` : ""} in ${groups} ${activation}`;
  return {
    name,
    build: graph(name, (g) => {
      const x = g.input("x", shape);
      const rest = skip ? { skip: g.input("x2", [shape[0], shape[1], shape[2], skip]) } : {};
      return g.groupNorm("norm", x, { groups, eps: 1e-5, activation, ...rest });
    }),
  };
}

function selfAttention(batch: number, tokens: number, heads: number, d: number, causal: boolean): KernelCase {
  const name = `self-attention ${batch}x${tokens}, ${heads} heads of ${d}${causal ? ", causal" : ""}`;
  return {
    name,
    isHeavy: d > 32,
    build: graph(name, (g) => {
      const qkv = g.input("qkv", [batch, 1, tokens, 3 * heads * d]);
      return g.attention("attn", { q: slice(qkv, 0, 3), k: slice(qkv, 1, 3), v: slice(qkv, 2, 3), heads, causal });
    }),
  };
}

function crossAttention(shape: Shape, tokens: number, heads: number, magnitude = 1): KernelCase {
  const name = `cross-attention ${shape.join("x")} to ${tokens}, ${heads} heads x${magnitude}`;
  return {
    name,
    magnitude,
    build: graph(name, (g) => {
      const q = g.input("q", shape);
      const kv = g.input("kv", [shape[0], 1, tokens, 2 * shape[3]]);
      return g.attention("attn", { q: whole(q), k: slice(kv, 0, 2), v: slice(kv, 1, 2), heads });
    }),
  };
}

export const CASES: readonly KernelCase[] = [
  ...ACTIVATIONS.map((activation) => linear([2, 5, 7, 36], 24, activation)),
  linear([1, 1, 1, 4], 4, "none"),
  linear([1, 1, 77, 160], 68, "none", true),
  linear([1, 9, 9, 132], 136, "geglu"),
  linear([3, 1, 43, 64], 200, "silu", true),
  linear([1, 1, 100, 640], 72, "none", false, 8),
  linear([1, 1, 8, 20], 12, "gelu", false, 1e-3),
  {
    name: "three linear layers side by side",
    build: graph("qkv", (g) => {
      const layers = [8, 12, 20].map((n, i) => ({ path: `part${i}`, n }));
      return g.linears("qkv", g.input("x", [1, 3, 11, 28]), layers);
    }),
  },
  conv({ shape: [1, 7, 9, 16], n: 20 }),
  conv({ shape: [2, 8, 8, 12], n: 36, stride: 2 }),
  conv({ shape: [1, 17, 23, 8], n: 8, stride: 2 }),
  conv({ shape: [1, 9, 12, 8], n: 8, stride: 2, padding: "end" }),
  conv({ shape: [1, 4, 6, 8], n: 8, upsampleTo: [9, 13] }),
  conv({ shape: [1, 5, 6, 12], n: 16, upsampleTo: [10, 12] }),
  conv({ shape: [2, 9, 12, 8], n: 12, upsampleTo: [17, 23] }),
  conv({ shape: [1, 6, 6, 4], n: 32 }),
  conv({ shape: [1, 6, 5, 32], n: 3 }),
  conv({ shape: [1, 1, 1, 8], n: 8 }),
  conv({ shape: [1, 8, 8, 64], n: 72, rowBias: true, residual: true, activation: "silu" }),
  conv({ shape: [2, 4, 6, 20], n: 24, kernel: 1, skip: 12 }),
  conv({ shape: [1, 4, 6, 20], n: 24, skip: 12, bias: false, activation: "relu" }),
  conv({ shape: [1, 5, 5, 24], n: 8, kernel: 1, residual: true }),
  groupNorm([1, 8, 8, 32], 16, "silu"),
  groupNorm([2, 5, 7, 48], 8, "none"),
  groupNorm([1, 6, 6, 40], 4, "silu", 56),
  groupNorm([1, 3, 3, 64], 16, "none", 32),
  groupNorm([1, 1, 1, 16], 4, "none"),
  { ...groupNorm([1, 72, 80, 32], 8, "silu"), isHeavy: true }, // several runs per group
  groupNorm([1, 4, 4, 640], 32, "none", 320), // several slabs
  {
    name: "layer_norm 2x3x5x44",
    build: graph("layer_norm", (g) => g.layerNorm("norm", g.input("x", [2, 3, 5, 44]), 1e-5)),
  },
  {
    name: "layer_norm 1x1x77x1280",
    build: graph("layer_norm", (g) => g.layerNorm("norm", g.input("x", [1, 1, 77, 1280]), 1e-5)),
  },
  selfAttention(1, 64, 2, 32, false),
  selfAttention(2, 77, 4, 12, true),
  selfAttention(1, 40, 2, 160, false),
  selfAttention(1, 50, 1, 512, false),
  selfAttention(1, 1, 3, 8, true),
  selfAttention(1, 130, 3, 64, true),
  { ...selfAttention(1, 1100, 1, 32, false), isHeavy: true },
  crossAttention([1, 5, 9, 64], 77, 2),
  crossAttention([2, 4, 4, 96], 154, 3, 6), // sharp softmax
  {
    name: "embedding",
    build: graph("embedding", (g) =>
      g.embedding("emb", g.input("ids", [2, 1, 7, 1], "u32"), {
        table: "table",
        vocabulary: 50,
        positions: "positions",
        positionCount: 9,
        channels: 24,
      }),
    ),
  },
  {
    name: "gather",
    build: graph("gather", (g) => g.gather("pick", g.input("x", [3, 1, 5, 12]), g.input("index", [3, 1, 1, 1], "u32"))),
  },
  { name: "silu", build: graph("silu", (g) => g.unary("act", g.input("x", [1, 3, 5, 20]), { name: "silu" })) },
  {
    name: "soft_clamp of large values",
    magnitude: 1000,
    build: graph("clamp", (g) => g.unary("clamp", g.input("x", [1, 4, 4, 4]), { name: "soft_clamp" })),
  },
  {
    name: "affine on padded channels",
    build: graph("affine", (g) =>
      g.unary("range", g.input("x", [1, 5, 3, 3]), { name: "affine", scale: -0.5, shift: 0.25 }),
    ),
  },
];
