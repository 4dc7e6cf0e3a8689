/**
 * An ONNX graph while it is being written: nodes, constants and weights, each value under a name of its own.
 *
 * Weights of any size lie outside the protobuf, as views of the arrays they came in wherever their storage format is
 * already the wanted one: nothing is copied or transposed, and two weights may be two views of one array.
 */
import { MixdqError } from "../base/errors.ts";
import { elementCount } from "../graph/ops.ts";
import { fromHalf, toHalf } from "../quant/half.ts";
import { encodeModel } from "./protobuf.ts";
import type { ElementType, NodeMessage, TensorMessage, ValueMessage } from "./protobuf.ts";

/** A parameter in its checkpoint shape; Uint16Array holds the bits of 16-bit floats. */
export interface WeightData {
  readonly shape: readonly number[];
  readonly data: Float32Array | Uint16Array;
}

export type WeightSource = (name: string) => WeightData;

export interface ExternalData {
  readonly path: string;
  readonly data: Uint8Array;
}

/** Below this many bytes a tensor travels in the protobuf: ONNX Runtime wants small constants there (shapes). */
const INLINE_BYTES = 512;

// Operator sets of ONNX 1.16 (March 2024): the first with a Gelu of its own (20) that ONNX Runtime's WebGPU and
// WebAssembly kernels both list.
const OPSETS = { "": 21, "com.microsoft": 1 };
const IR_VERSION = 10;

export interface OnnxOptions {
  /** How weights and everything between the ops are stored. */
  readonly float: "f32" | "f16";
  /** false: MatMul, Softmax, MatMul in place of com.microsoft.MultiHeadAttention. Default: true. */
  readonly fusedAttention?: boolean;
}

export class ModelWriter {
  readonly float: "f32" | "f16";
  readonly fusedAttention: boolean;
  readonly external: ExternalData[] = [];
  readonly inputs: ValueMessage[] = [];
  readonly outputs: ValueMessage[] = [];
  readonly #weights: WeightSource;
  readonly #nodes: NodeMessage[] = [];
  readonly #initializers = new Map<string, TensorMessage>();
  readonly #constants = new Map<string, string>();
  readonly #converted = new Map<string, Float32Array | Uint16Array>();
  readonly #taken = new Set<string>();

  constructor(weights: WeightSource, { float, fusedAttention = true }: OnnxOptions) {
    this.float = float;
    this.fusedAttention = fusedAttention;
    this.#weights = weights;
  }

  /** A name like the wish that no other value has. */
  unique(wish: string): string {
    let name = wish;
    for (let i = 2; this.#taken.has(name); i++) name = `${wish}#${i}`;
    this.#taken.add(name);
    return name;
  }

  /** Adds a node and returns the name of its first output. "Gelu" is ONNX's, "com.microsoft.QuickGelu" is not. */
  node(path: string, type: string, inputs: readonly string[], attributes: NodeMessage["attributes"] = {}): string {
    const dot = type.lastIndexOf(".");
    const name = this.unique(`${path}/${type.slice(dot + 1)}`);
    this.#nodes.push({
      name,
      opType: type.slice(dot + 1),
      domain: type.slice(0, Math.max(dot, 0)),
      inputs,
      outputs: [name],
      attributes,
    });
    return name;
  }

  /** A small constant in the graph's float type; equal constants are one. */
  floats(values: readonly number[], shape: readonly number[] = [values.length]): string {
    const f32 = Float32Array.from(values);
    return this.#constant(this.float, shape, values, this.float === "f16" ? toHalf(f32) : f32);
  }

  i64(values: readonly number[]): string {
    return this.#constant("i64", [values.length], values, BigInt64Array.from(values, BigInt));
  }

  i32(values: readonly number[], shape: readonly number[]): string {
    return this.#constant("i32", shape, values, Int32Array.from(values));
  }

  /** A matrix too big to be a constant in the protobuf, made by us (the causal mask). */
  made(name: string, shape: readonly number[], make: () => Float32Array): string {
    if (!this.#initializers.has(name))
      this.#initialize(name, shape, this.#inGraphFloat(make()), 0, elementCount(shape));
    return name;
  }

  /**
   * A weight under its checkpoint name, given `shape` (the same elements in the same order), or only `rows` of its
   * first axis. Throws `invalid-model` where the checkpoint's tensor has another number of elements.
   */
  weight(
    weight: { readonly name: string; readonly shape: readonly number[] },
    shape: readonly number[] = weight.shape,
    rows?: { readonly from: number; readonly count: number },
  ): string {
    const part = rows ? `[${rows.from}:${rows.from + rows.count}]` : "";
    const name = `${weight.name}${part} ${shape.join("x")}`;
    if (this.#initializers.has(name)) return name;
    const source = this.#weights(weight.name);
    if (source.data.length !== elementCount(weight.shape))
      throw new MixdqError(
        "invalid-model",
        `${weight.name}: got shape [${source.shape.join(", ")}] with ${source.data.length} elements, expected ` +
          `[${weight.shape.join(", ")}]. The weights do not belong to this model's config.json.`,
      );
    const rowSize = elementCount(weight.shape.slice(1));
    const offset = rows ? rows.from * rowSize : 0;
    this.#initialize(name, shape, this.#stored(weight.name, source.data), offset, elementCount(shape));
    return name;
  }

  /** Bytes of everything outside the protobuf. */
  get externalBytes(): number {
    return this.external.reduce((sum, file) => sum + file.data.byteLength, 0);
  }

  finish(graphName: string): Uint8Array<ArrayBuffer> {
    return encodeModel({
      producer: "mixdq-web",
      graphName,
      irVersion: IR_VERSION,
      opsets: OPSETS,
      nodes: this.#nodes,
      initializers: [...this.#initializers.values()],
      inputs: this.inputs,
      outputs: this.outputs,
    });
  }

  #constant(type: ElementType, shape: readonly number[], values: readonly number[], data: ArrayBufferView): string {
    const key = `${type}[${shape.join("x")}] ${values.join(" ")}`;
    let name = this.#constants.get(key);
    if (name === undefined) {
      this.#constants.set(key, (name = this.unique(`constant ${this.#constants.size}`)));
      this.#initializers.set(name, { name, type, shape, data: bytesOf(data) });
    }
    return name;
  }

  /** The weight's elements in the graph's float type; converted once, however many views of it are taken. */
  #stored(name: string, data: Float32Array | Uint16Array): Float32Array | Uint16Array {
    const known = this.#converted.get(name);
    if (known) return known;
    const stored = this.#inGraphFloat(data);
    if (stored !== data) this.#converted.set(name, stored);
    return stored;
  }

  #inGraphFloat(data: Float32Array | Uint16Array): Float32Array | Uint16Array {
    if (this.float === "f16") return data instanceof Uint16Array ? data : toHalf(data);
    return data instanceof Float32Array ? data : fromHalf(data);
  }

  #initialize(name: string, shape: readonly number[], data: Float32Array | Uint16Array, offset: number, count: number) {
    const bytes = bytesOf(data.subarray(offset, offset + count));
    const small = bytes.byteLength <= INLINE_BYTES;
    // Each view is a file of its own: one map entry, no arithmetic on offsets beyond 2^32.
    const path = small ? "" : `w${this.external.length}`;
    if (!small) this.external.push({ path, data: bytes });
    this.#initializers.set(name, {
      name,
      type: this.float,
      shape,
      data: small ? bytes : { path, offset: 0, length: bytes.byteLength },
    });
  }
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
