/** What a device allows a plan: checked once, for all of it, before anything is loaded. */
import { MixdqError } from "../base/errors.ts";
import type { Tensor } from "../graph/ops.ts";
import type { DeviceCaps, Dispatch, PackedWeight } from "../kernels/kernel.ts";
import type { Memory } from "./memory.ts";

/** In bytes; the limit on grids is in DeviceCaps, because kernels fold their grids by it. */
export interface MemoryLimits {
  readonly maxBindingBytes: number;
  readonly maxBufferBytes: number;
}

interface Planned {
  readonly name: string;
  readonly dispatches: readonly Dispatch[];
  readonly tensors: Iterable<Tensor>;
  readonly weights: readonly PackedWeight[];
  readonly memory: Memory;
}

/** Throws `unsupported` for the first thing that is too large: a grid, a tensor, a weight, or a buffer of many tensors. */
export function assertWithinLimits(
  { name, dispatches, tensors, weights, memory }: Planned,
  { maxWorkgroupsPerDimension }: DeviceCaps,
  { maxBindingBytes, maxBufferBytes }: MemoryLimits,
): void {
  const refuse = (text: string): never => {
    throw new MixdqError("unsupported", text);
  };
  for (const { path, shader, workgroups } of dispatches)
    if (workgroups.some((count) => count > maxWorkgroupsPerDimension))
      refuse(
        `${path}: ${shader} needs ${workgroups.join(" x ")} workgroups, the device allows ${maxWorkgroupsPerDimension} ` +
          "along a dimension (maxComputeWorkgroupsPerDimension). Generate a smaller picture.",
      );
  // A binding lies within one buffer, so the smaller limit counts.
  const [most, limit] =
    maxBindingBytes <= maxBufferBytes
      ? [maxBindingBytes, "maxStorageBufferBindingSize"]
      : [maxBufferBytes, "maxBufferSize"];
  for (const tensor of tensors) {
    const { bytes } = memory.placements.get(tensor.id)!;
    if (bytes > most)
      refuse(
        `${tensor.name}: its activation needs a binding of ${bytes} bytes, the device allows ${most} (${limit}). ` +
          "Generate a smaller picture, or use precision fp16.",
      );
  }
  for (const { key, bytes } of weights)
    if (bytes > most)
      refuse(
        `${key}: the weight needs a binding of ${bytes} bytes, the device allows ${most} (${limit}). ` +
          "Use precision fp16.",
      );
  if (memory.cachedBytes > maxBufferBytes)
    refuse(
      `${name}: the keys and values of the text need a buffer of ${memory.cachedBytes} bytes, the device allows ${maxBufferBytes} ` +
        "(maxBufferSize). Use precision fp16, or guidance 0.",
    );
}
