/**
 * The contract of this room. A kernel turns one op into dispatches (how the GPU computes it) and has a CPU twin
 * (what it must compute). Dispatches are pure data: which shader, specialised how, over which tensors and weights.
 */
import type { ActivationCodes, DType, Op, Shape, Tensor, Weight } from "../graph/ops.ts";
import type { CodeLayout } from "../quant/codes.ts";
import type { WeightQuant } from "../quant/formats.ts";
import type { QuantizedMatrix } from "../quant/matrix.ts";

/** What a device has: facts, none of which anybody chose. */
export interface DeviceFacts {
  /** shader-f16: 16-bit floats are read natively; without it the same bytes are unpacked. */
  readonly shaderF16: boolean;
  /** dot4I8Packed is there; without it the same integers come from scalar products. */
  readonly packedDot: boolean;
  readonly maxWorkgroupsPerDimension: number;
}

/**
 * What is chosen together: a family of ops in a class of shapes. `fewRows` are products over at most 32 pixels or tokens
 * (time embeddings, pooled text), where a tile would be half empty.
 */
export const FAMILIES = ["float", "floatFewRows", "int8", "int8FewRows", "attention", "reduction"] as const;
export type Family = (typeof FAMILIES)[number];

/** The name of the variant that each family runs, and how shaders get the values of their overrides. */
export interface KernelChoice extends Readonly<Record<Family, string>> {
  /** Compiled in, or from a uniform (see gpu/shader.ts). */
  readonly overrides: "constants" | "uniform";
}

export type DeviceCaps = DeviceFacts & KernelChoice;

/**
 * How a parameter lies in GPU memory.
 * matrix: [rows, taps, channels], rows and channels zero-padded to multiples of 4; taps are a convolution's kernel
 * positions, row by row. vector: padded to a multiple of 4, always f32. `gated` interleaves the two halves of the rows
 * by fours (0-3 of the value, 0-3 of the gate, 4-7 of the value, ...) as the GEGLU kernels read them.
 */
export type WeightLayout =
  | {
      readonly kind: "matrix";
      readonly rows: number;
      readonly taps: number;
      readonly channels: number;
      readonly gated: boolean;
    }
  | { readonly kind: "vector"; readonly length: number; readonly gated: boolean }
  /** Integer weights, packed as quant/codes.ts describes. */
  | { readonly kind: "codes"; readonly gated: boolean; readonly codes: CodeLayout }
  /** What turns integer sums (4 words) or codes (2 words) back into floats: [segment][row], rows padded to fours. */
  | {
      readonly kind: "parameters";
      readonly gated: boolean;
      readonly rows: number;
      readonly segments: number;
      readonly words: 2 | 4;
    }
  /** Rows of several sources side by side: [rows][columns], always f32. */
  | { readonly kind: "table"; readonly gated: false; readonly rows: number; readonly columns: number };

/** How the sources of a packed weight become integers, and over which activations. */
export interface Quantization {
  readonly weight: WeightQuant;
  /** Input channels: [C], or [C1, C2] of a concatenation. */
  readonly channels: readonly number[];
  /** Both halves of a concatenation have scales of their own. */
  readonly hasHalves: boolean;
  readonly taps: number;
  /** Codes of x and x2; none for weights that are only stored as integers. */
  readonly activations: readonly ActivationCodes[];
}

/** One or several parameters stacked along their first axis, in one binding. */
export interface PackedWeight {
  readonly key: string;
  readonly sources: readonly Weight[];
  readonly layout: WeightLayout;
  readonly dtype: "f32" | "f16" | "u32";
  readonly bytes: number;
  /** For layouts `codes` and `parameters`. */
  readonly quantization?: Quantization;
}

export type Bound = Tensor | PackedWeight;

export interface Dispatch {
  /** The op's path: GPU label, profiler row, error prefix. */
  readonly path: string;
  /** The op's kind, for tables. */
  readonly kind: string;
  /** File name in shaders/, without .wgsl. */
  readonly shader: string;
  /** Text: `#ifdef NAME` for true, `const NAME = <n>u;` for a number. */
  readonly defines: Readonly<Record<string, number | true>>;
  /** Values of the shader's `override`s: compiled in, or from a uniform, as `KernelChoice.overrides` says. */
  readonly constants: Readonly<Record<string, number>>;
  /** Values of `override`s that differ from layer to layer (scales): always from a uniform, so that layers share pipelines. */
  readonly uniforms?: Readonly<Record<string, number>>;
  /** Variable name in the shader -> what is bound there. Binding numbers and access modes are the shader's own. */
  readonly bindings: Readonly<Record<string, Bound>>;
  /** The variable names among `bindings` that the shader writes. */
  readonly writes: readonly string[];
  readonly workgroups: readonly [number, number, number];
  /** Multiply-accumulates, or elements moved for kernels without: what the executor bounds its submits by. */
  readonly work: number;
}

export interface KernelContext {
  readonly caps: DeviceCaps;
  /** How weight matrices are stored. */
  readonly weightType: "f32" | "f16";
  /** A tensor that lives only within the op. */
  scratch(name: string, shape: Shape, dtype: DType): Tensor;
}

/** What a twin reads: tensors as the f32 values they hold, weights in the checkpoint's own layout, floats or integers. */
export interface TwinInputs {
  /** An i8 tensor's stored codes. */
  tensor(tensor: Tensor): Float32Array;
  weight(weight: Weight): Float32Array;
  /** The weights of layers in integers, by name. */
  readonly matrices: ReadonlyMap<string, QuantizedMatrix>;
}

export interface Kernel<O extends Op> {
  dispatches(op: O, context: KernelContext): Dispatch[];
  /** The op's result before it is stored, [batch, height, width, channels]: plain loops, f64 sums, aiming at truth and not at speed. */
  reference(op: O, inputs: TwinInputs): Float32Array;
}

export const quads = (channels: number): number => Math.ceil(channels / 4);

/** Pixels of a tensor: batch x height x width. */
export const pixels = ({ shape }: Tensor): number => shape[0] * shape[1] * shape[2];

/** The defines of shaders/shared/storage.wgsl: how a kernel's input, output and weight matrix are stored. */
export function storageDefines(
  caps: Pick<DeviceFacts, "shaderF16">,
  stored: { readonly in?: DType; readonly out?: DType; readonly weights?: PackedWeight["dtype"] },
): Record<string, true> {
  const defines: Record<string, true> = {};
  for (const [name, dtype] of [
    ["IN", stored.in],
    ["OUT", stored.out],
    ["WGT", stored.weights],
  ] as const) {
    if (dtype === "f16") defines[`${name}_F16`] = true;
    if (dtype === "i8") defines[`${name}_I8`] = true;
  }
  if (caps.shaderF16 && Object.values(stored).includes("f16")) defines["SHADER_F16"] = true;
  return defines;
}

/** The uniforms of store_out in shaders/shared/storage.wgsl. */
export function storeUniforms({ codes }: Tensor): Record<string, number> {
  return codes ? { Q_SCALE: codes.scale, Q_ZERO: codes.zeroPoint, Q_MAX: 2 ** codes.bits - 1 } : {};
}

/**
 * A grid of `parts` workgroups, counted through by shaders/shared/grid.wgsl: in a row, or folded into as few rows as the
 * device's limit allows, with fewer workgroups left over than there are rows.
 */
export function spread(parts: number, { maxWorkgroupsPerDimension }: DeviceFacts): [number, number, number] {
  const rows = Math.ceil(parts / maxWorkgroupsPerDimension);
  return [Math.ceil(parts / rows), rows, 1];
}
