/** Token embedding, picking one token of a sequence, elementwise functions. */
import type { EmbeddingOp, GatherOp, QuantizeOp, UnaryOp } from "../graph/ops.ts";
import { activate } from "./functions.ts";
import { pixels, quads, spread, storageDefines, storeUniforms, type Kernel } from "./kernel.ts";
import { matrix } from "./weights.ts";

export const embedding: Kernel<EmbeddingOp> = {
  dispatches({ path, ids, table, positions, y }, { caps, weightType }) {
    const [batch, , tokens, channels] = y.shape;
    return [
      {
        path,
        kind: "embedding",
        shader: "embedding",
        defines: storageDefines(caps, { in: "u32", out: y.dtype, weights: weightType }),
        constants: { ROWS: batch * tokens, TOKENS: tokens, C4: quads(channels) },
        bindings: { ids, table: matrix([table], weightType), positions: matrix([positions], weightType), y },
        uniforms: storeUniforms(y),
        writes: ["y"],
        workgroups: spread(Math.ceil((batch * tokens * quads(channels)) / 64), caps),
        work: batch * tokens * channels,
      },
    ];
  },

  reference({ ids, table, positions, y }, inputs) {
    const [, , tokens, channels] = y.shape;
    const at = inputs.tensor(ids);
    const words = inputs.weight(table);
    const places = inputs.weight(positions);
    return Float32Array.from({ length: at.length * channels }, (_, i) => {
      const row = Math.floor(i / channels);
      const c = i % channels;
      return words[at[row] * channels + c] + places[(row % tokens) * channels + c];
    });
  },
};

export const gather: Kernel<GatherOp> = {
  dispatches({ path, x, index, y }, { caps }) {
    const [batch, height, width, channels] = x.shape;
    return [
      {
        path,
        kind: "gather",
        shader: "gather",
        defines: storageDefines(caps, { in: x.dtype, out: y.dtype }),
        constants: { BATCH: batch, TOKENS: height * width, C4: quads(channels) },
        bindings: { x, index, y },
        uniforms: storeUniforms(y),
        writes: ["y"],
        workgroups: spread(Math.ceil((batch * quads(channels)) / 64), caps),
        work: batch * channels,
      },
    ];
  },

  reference({ x, index }, { tensor }) {
    const [batch, height, width, channels] = x.shape;
    const from = tensor(x);
    const at = tensor(index);
    return Float32Array.from(
      { length: batch * channels },
      (_, i) =>
        from[(Math.floor(i / channels) * height * width + at[Math.floor(i / channels)]) * channels + (i % channels)],
    );
  },
};

export const unary: Kernel<UnaryOp> = {
  dispatches({ path, x, fn, y }, { caps }) {
    const count = pixels(x) * quads(x.shape[3]);
    const define = {
      silu: { SILU: true },
      soft_clamp: { SOFT_CLAMP: true, LINEAR: true },
      affine: { AFFINE: true, LINEAR: true },
    };
    return [
      {
        path,
        kind: "unary",
        shader: "unary",
        defines: {
          ...storageDefines(caps, { in: x.dtype, out: y.dtype }),
          ...(define[fn.name] as Record<string, true>),
        },
        constants: { QUADS: count, ...("scale" in fn && { SCALE: fn.scale, SHIFT: fn.shift }) },
        bindings: { x, y },
        uniforms: storeUniforms(y),
        writes: ["y"],
        workgroups: spread(Math.ceil(count / 64), caps),
        work: count * 4,
      },
    ];
  },

  reference({ x, fn }, { tensor }) {
    return tensor(x).map((value) =>
      "scale" in fn
        ? fn.scale * value + fn.shift
        : fn.name === "silu"
          ? activate("silu", value)
          : 3 * Math.tanh(value / 3),
    );
  },
};

export const quantize: Kernel<QuantizeOp> = {
  dispatches({ path, x, y }, { caps }) {
    const count = pixels(x) * quads(x.shape[3]);
    return [
      {
        path,
        kind: "quantize",
        shader: "unary",
        defines: { ...storageDefines(caps, { in: x.dtype, out: y.dtype }), LINEAR: true },
        constants: { QUADS: count },
        uniforms: storeUniforms(y),
        bindings: { x, y },
        writes: ["y"],
        workgroups: spread(Math.ceil(count / 64), caps),
        work: count * 4,
      },
    ];
  },

  // What makes codes of values is the same for every op: see referenceOf.
  reference: ({ x }, { tensor }) => tensor(x),
};
