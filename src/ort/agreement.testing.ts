/** What this room's tests share: seeded numbers, one composite graph, and the comparison with the kernels' CPU twins. */
import { expect } from "vitest";
import { GraphBuilder, slice, whole } from "../graph/builder.ts";
import { elementCount } from "../graph/ops.ts";
import type { Graph } from "../graph/ops.ts";
import { runReference } from "../kernels/index.ts";
import { createOrtRunner } from "./session.ts";

/** Sums of at most a few hundred products of size 1 in f32: 1e-6 each way, with room for other orders of summation. */
const F32_TOLERANCE = 2e-5;
/** Every value between ops is rounded to 11 bits (2^-12 relative), a dozen ops one after another at most. */
const F16_TOLERANCE = 1e-2;

/** Uniform in -1..1 from a seed (mulberry32), the same on every machine. */
export function random(length: number, seed: number, scale = 1): Float32Array<ArrayBuffer> {
  let state = seed;
  return Float32Array.from({ length }, () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1) * scale;
  });
}

/** Weights scaled so that sums stay near 1, each with its own seed. */
export function randomWeights(graph: Graph) {
  const weights = new Map(
    graph.weights.map(({ name, shape }, i) => {
      const fanIn = shape.length > 1 ? elementCount(shape.slice(1)) : 1;
      return [name, { shape, data: random(elementCount(shape), 1000 + i, Math.sqrt(3 / fanIn)) }] as const;
    }),
  );
  return (name: string) => weights.get(name)!;
}

/** Runs the graph on the WebAssembly provider and by the kernels' CPU twins. */
export async function expectAgreement(
  graph: Graph,
  inputs: Record<string, Float32Array | Uint32Array> = {},
  options: { float?: "f32" | "f16"; fusedAttention?: boolean } = {},
) {
  Object.entries(graph.inputs).forEach(([key, tensor], i) => {
    inputs[key] ??= random(elementCount(tensor.shape), i + 1);
  });
  const weights = randomWeights(graph);
  const runner = await createOrtRunner(graph, weights, { provider: "wasm", ...options });
  const got = await runner.run(inputs);
  await runner.release();
  const expected = runReference(graph, inputs, ({ name }) => weights(name).data);
  expect(Object.keys(got)).toEqual(Object.keys(graph.outputs));
  const tolerance = options.float !== "f16" ? F32_TOLERANCE : F16_TOLERANCE;
  for (const [key, values] of Object.entries(expected)) {
    expect(got[key].length).toBe(values.length);
    const size = Math.max(1, Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length));
    let worst = 0;
    for (let i = 0; i < values.length; i++)
      if (!(Math.abs(got[key][i] - values[i]) <= Math.abs(got[key][worst] - values[worst]))) worst = i;
    const error = Math.abs(got[key][worst] - values[worst]) / size;
    expect(error, `${key}[${worst}]: got ${got[key][worst]}, expected ${values[worst]}`).toBeLessThan(tolerance);
  }
}

/** The shape of a UNet's middle: time embedding, ResNet block with skip and shortcut, transformer block, upsampling. */
export function composite(): Graph {
  const g = new GraphBuilder("test", "f32");
  const x = g.input("sample", [2, 5, 3, 8]);
  const skip = g.input("skip", [2, 5, 3, 4]);
  const context = g.input("context", [2, 1, 7, 12]);
  const time = g.linear("temb", g.unary("act", g.input("time", [2, 1, 1, 12]), { name: "silu" }), 16);

  const norm1 = g.groupNorm("norm1", x, { groups: 4, eps: 1e-5, skip, activation: "silu" });
  const conv1 = g.conv2d("conv1", norm1, 16, { rowBias: time });
  const norm2 = g.groupNorm("norm2", conv1, { groups: 4, eps: 1e-5, activation: "silu" });
  const residual = g.conv2d("shortcut", x, 16, { kernel: 1, skip });
  const resnet = g.conv2d("conv2", norm2, 16, { residual });

  let h = g.linear("proj_in", g.groupNorm("norm", resnet, { groups: 4, eps: 1e-6 }), 16);
  const layers = (name: string, ks: string[]) => ks.map((k) => ({ path: `${name}.${k}`, n: 16 }));
  const qkv = g.linears("attn1", g.layerNorm("ln1", h, 1e-5), layers("attn1", ["q", "k", "v"]), { bias: false });
  const [q, k, v] = [0, 1, 2].map((i) => slice(qkv, i, 3));
  h = g.linear("attn1.out", g.attention("attn1", { q, k, v, heads: 2 }), 16, { residual: h });
  const q2 = g.linear("attn2.q", g.layerNorm("ln2", h, 1e-5), 16, { bias: false });
  const kv = g.linears("attn2", context, layers("attn2", ["k", "v"]), { bias: false });
  const cross = g.attention("attn2", { q: whole(q2), k: slice(kv, 0, 2), v: slice(kv, 1, 2), heads: 2 });
  h = g.linear("attn2.out", cross, 16, { residual: h });
  const ff = g.linear("ff.in", g.layerNorm("ln3", h, 1e-5), 128, { activation: "geglu" });
  h = g.linear("ff.out", ff, 16, { residual: h });
  h = g.linear("proj_out", h, 16, { residual: resnet });

  g.output("down", g.conv2d("down", h, 16, { stride: 2 }));
  g.output("up", g.conv2d("up", h, 4, { upsampleTo: [9, 6] }));
  return g.finish();
}
