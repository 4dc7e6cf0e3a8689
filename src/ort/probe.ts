/**
 * Is com.microsoft.MultiHeadAttention right on this device? ONNX Runtime's flash kernel (1.30.0) moves keys between the
 * lanes of a subgroup, takes for granted that there are at least 8, and answers without a word otherwise: errors of 0.4
 * where values are 1 on SwiftShader (subgroups of 4), of 0.03 on Mesa's lavapipe (8). So it is asked once, before it is
 * believed. Delete this when the probe passes on both.
 */
import type { Graph, Tensor } from "../graph/ops.ts";

const QUERIES = 64; // the kernel works on tiles of 64; fewer queries take another path
const KEYS = 77;
const HEADS = 2;
const CHANNELS = 128;
/** Well above rounding in 16 bits (1e-3 here), well below the errors it is there to find. */
const TOLERANCE = 0.01;

const q: Tensor = { id: 0, name: "q", shape: [1, 1, QUERIES, CHANNELS], dtype: "f32" };
const k: Tensor = { id: 1, name: "k", shape: [1, 1, KEYS, CHANNELS], dtype: "f32" };
const y: Tensor = { id: 2, name: "y", shape: q.shape, dtype: "f32" };
const [queries, keys] = [q, k].map((tensor) => ({ tensor, offset: 0, channels: CHANNELS }));

/** One cross-attention whose keys are its values. */
const graph: Graph = {
  name: "attention probe",
  ops: [{ kind: "attention", path: "probe", q: queries, k: keys, v: keys, heads: HEADS, causal: false, y }],
  inputs: { q, k },
  outputs: { y },
  weights: [],
};

/** Runs the probe with `run` and compares it with plain loops. */
export async function attentionIsCorrect(
  run: (graph: Graph, inputs: Record<string, Float32Array>) => Promise<Record<string, Float32Array>>,
): Promise<boolean> {
  // Any values do that differ from token to token.
  const inputs = {
    q: Float32Array.from({ length: QUERIES * CHANNELS }, (_, i) => Math.sin(i * 1.7)),
    k: Float32Array.from({ length: KEYS * CHANNELS }, (_, i) => Math.sin(i * i * 0.37)),
  };
  const got = (await run(graph, inputs)).y;
  return expected(inputs.q, inputs.k).every((value, i) => Math.abs(value - got[i]) < TOLERANCE);
}

function expected(q: Float32Array, k: Float32Array): Float64Array {
  const result = new Float64Array(q.length);
  const size = CHANNELS / HEADS;
  for (let row = 0; row < QUERIES * HEADS; row++) {
    const head = (row % HEADS) * size;
    const powers = Array.from({ length: KEYS }, (_, key) => {
      let score = 0;
      for (let c = 0; c < size; c++) score += q[row * size + c] * k[key * CHANNELS + head + c];
      return Math.exp(score / Math.sqrt(size));
    });
    const total = powers.reduce((sum, power) => sum + power, 0);
    for (let c = 0; c < size; c++)
      for (let key = 0; key < KEYS; key++)
        result[row * size + c] += (powers[key] / total) * k[key * CHANNELS + head + c];
  }
  return result;
}
