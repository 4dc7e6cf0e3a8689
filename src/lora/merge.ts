/** A component's weights with adapters merged into them, tensor by tensor as they are read. */
import { nameMap } from "../graph/names.ts";
import { toFloat32 } from "../weights/convert.ts";
import type { ComponentWeights, TensorOptions } from "../weights/folder.ts";
import type { WeightTensor } from "../weights/safetensors.ts";
import { addDelta, geometryOf, type Delta } from "./delta.ts";
import type { AdaptedComponent } from "./layers.ts";
import type { Lora } from "./read.ts";

/**
 * The same weights, with those that the LoRAs change in F32, merged in the order given (which only DoRA makes a difference
 * of). `isExact`: all in F32, so that whoever stores weights as exact as they come does not begin with halves. Holds one
 * tensor and its difference beside the LoRAs themselves.
 */
export function withLoras(
  weights: ComponentWeights,
  { component, weights: wanted }: AdaptedComponent,
  loras: readonly Lora[],
  { isExact }: { readonly isExact: boolean },
): ComponentWeights {
  const changes = loras.flatMap(({ deltas }) => deltas.get(component) ?? []);
  if (changes.length === 0) return weights;
  const names = nameMap(wanted);
  return {
    bytes: weights.bytes,
    async *tensors(options?: TensorOptions) {
      for await (const tensor of weights.tensors(options)) {
        const name = names.get(tensor.name)?.name;
        const own = name === undefined ? [] : changes.flatMap((deltas) => deltas.get(name) ?? []);
        yield own.length > 0 || isExact ? merged(tensor, own) : tensor;
      }
    },
  };
}

function merged({ name, dtype, shape, bytes }: WeightTensor, deltas: readonly Delta[]): WeightTensor {
  const values = toFloat32(bytes, dtype);
  for (const delta of deltas) addDelta(values, geometryOf(shape), delta);
  const { buffer, byteOffset, byteLength } = values;
  return { name, dtype: "F32", shape, bytes: new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength) };
}
