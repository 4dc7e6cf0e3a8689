/**
 * Small graphs with integer products, and with kernels that write codes: every weight format, sizes that divide nothing,
 * values that reach both ends. Where all scales are one the sums themselves come out.
 */
import { GraphBuilder, slice, whole } from "../src/graph/builder.ts";
import { quantizeGraph } from "../src/graph/quantize.ts";
import type { Graph, Shape, Tensor } from "../src/graph/ops.ts";
import type { LayerConfig, MixdqConfig } from "../src/quant/config.ts";
import type { WeightBits, WeightQuant } from "../src/quant/formats.ts";
import { random, type GraphData } from "./twin.ts";

export interface IntegerCase {
  readonly name: string;
  readonly graph: Graph;
  /** Fills inputs and weights with other than random values. */
  readonly fill?: (data: GraphData) => Pick<GraphData, "inputs" | "weights">;
  /** The result holds the integer sums themselves. */
  readonly isExact?: boolean;
}

type Weights = Omit<WeightQuant, "bits">;
const MINMAX: Weights = { symmetric: false, range: "minmax", group: null };
const ACT = { scale: 0.011, zeroPoint: 117 };

function config(layers: Record<string, LayerConfig>, weights: Weights = MINMAX, bos = false): MixdqConfig {
  return {
    model: "test",
    weights,
    layers: new Map(Object.entries(layers)),
    bos,
    averageWeightBits: undefined,
    provenance: {},
  };
}

const layer = (weightBits: WeightBits, act = ACT, actBits: 4 | 8 | 16 = 8): LayerConfig => ({
  weightBits,
  actBits,
  act,
});

function build(
  name: string,
  layers: Record<string, LayerConfig>,
  body: (g: GraphBuilder) => Tensor,
  weights?: Weights,
  dtype: "f32" | "f16" = "f32",
): Graph {
  const g = new GraphBuilder(name, dtype, "f32");
  g.output("y", body(g));
  return quantizeGraph(g.finish(), config(layers, weights));
}

const FORMATS: readonly [string, WeightBits, Weights][] = ([8, 4, 3, 2] as const).flatMap((bits) =>
  [
    { symmetric: true, range: "minmax", group: null } as const,
    { symmetric: false, range: "minmax", group: null } as const,
    { symmetric: true, range: "mse", group: null } as const,
    { symmetric: false, range: "mse", group: 64 } as const,
  ].map((weights): [string, WeightBits, Weights] => [
    `${bits} bits${weights.symmetric ? " symmetric" : ""} ${weights.range}${weights.group ? " in groups" : ""}`,
    bits,
    weights,
  ]),
);

export const PRODUCTS: readonly IntegerCase[] = FORMATS.flatMap(([format, bits, weights]) => [
  {
    name: `linear 1x3x15x100 -> 52, ${format}`,
    graph: build("linear", { fc: layer(bits) }, (g) => g.linear("fc", g.input("x", [1, 3, 15, 100]), 52), weights),
  },
  {
    name: `geglu 1x1x77x48 -> 40, ${format}`,
    graph: build(
      "geglu",
      { fc: layer(bits) },
      (g) => g.linear("fc", g.input("x", [1, 1, 77, 48]), 80, { activation: "geglu" }),
      weights,
    ),
  },
  {
    name: `conv 2x5x7x36 -> 20 with row bias, ${format}`,
    graph: build(
      "conv",
      { conv: layer(bits) },
      (g) => g.conv2d("conv", g.input("x", [2, 5, 7, 36]), 20, { rowBias: g.input("t", [2, 1, 1, 20]) }),
      weights,
    ),
  },
  {
    name: `one range for both: conv 1x6x5x132 + skip 68 -> 24 1x1, ${format}`,
    graph: build(
      "conv",
      { conv: layer(bits) },
      (g) => g.conv2d("conv", g.input("x", [1, 6, 5, 132]), 24, { kernel: 1, skip: g.input("x2", [1, 6, 5, 68]) }),
      weights,
    ),
  },
  {
    name: `weights only: conv 1x6x5x132 + skip 68 -> 24 1x1, ${format}`,
    graph: build(
      "conv",
      { conv: { weightBits: bits, actBits: 16 } },
      (g) => g.conv2d("conv", g.input("x", [1, 6, 5, 132]), 24, { kernel: 1, skip: g.input("x2", [1, 6, 5, 68]) }),
      weights,
    ),
  },
]);

