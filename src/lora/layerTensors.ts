/** The tensors of one adapted layer in a file, read with every shape and number checked. Everything throws `invalid-model`. */
import { MixdqError } from "../base/errors.ts";
import type { Weight } from "../graph/ops.ts";
import { readFloats } from "../weights/convert.ts";
import type { StoredTensor } from "../weights/safetensors.ts";
import type { Factor } from "./delta.ts";
import type { Layer } from "./layers.ts";
import type { Part } from "./parts.ts";

export interface PartTensor {
  /** Its name in the file. */
  readonly key: string;
  readonly tensor: StoredTensor;
}

/** Shapes are compared and given without the ones at their end: a 1x1 convolution is as good as a linear layer. */
type Shape = readonly number[];

export class LayerTensors {
  /** For messages: the file. */
  readonly file: string;
  /** The layer's name in the file. */
  readonly name: string;
  readonly layer: Layer;
  readonly parts: ReadonlyMap<Part, PartTensor>;

  constructor(file: string, name: string, layer: Layer, parts: ReadonlyMap<Part, PartTensor>) {
    this.file = file;
    this.name = name;
    this.layer = layer;
    this.parts = parts;
  }

  has(part: Part): boolean {
    return this.parts.has(part);
  }

  /** The layer's weight or bias. */
  target(kind: "weight" | "bias"): Weight {
    const target = this.layer[kind];
    if (target) return target;
    const { component, path } = this.layer;
    throw this.error(`a change of the ${kind} of ${component} ${path}`, `none: that layer has no ${kind}`);
  }

  shape(part: Part): Shape {
    return trimmed(this.parts.get(part)!.tensor.shape);
  }

  /** The first size of a tensor's shape. */
  rank(part: Part): number {
    const { shape } = this.parts.get(part)!.tensor;
    const [rank = 0] = shape;
    if (rank > 0) return rank;
    throw this.failure(part, `shape [${shape.join(", ")}]`, "a rank of at least 1");
  }

  /** A number that says how the product is scaled; undefined where the file has none. */
  alpha(): number | undefined {
    const alpha = this.parts.get("alpha");
    if (!alpha) return undefined;
    const { key, tensor } = alpha;
    const values = readFloats(tensor, `${this.file}: ${key}`);
    if (values.length === 1 && Number.isFinite(values[0])) return values[0];
    const got = values.length === 1 ? String(values[0]) : `shape [${tensor.shape.join(", ")}]`;
    throw this.failure("alpha", got, "one finite number");
  }

  /** A tensor that must have one of these shapes. */
  factor(part: Part, ...shapes: readonly Shape[]): Factor {
    const { tensor } = this.parts.get(part)!;
    const { dtype, bytes } = tensor;
    if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16")
      throw this.failure(part, `dtype ${dtype}`, "F32, F16 or BF16");
    const shape = trimmed(tensor.shape);
    if (!shapes.some((each) => text(trimmed(each)) === text(shape))) {
      const { component, path } = this.layer;
      throw this.failure(
        part,
        `shape ${text(tensor.shape)}`,
        `${shapes.map(text).join(" or ")} for ${component} ${path}`,
      );
    }
    const factor: Factor = { dtype, bytes, shape };
    const broken = firstBroken(factor);
    if (broken >= 0) throw this.failure(part, `NaN or infinity at ${broken}`, "finite numbers");
    return factor;
  }

  /** About one tensor. */
  failure(part: Part, got: string, expected: string): MixdqError {
    return this.#error(this.parts.get(part)!.key, got, expected);
  }

  /** About the layer. */
  error(got: string, expected: string): MixdqError {
    return this.#error(this.name, got, expected);
  }

  #error(key: string, got: string, expected: string): MixdqError {
    const advice = "Use a LoRA that was trained for this model, or download the file again.";
    return new MixdqError("invalid-model", `${this.file}: ${key}: got ${got}, expected ${expected}. ${advice}`);
  }
}

const text = (shape: Shape): string => `[${shape.join(", ")}]`;

function trimmed(shape: Shape): Shape {
  let { length } = shape;
  while (length > 1 && shape[length - 1] === 1) length--;
  return shape.slice(0, length);
}

/** The index of the first number that is not finite, or -1. The exponent of such a number is all ones. */
function firstBroken({ dtype, bytes }: Factor): number {
  if (dtype === "F32") {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    return words.findIndex((word) => (word & 0x7f80_0000) === 0x7f80_0000);
  }
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  const exponent = dtype === "F16" ? 0x7c00 : 0x7f80;
  return words.findIndex((word) => (word & exponent) === exponent);
}
