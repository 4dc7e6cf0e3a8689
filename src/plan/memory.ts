/**
 * Where activations live: each tensor gets a place in one of a few arenas for as long as it is needed.
 *
 * WebGPU forbids a buffer to be read-only and writable within one dispatch, whatever the ranges, so two tensors of
 * which a dispatch reads one and writes the other must lie in different arenas. Tensors are placed in the order in
 * which they come to life, each at the lowest place that is free for its whole life, in the arena that grows least.
 */
import type { Tensor } from "../graph/ops.ts";
import type { Dispatch } from "../kernels/kernel.ts";

export interface Placement {
  readonly arena: number;
  readonly offset: number;
  readonly bytes: number;
}

export interface Memory {
  readonly placements: ReadonlyMap<number, Placement>;
  /** Size of each arena. */
  readonly arenaBytes: readonly number[];
  /** Size of the memory for tensors that outlive a run; their placements have the arena CACHED. */
  readonly cachedBytes: number;
}

export const CACHED = -1;

/** Offsets of bindings must be multiples of this everywhere (minStorageBufferOffsetAlignment's default). */
export const ALIGNMENT = 256;

interface Life {
  readonly tensor: Tensor;
  readonly bytes: number;
  first: number;
  last: number;
  readonly conflicts: Set<number>;
}

/**
 * `share: false` gives every tensor a place of its own: if that changes a picture, it is aliasing. `cached` tensors lie
 * outside the arenas, where nothing ever takes their place; no dispatch may read one and write another.
 * An arena is larger than `maxArenaBytes` only where a single tensor is.
 */
export function placeTensors(
  dispatches: readonly Dispatch[],
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  bytesOf: (tensor: Tensor) => number,
  maxArenaBytes: number,
  { share = true, cached = new Set() }: { share?: boolean; cached?: ReadonlySet<number> } = {},
): Memory {
  const lives = livesOf(dispatches, inputs, outputs, bytesOf, share);
  const arenas: { bytes: number; lives: Life[] }[] = [];
  const placements = new Map<number, Placement>();
  let cachedBytes = 0;
  for (const life of lives) {
    const { tensor, bytes } = life;
    if (cached.has(tensor.id)) {
      placements.set(tensor.id, { arena: CACHED, offset: cachedBytes, bytes });
      cachedBytes += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
      continue;
    }
    let best: { arena: number; offset: number; growth: number } | undefined;
    for (let arena = 0; arena <= arenas.length; arena++) {
      const { bytes: size, lives: placed } = arenas[arena] ?? { bytes: 0, lives: [] };
      if (placed.some((other) => life.conflicts.has(other.tensor.id))) continue;
      const offset = lowestFree(placed, life, placements);
      const end = offset + bytes;
      if (end > maxArenaBytes && arena < arenas.length) continue;
      const growth = Math.max(0, end - size);
      // A new arena only where no old one will do: fewer buffers, and room left behind large tensors gets used.
      if (!best || (arena < arenas.length && growth < best.growth)) best = { arena, offset, growth };
    }
    const { arena: index, offset } = best!; // at least the new arena
    const arena = (arenas[index] ??= { bytes: 0, lives: [] });
    arena.lives.push(life);
    arena.bytes = Math.max(arena.bytes, offset + bytes);
    placements.set(tensor.id, { arena: index, offset, bytes });
  }
  return { placements, arenaBytes: arenas.map(({ bytes }) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT), cachedBytes };
}

function livesOf(
  dispatches: readonly Dispatch[],
  inputs: readonly Tensor[],
  outputs: readonly Tensor[],
  bytesOf: (tensor: Tensor) => number,
  share: boolean,
): Life[] {
  const lives = new Map<number, Life>();
  const touch = (tensor: Tensor, at: number): Life => {
    let life = lives.get(tensor.id);
    if (!life) {
      life = { tensor, bytes: bytesOf(tensor), first: at, last: at, conflicts: new Set() };
      lives.set(tensor.id, life);
    }
    life.last = Math.max(life.last, at);
    return life;
  };
  for (const tensor of inputs) touch(tensor, -1);
  dispatches.forEach(({ bindings, writes }, at) => {
    const tensors = Object.entries(bindings).flatMap(([name, bound]) =>
      "id" in bound ? [{ name, tensor: bound }] : [],
    );
    for (const { tensor } of tensors) touch(tensor, at);
    for (const { name, tensor } of tensors)
      if (writes.includes(name))
        for (const other of tensors)
          if (other.tensor.id !== tensor.id) {
            touch(tensor, at).conflicts.add(other.tensor.id);
            touch(other.tensor, at).conflicts.add(tensor.id);
          }
  });
  for (const tensor of outputs) touch(tensor, dispatches.length);
  if (!share)
    for (const life of lives.values()) {
      life.first = -1;
      life.last = dispatches.length;
    }
  return [...lives.values()];
}

/** The lowest offset at which `life` overlaps nothing that is alive at the same time. */
function lowestFree(placed: readonly Life[], life: Life, placements: ReadonlyMap<number, Placement>): number {
  const taken = placed
    .filter((other) => other.first <= life.last && life.first <= other.last)
    .map((other) => placements.get(other.tensor.id)!)
    .sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const place of taken) {
    if (offset + life.bytes <= place.offset) break;
    offset = Math.max(offset, Math.ceil((place.offset + place.bytes) / ALIGNMENT) * ALIGNMENT);
  }
  return offset;
}