function conv(name: string, shape: Shape, options: Parameters<GraphBuilder["conv2d"]>[3], act = ACT): IntegerCase {
  return {
    name: `conv ${shape.join("x")} -> 24 ${name}`,
    graph: build("conv", { conv: layer(4, act) }, (g) => g.conv2d("conv", g.input("x", shape), 24, options)),
  };
}

/** Scales of exactly one: inputs are codes less the zero point, weights their own codes, the result the sum itself. */
function exact(
  name: string,
  bits: WeightBits,
  {
    m,
    k,
    n,
    zeroPoint,
    code,
  }: { m: number; k: number; n: number; zeroPoint: number; code?: "low" | "high" | undefined },
): IntegerCase {
  const next = random(5);
  const top = bits === 8 ? 255 : 2 ** bits - 1;
  return {
    name: `sums themselves: ${name}, ${bits} bits, zero point ${zeroPoint}`,
    isExact: true,
    graph: build("exact", { fc: layer(bits, { scale: 1, zeroPoint }) }, (g) =>
      g.linear("fc", g.input("x", [1, 1, m, k]), n, { bias: false }),
    ),
    fill: ({ inputs, weights }) => ({
      inputs: {
        x: inputs["x"].map(() => (code === "low" ? 0 : code === "high" ? 255 : Math.floor(next() * 256)) - zeroPoint),
      } as GraphData["inputs"],
      // The first two weights of a row span the whole range, so that its scale is one.
      weights: new Map(
        [...weights].map(([path, values]) => [
          path,
          values.map((_, i) =>
            i % k === 0
              ? -5 % top
              : i % k === 1
                ? top - (5 % top)
                : code
                  ? top - (5 % top)
                  : Math.floor(next() * (top + 1)) - (5 % top),
          ),
        ]),
      ),
    }),
  };
}

/** Every kernel in some format and every format in some kernel, but not every pair: see SETUPS. */
export const FEW_PRODUCTS = PRODUCTS.filter((_, i) => Math.floor(i / 5) % 5 === i % 5);

