import { TILED } from "../kernels/choices.ts";
import { expect, test } from "vitest";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph, Tensor } from "../graph/ops.ts";
import type { DeviceCaps } from "../kernels/kernel.ts";
import { readUNetConfig, buildUNet } from "../diffusion/unet.ts";
import { Config } from "../base/config.ts";
import unetConfig from "../../models/postcard/unet/config.json" with { type: "json" };
import { CACHED } from "./memory.ts";
import { describePlan, makePlan, tensorBytes, type Plan } from "./plan.ts";

const CAPS: DeviceCaps = {
  shaderF16: true,
  ...TILED,
  packedDot: true,
  maxWorkgroupsPerDimension: 65_535,
};
const LIMITS = { maxBindingBytes: 128 * 2 ** 20, maxBufferBytes: 256 * 2 ** 20 };
const plan = (graph: Graph, share = true, limits = LIMITS): Plan =>
  makePlan(graph, { caps: CAPS, limits, weightType: "f16", share });

const unet = (): Graph =>
  buildUNet(
    readUNetConfig(new Config("unet/config.json", unetConfig)),
    { batch: 1, height: 16, width: 16, tokens: 77 },
    "unet",
    "f16",
  );

/** First and last dispatch at which each tensor is needed. */
function livesOf({ dispatches, inputs, outputs }: Plan): Map<Tensor, [number, number]> {
  const lives = new Map<Tensor, [number, number]>();
  for (const tensor of Object.values(inputs)) lives.set(tensor, [-1, -1]);
  dispatches.forEach(({ bindings }, at) => {
    for (const bound of Object.values(bindings)) if ("id" in bound) lives.set(bound, [lives.get(bound)?.[0] ?? at, at]);
  });
  for (const tensor of Object.values(outputs)) lives.set(tensor, [lives.get(tensor)![0], dispatches.length]);
  return lives;
}

test("two tensors that are needed at the same time never overlap", () => {
  const made = plan(unet());
  const lives = [...livesOf(made)];
  const overlaps = lives.flatMap(([a, [aFirst, aLast]], i) =>
    lives.slice(i + 1).filter(([b, [bFirst, bLast]]) => {
      const [pa, pb] = [made.memory.placements.get(a.id)!, made.memory.placements.get(b.id)!];
      const together = aFirst <= bLast && bFirst <= aLast;
      return together && pa.arena === pb.arena && pa.offset < pb.offset + pb.bytes && pb.offset < pa.offset + pa.bytes;
    }),
  );
  expect(lives.length).toBeGreaterThan(300);
  expect(overlaps).toEqual([]);
});

test("no dispatch reads and writes the same arena", () => {
  const { dispatches, memory } = plan(unet());
  const arenaOf = (tensor: unknown): number => memory.placements.get((tensor as Tensor).id)!.arena;
  const broken = dispatches.filter(({ bindings, writes }) => {
    const written = writes.map((name) => arenaOf(bindings[name]));
    return Object.entries(bindings).some(
      ([name, bound]) => "id" in bound && !writes.includes(name) && written.includes(arenaOf(bound)),
    );
  });
  expect(broken).toEqual([]);
});

test("sharing memory needs far less of it, and lies within arenas that hold every tensor", () => {
  const total = ({ memory }: Plan): number => memory.arenaBytes.reduce((sum, bytes) => sum + bytes, 0);
  const shared = plan(unet());
  expect(total(shared)).toBeLessThan(total(plan(unet(), false)) / 5);
  const { placements, arenaBytes, cachedBytes } = shared.memory;
  for (const { arena, offset, bytes } of placements.values()) {
    expect(offset % 256).toBe(0);
    expect(offset + bytes).toBeLessThanOrEqual(arena === CACHED ? cachedBytes : arenaBytes[arena]);
  }
});

test("keys and values of the text outlive a run, and nothing else does", () => {
  const { dispatches, textDispatches, memory } = plan(unet());
  const kept = dispatches.filter(({ bindings, writes }) =>
    writes.some((name) => memory.placements.get((bindings[name] as Tensor).id)!.arena === CACHED),
  );
  expect(kept.length).toBeGreaterThan(10);
  expect(new Set(kept)).toEqual(textDispatches);
  expect(kept.every(({ path }) => path.endsWith(".attn2.to_kv"))).toBe(true);
});

test("a tensor that no binding can hold is refused with both numbers", () => {
  const g = new GraphBuilder("big", "f32");
  g.output("y", g.unary("act", g.input("x", [1, 64, 64, 64]), { name: "silu" }));
  expect(() => plan(g.finish(), true, { maxBindingBytes: 1000, maxBufferBytes: 1e6 })).toThrow(
    /binding of 1048576 bytes, the device allows 1000/,
  );
});

test("channels are padded to quads, ids are not", () => {
  expect(tensorBytes({ id: 0, name: "image", shape: [1, 2, 2, 3], dtype: "f16" })).toBe(32);
  expect(tensorBytes({ id: 0, name: "ids", shape: [1, 1, 77, 1], dtype: "u32" })).toBe(320);
});

test("the plan of the default model's UNet reads as one line a dispatch", () => {
  const text = describePlan(plan(unet()));
  const [head, first, ...rest] = text.split("\n");
  expect(head).toMatch(/^unet: 319 dispatches, \d+ pipelines, weights 12\.8 MB, arenas /);
  expect(first).toMatch(/^ +0 gemm_tiled .* time_embedding\.linear_1$/);
  expect(rest.at(-1)).toMatch(/gemm_tiled .*\[1,16,16,4\].* conv_out$/);
});
