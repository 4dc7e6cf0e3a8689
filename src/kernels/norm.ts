/** Group and layer normalisation; statistics in f32, two passes, so that nothing cancels. */
import type { GroupNormOp, LayerNormOp } from "../graph/ops.ts";
import { activate } from "./functions.ts";
import { pixels, quads, spread, storageDefines, storeUniforms, type Kernel, type KernelChoice } from "./kernel.ts";
import { vector } from "./weights.ts";

/** Elements one workgroup of group_norm_stats reads: enough to hide its reductions, few enough to fill a GPU. */
const RUN_ELEMENTS = 16_384;

/** Quads of channels that one workgroup of group_norm_apply handles, and quads of one run. */
const SLAB_QUADS = 64;
const APPLY_ITEMS = 1_024;

/** Variants of a reduction: how many invocations add up a row or a group together. */
export const REDUCTION_VARIANTS = [
  { name: "wide", needs: [], threads: 64 },
  { name: "narrow", needs: [], threads: 8 },
] as const;

const threadsOf = ({ reduction }: KernelChoice): number =>
  (REDUCTION_VARIANTS.find(({ name }) => name === reduction) ?? REDUCTION_VARIANTS[1]).threads;

export const layerNorm: Kernel<LayerNormOp> = {
  dispatches({ path, x, y, weight, bias, eps }, { caps }) {
    const rows = pixels(x);
    return [
      {
        path,
        kind: "layer_norm",
        shader: "layer_norm",
        defines: { ...storageDefines(caps, { in: x.dtype, out: y.dtype }), THREADS: threadsOf(caps) },
        constants: { ROWS: rows, C4: quads(x.shape[3]), EPS: eps },
        bindings: { x, weight: vector([weight]), bias: vector([bias]), y },
        uniforms: storeUniforms(y),
        writes: ["y"],
        workgroups: spread(rows, caps),
        work: rows * x.shape[3] * 4,
      },
    ];
  },

  reference({ x, weight, bias, eps }, inputs) {
    const channels = x.shape[3];
    const input = inputs.tensor(x);
    const w = inputs.weight(weight);
    const b = inputs.weight(bias);
    const out = new Float32Array(input.length);
    for (let first = 0; first < input.length; first += channels) {
      const { mean, norm } = statistics(channels, (i) => input[first + i], eps);
      for (let c = 0; c < channels; c++) out[first + c] = (input[first + c] - mean) * norm * w[c] + b[c];
    }
    return out;
  },
};

export const groupNorm: Kernel<GroupNormOp> = {
  dispatches({ path, x, x2, y, weight, bias, groups, eps, activation }, { caps, scratch }) {
    const [batch, height, width, channels] = y.shape;
    const size = channels / groups;
    const imagePixels = height * width;
    const run = Math.min(imagePixels, Math.max(1, Math.ceil(RUN_ELEMENTS / size)));
    const runs = Math.ceil(imagePixels / run);
    const slab = Math.min(SLAB_QUADS, quads(channels));
    const applyRun = Math.max(1, Math.ceil(APPLY_ITEMS / slab));
    // A slab that starts inside a group touches one group more than its channels fill.
    const maxGroups = Math.min(groups, Math.ceil((slab * 4) / size) + 1);
    const stats = scratch(`${path}.stats`, [batch, groups, runs, 2], "f32");
    const constants = {
      BATCH: batch,
      PIXELS: imagePixels,
      C4: quads(x.shape[3]),
      ...(x2 && { S4: quads(x2.shape[3]) }),
      GROUPS: groups,
      SIZE: size,
      RUN: run,
      RUNS: runs,
    };
    const defines: Record<string, true> = x2 ? { SKIP: true } : {};
    const source = { x, ...(x2 && { x2 }) };
    const shared = { path, kind: "group_norm", work: batch * imagePixels * channels * 4 };
    return [
      {
        ...shared,
        shader: "group_norm_stats",
        defines: { ...defines, ...storageDefines(caps, { in: x.dtype, out: "f32" }), THREADS: threadsOf(caps) },
        constants,
        bindings: { ...source, stats },
        writes: ["stats"],
        workgroups: spread(runs * groups * batch, caps),
      },
      {
        ...shared,
        shader: "group_norm_apply",
        defines: {
          ...defines,
          ...storageDefines(caps, { in: x.dtype, out: y.dtype }),
          ...(activation === "silu" ? { SILU: true } : { LINEAR: true }),
          THREADS: 64,
          SLAB4: slab,
          APPLY_RUN: applyRun,
          MAX_GROUPS: maxGroups,
        },
        constants: { ...constants, EPS: eps },
        bindings: { ...source, weight: vector([weight]), bias: vector([bias]), stats, y },
        uniforms: storeUniforms(y),
        writes: ["y"],
        workgroups: spread(Math.ceil(imagePixels / applyRun) * Math.ceil(quads(channels) / slab) * batch, caps),
      },
    ];
  },

  reference({ x, x2, y, weight, bias, groups, eps, activation }, inputs) {
    const [batch, height, width, channels] = y.shape;
    const c1 = x.shape[3];
    const c2 = channels - c1;
    const size = channels / groups;
    const input = inputs.tensor(x);
    const skip = x2 && inputs.tensor(x2);
    const w = inputs.weight(weight);
    const b = inputs.weight(bias);
    const imagePixels = height * width;
    const at = (pixel: number, c: number): number => (c < c1 ? input[pixel * c1 + c] : skip![pixel * c2 + c - c1]);
    const out = new Float32Array(batch * imagePixels * channels);
    for (let image = 0; image < batch; image++)
      for (let group = 0; group < groups; group++) {
        const value = (i: number): number => at(image * imagePixels + Math.floor(i / size), group * size + (i % size));
        const { mean, norm } = statistics(imagePixels * size, value, eps);
        for (let i = 0; i < imagePixels * size; i++) {
          const c = group * size + (i % size);
          const pixel = image * imagePixels + Math.floor(i / size);
          out[pixel * channels + c] = activate(activation, (value(i) - mean) * norm * w[c] + b[c]);
        }
      }
    return out;
  },
};

/** Mean and 1 / sqrt(variance + eps) of n values. */
function statistics(n: number, value: (i: number) => number, eps: number): { mean: number; norm: number } {
  let mean = 0;
  for (let i = 0; i < n; i++) mean += value(i) / n;
  let variance = 0;
  for (let i = 0; i < n; i++) variance += (value(i) - mean) ** 2 / n;
  return { mean, norm: 1 / Math.sqrt(variance + eps) };
}