export const OTHERS: readonly IntegerCase[] = [
  conv("stride 2", [1, 7, 9, 32], { stride: 2 }),
  conv("stride 2 padded at the end", [1, 8, 6, 32], { stride: 2, padding: "end" }),
  conv("upsampled", [1, 4, 5, 32], { upsampleTo: [8, 9] }),
  conv("zero point 0", [1, 5, 5, 20], {}, { scale: 0.008, zeroPoint: 0 }),
  conv("zero point 255", [1, 5, 5, 20], {}, { scale: 0.008, zeroPoint: 255 }),
  {
    name: "conv 1x6x6x24 -> 24 with residual",
    graph: build("conv", { conv: layer(4) }, (g) =>
      g.conv2d("conv", g.input("x", [1, 6, 6, 24]), 24, { residual: g.input("r", [1, 6, 6, 24]) }),
    ),
  },
  {
    name: "a split shortcut over 40 + 24 channels",
    graph: build("shortcut", { conv: { ...layer(4), act2: { scale: 0.02, zeroPoint: 128 } } }, (g) =>
      g.conv2d("conv", g.input("x", [1, 6, 5, 40]), 16, { kernel: 1, skip: g.input("x2", [1, 6, 5, 24]) }),
    ),
  },
  {
    name: "a shortcut over 40 + 24 channels with one scale",
    graph: build("shortcut", { conv: layer(8) }, (g) =>
      g.conv2d("conv", g.input("x", [1, 6, 5, 40]), 16, { kernel: 1, skip: g.input("x2", [1, 6, 5, 24]) }),
    ),
  },
  {
    name: "fused q, k and v in three formats, one of them float",
    graph: build("qkv", { "a.to_q": layer(8), "a.to_k": { weightBits: 4, actBits: 16 } }, (g) => {
      const x = g.input("x", [1, 4, 5, 32]);
      const qkv = g.linears(
        "a",
        x,
        ["to_q", "to_k", "to_v"].map((name) => ({ path: `a.${name}`, n: 32 })),
        { bias: false },
      );
      return g.attention("attn", { q: slice(qkv, 0, 3), k: slice(qkv, 1, 3), v: slice(qkv, 2, 3), heads: 2 });
    }),
  },
  {
    name: "activations of 4 bits",
    graph: build("four", { fc: layer(4, { scale: 0.14, zeroPoint: 7 }, 4) }, (g) =>
      g.linear("fc", g.input("x", [1, 2, 9, 64]), 32),
    ),
  },
  {
    name: "a sliced geglu 1x1x9x1280 -> 40",
    graph: build("geglu", { fc: layer(4) }, (g) =>
      g.linear("fc", g.input("x", [1, 1, 9, 1280]), 80, { activation: "geglu" }),
    ),
  },
  {
    name: "a sliced conv 1x5x4x132 + skip 68 -> 24 with zero points between codes",
    graph: build(
      "conv",
      { conv: layer(3) },
      (g) =>
        g.conv2d("conv", g.input("x", [1, 5, 4, 132]), 24, {
          skip: g.input("x2", [1, 5, 4, 68]),
          rowBias: g.input("t", [1, 1, 1, 24]),
          residual: g.input("r", [1, 5, 4, 24]),
          activation: "silu",
        }),
      { symmetric: false, range: "mse", group: null },
    ),
  },
  exact("random", 8, { m: 77, k: 640, n: 36, zeroPoint: 131 }),
  exact("random", 4, { m: 33, k: 1280, n: 64, zeroPoint: 0 }),
  exact("random", 2, { m: 1, k: 320, n: 128, zeroPoint: 255 }),
  exact("all 127", 8, { m: 5, k: 23_040, n: 8, zeroPoint: 0, code: "high" }),
  exact("all -128", 8, { m: 5, k: 23_040, n: 8, zeroPoint: 255, code: "low" }),
  exact("all 127", 4, { m: 5, k: 23_040, n: 8, zeroPoint: 0, code: "high" }),
];

/** Kernels that write codes: what is read back are the codes, through an identity in integers. */
export const WRITERS: readonly IntegerCase[] = [
  ["quantize", (g: GraphBuilder) => g.input("x", [1, 5, 7, 20])],
  [
    "group_norm",
    (g: GraphBuilder) => g.groupNorm("norm", g.input("x", [1, 5, 7, 24]), { groups: 6, eps: 1e-5, activation: "silu" }),
  ],
  ["layer_norm", (g: GraphBuilder) => g.layerNorm("norm", g.input("x", [1, 1, 9, 40]), 1e-5)],
  ["unary", (g: GraphBuilder) => g.unary("act", g.input("x", [1, 3, 3, 16]), { name: "silu" })],
  [
    "attention",
    (g: GraphBuilder) => {
      const q = g.input("q", [1, 1, 11, 16]);
      const kv = g.input("kv", [1, 1, 7, 32]);
      return g.attention("attn", { q: whole(q), k: slice(kv, 0, 2), v: slice(kv, 1, 2), heads: 2 });
    },
  ],
  ["float product", (g: GraphBuilder) => g.linear("first", g.input("x", [1, 2, 5, 20]), 24, { activation: "geglu" })],
].map(([name, body]): IntegerCase => {
  const graph = build(`${name as string} writes codes`, { fc: layer(8, { scale: 0.01, zeroPoint: 90 }) }, (g) =>
    g.linear("fc", (body as (g: GraphBuilder) => Tensor)(g), 8),
  );
  const codes = graph.ops.at(-1)!;
  return {
    name: `${name as string} writes codes`,
    graph: {
      ...graph,
      ops: graph.ops.slice(0, -1),
      weights: graph.weights.filter(({ name }) => !name.startsWith("fc")),
      outputs: { y: (codes as { x: Tensor }).x },
    },
  };
});
