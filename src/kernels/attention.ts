/** softmax(q k^T / sqrt(d)) v per head, without ever storing the scores. */
import type { AttentionOp } from "../graph/ops.ts";
import { spread, storageDefines, storeUniforms, type DeviceCaps, type Kernel } from "./kernel.ts";
import { variantFor, type Variant } from "./variant.ts";

/** Widest part of a head that one workgroup of attention_tiled sums up in registers, in quads. */
const MAX_VALUE_QUADS = 40;

const direct: Variant<AttentionOp> = {
  name: "direct",
  needs: [],
  accepts: () => true,
  dispatches(op, { caps }) {
    const { batch, queries } = extentOf(op);
    return [
      {
        ...shared(op, caps),
        shader: "attention_direct",
        workgroups: spread(Math.ceil(op.heads / 8) * Math.ceil(queries / 8) * batch, caps),
      },
    ];
  },
};

const tiled: Variant<AttentionOp> = {
  name: "tiled",
  needs: [],
  accepts: () => true,
  dispatches(op, { caps }) {
    const { batch, queries, d4 } = extentOf(op);
    const parts = Math.ceil(d4 / MAX_VALUE_QUADS);
    const whole = shared(op, caps);
    return [
      {
        ...whole,
        shader: "attention_tiled",
        defines: { ...whole.defines, DV4: Math.ceil(d4 / parts) },
        workgroups: spread(Math.ceil(queries / 32) * op.heads * parts * batch, caps),
      },
    ];
  },
};

/** Fastest first on most GPUs; the last one takes everything. */
export const ATTENTION_VARIANTS: readonly Variant<AttentionOp>[] = [tiled, direct];

/** `d4`: quads of a head. */
function extentOf({ q, k, heads, y: { shape } }: AttentionOp) {
  const keys = k.tensor.shape[1] * k.tensor.shape[2];
  return { batch: shape[0], queries: shape[1] * shape[2], keys, d4: q.channels / heads / 4 };
}

function shared(op: AttentionOp, caps: DeviceCaps) {
  const { path, q, k, v, heads, causal, y } = op;
  const { batch, queries, keys, d4 } = extentOf(op);
  return {
    path,
    kind: "attention",
    constants: {
      BATCH: batch,
      TQ: queries,
      TK: keys,
      HEADS: heads,
      QS: q.tensor.shape[3] / 4,
      KS: k.tensor.shape[3] / 4,
      VS: v.tensor.shape[3] / 4,
      QO: q.offset / 4,
      KO: k.offset / 4,
      VO: v.offset / 4,
    },
    defines: {
      ...storageDefines(caps, { in: q.tensor.dtype, out: y.dtype }),
      ...(causal && { CAUSAL: true as const }),
      D4: d4,
    },
    bindings: { q: q.tensor, k: k.tensor, v: v.tensor, y },
    uniforms: storeUniforms(y),
    writes: ["y"],
    work: batch * queries * keys * q.channels * 2,
  };
}

export const attention: Kernel<AttentionOp> = {
  dispatches: (op, context) =>
    variantFor(ATTENTION_VARIANTS, context.caps.attention, op, context.caps).dispatches(op, context),

  reference({ q, k, v, heads, causal, y }, { tensor }) {
    const [batch] = y.shape;
    const queries = y.shape[1] * y.shape[2];
    const keys = k.tensor.shape[1] * k.tensor.shape[2];
    const d = q.channels / heads;
    const [qs, ks, vs] = [q, k, v].map((slice) => tensor(slice.tensor)) as [Float32Array, Float32Array, Float32Array];
    const out = new Float32Array(batch * queries * q.channels);
    const scores = new Float64Array(keys);
    for (let image = 0; image < batch; image++)
      for (let head = 0; head < heads; head++)
        for (let row = 0; row < queries; row++) {
          const seen = causal ? Math.min(row + 1, keys) : keys;
          const qAt = (image * queries + row) * q.tensor.shape[3] + q.offset + head * d;
          let greatest = -Infinity;
          for (let key = 0; key < seen; key++) {
            const kAt = (image * keys + key) * k.tensor.shape[3] + k.offset + head * d;
            let score = 0;
            for (let c = 0; c < d; c++) score += qs[qAt + c] * ks[kAt + c];
            scores[key] = score / Math.sqrt(d);
            greatest = Math.max(greatest, scores[key]);
          }
          let total = 0;
          for (let key = 0; key < seen; key++) total += scores[key] = Math.exp(scores[key] - greatest);
          for (let c = 0; c < d; c++) {
            let sum = 0;
            for (let key = 0; key < seen; key++)
              sum += scores[key] * vs[(image * keys + key) * v.tensor.shape[3] + v.offset + head * d + c];
            out[(image * queries + row) * q.channels + head * d + c] = sum / total;
          }
        }
    return out;
  },
};
