/** What the tuner runs of each family: small graphs for the CPU twin to check, and a row of ops that keeps a GPU busy. */
import { GraphBuilder, whole } from "../graph/builder.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import { quantizeGraph } from "../graph/quantize.ts";
import type { Family } from "../kernels/kernel.ts";
import type { MixdqConfig } from "../quant/config.ts";
import type { WeightBits } from "../quant/formats.ts";

type Body = (g: GraphBuilder, x: Tensor) => Tensor;

/** Channels of the timed ops, those of a middle layer of SDXL's. */
const CHANNELS = 512;

/** Small enough for the CPU twin, each with what a variant may stumble over: ragged edges, slices, taps, a skip. */
export function checksOf(family: Family): readonly Graph[] {
  switch (family) {
    case "float":
      return [float("linear", [1, 9, 9, 208], linear(68)), float("conv 3x3", [1, 9, 7, 80], conv(68))];
    case "floatFewRows":
      return [float("linear of one row", [1, 1, 1, 208], linear(68)), float("linear", [1, 1, 9, 80], linear(68))];
    // Every width once, in slices or not, as a linear layer or a convolution: few pipelines, each compiled on the user's device.
    case "int8":
      return [
        integer("linear W8A8 in slices", [1, 9, 9, 1024], linear(64), 8),
        integer("conv 3x3 W4A8", [1, 9, 7, 80], conv(68), 4),
        integer("linear W3A8", [1, 9, 9, 208], linear(68), 3),
        integer("linear W2A8 in slices", [1, 9, 9, 1024], linear(64), 2),
      ];
    case "int8FewRows":
      return [
        integer("linear of one row W8A8", [1, 1, 1, 208], linear(68), 8),
        integer("linear of one row W4A8 in slices", [1, 1, 1, 1024], linear(68), 4),
      ];
    case "attention":
      return [float("attention", [1, 9, 9, 256], attention)];
    case "reduction":
      return [float("norms", [1, 9, 9, 256], norms)];
  }
}

/** `depth` ops in a row over `size` x `size` pixels, or over `size` tokens. */
export function timedGraph(family: Family, size: number, depth: number): Graph {
  const [shape, body] = timed(family, size);
  const row: Body = (g, x) => {
    for (let i = 0; i < depth; i++) x = body(g, x, i);
    return x;
  };
  return family.startsWith("int8") ? integer(family, shape, row, 4) : float(family, shape, row);
}

type Shape = readonly [number, number, number, number];

function timed(family: Family, size: number): [Shape, (g: GraphBuilder, x: Tensor, i: number) => Tensor] {
  const product = (g: GraphBuilder, x: Tensor, i: number): Tensor => g.linear(`product.${i}`, x, CHANNELS);
  if (family === "attention") return [[1, size, size, 256], attention];
  if (family === "reduction") return [[1, size, size, CHANNELS], norms];
  return [family.endsWith("FewRows") ? [1, 1, Math.min(size, 16), CHANNELS] : [1, size, size, CHANNELS], product];
}

const linear =
  (n: number): Body =>
  (g, x) =>
    g.linear("layer", x, n);

const conv =
  (n: number): Body =>
  (g, x) =>
    g.conv2d("layer", x, n);

const attention = (g: GraphBuilder, x: Tensor, i = 0): Tensor =>
  g.attention(`attention.${i}`, { q: whole(x), k: whole(x), v: whole(x), heads: 4 });

const norms = (g: GraphBuilder, x: Tensor, i = 0): Tensor =>
  g.layerNorm(`layer_norm.${i}`, g.groupNorm(`group_norm.${i}`, x, { groups: 32, eps: 1e-5 }), 1e-5);

function float(name: string, shape: Shape, body: Body): Graph {
  const g = new GraphBuilder(name, "f32");
  g.output("y", body(g, g.input("x", shape)));
  return g.finish();
}

/** The same with every layer in integers: asymmetric, a scale per output channel, activations over -2 .. 2. */
function integer(name: string, shape: Shape, body: Body, weightBits: WeightBits): Graph {
  const graph = float(name, shape, body);
  const act = { scale: 4 / 255, zeroPoint: 128 };
  const config: MixdqConfig = {
    model: "",
    weights: { symmetric: false, range: "minmax", group: null },
    layers: new Map(
      graph.ops.flatMap((op) =>
        op.kind === "linear" || op.kind === "conv2d" ? [[op.path, { weightBits, actBits: 8, act }] as const] : [],
      ),
    ),
    bos: false,
    averageWeightBits: undefined,
    provenance: {},
  };
  return quantizeGraph(graph, config);
}
