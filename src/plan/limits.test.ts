/** Whole models at large sizes lie within every limit, and what does not is refused by the plan. */
import { describe, expect, test } from "vitest";
import { GraphBuilder } from "../graph/builder.ts";
import type { Graph } from "../graph/ops.ts";
import type { DeviceCaps } from "../kernels/kernel.ts";
import type { MemoryLimits } from "./limits.ts";
import { makePlan, TEXT_INPUT } from "./plan.ts";
import { DIRECT_CAPS, GPU_CAPS, quantizedSdxlUnet, sdxlUnet, sdxlVae } from "./plans.testing.ts";

/** What desktop GPUs have: bindings of just under 4 GiB. */
const LARGE: MemoryLimits = { maxBindingBytes: 2 ** 32 - 4, maxBufferBytes: 2 ** 32 };

const plan = (graph: Graph, caps: DeviceCaps, limits = LARGE) => makePlan(graph, { caps, limits, weightType: "f16" });

/** The largest count along a dimension, and how many workgroups there are at most for one kernel. */
function workgroups(graph: Graph, caps: DeviceCaps): { longest: number; most: number } {
  const grids = plan(graph, caps).dispatches.map(({ workgroups }) => workgroups);
  return {
    longest: Math.max(...grids.flat()),
    most: Math.max(...grids.map(([x, y, z]) => x * y * z)),
  };
}

describe.each([
  ["tiled", GPU_CAPS],
  ["direct", DIRECT_CAPS],
] as const)("%s", (_, caps) => {
  test.each([1016, 1024, 1472, 1536, 2048])("SDXL at %i pixels a side is within every limit", (size) => {
    const graphs = [sdxlVae({ size }), sdxlUnet({ size, batch: 2 }), quantizedSdxlUnet({ size }, 4, 8)];
    const grids = graphs.map((graph) => workgroups(graph, caps));
    expect(Math.max(...grids.map(({ longest }) => longest))).toBeLessThanOrEqual(65_535);
    // A group norm of the VAE has more than fit in a row from here on: this is what folding is for.
    if (size >= 1024) expect(Math.max(...grids.map(({ most }) => most))).toBeGreaterThan(65_535);
  });
});

test("folding leaves fewer workgroups over than there are rows", () => {
  for (const size of [1024, 2048]) {
    const unfolded = { ...GPU_CAPS, maxWorkgroupsPerDimension: 2 ** 32 };
    const [folded, whole] = [GPU_CAPS, unfolded].map((caps) =>
      plan(sdxlVae({ size }), caps).dispatches.map(({ workgroups }) => workgroups),
    );
    folded!.forEach(([x, y, z], i) => expect(x * y * z - whole![i][0]).toBeLessThan(y));
  }
});

describe("what is over a limit is refused by name, with both numbers", () => {
  const small = (): Graph => {
    const g = new GraphBuilder("small", "f32");
    g.output("y", g.linear("fc", g.input("x", [1, 64, 64, 64]), 64));
    return g.finish();
  };
  test.each<[string, Partial<DeviceCaps>, Partial<MemoryLimits>, RegExp]>([
    [
      "a grid",
      { maxWorkgroupsPerDimension: 7 },
      {},
      /^fc: gemm_tiled needs 7 x 19 x 1 workgroups, the device allows 7 /,
    ],
    ["an activation", {}, { maxBindingBytes: 1e6 }, /^x: its activation needs a binding of 1048576 bytes, .* 1000000 /],
    ["a buffer", {}, { maxBufferBytes: 1e6 }, /^x: its activation .* 1048576 bytes, .* 1000000 \(maxBufferSize\)/],
  ])("%s", (_, caps, limits, message) => {
    expect(() => plan(small(), { ...GPU_CAPS, ...caps }, { ...LARGE, ...limits })).toThrow(message);
  });

  test("a weight", () => {
    const g = new GraphBuilder("wide", "f32");
    g.output("y", g.linear("fc", g.input("x", [1, 1, 1, 4096]), 4096));
    const limits = { ...LARGE, maxBindingBytes: 2 ** 20 };
    expect(() => plan(g.finish(), GPU_CAPS, limits)).toThrow(
      /^fc\.weight:matrix:f16: the weight needs a binding of 33554432 bytes, the device allows 1048576 /,
    );
  });

  test("keys and values of the text", () => {
    const g = new GraphBuilder("text", "f32");
    const text = g.input(TEXT_INPUT, [1, 1, 77, 64]);
    for (let i = 0; i < 8; i++) g.output(`kv${i}`, g.linear(`layer.${i}`, text, 1024));
    expect(() => plan(g.finish(), GPU_CAPS, { ...LARGE, maxBufferBytes: 1e6 })).toThrow(
      /^text: the keys and values of the text need a buffer of 2523136 bytes, the device allows 1000000 /,
    );
  });

  test("SDXL's VAE in 32 bits at 2048 x 2048", () => {
    expect(() => plan(sdxlVae({ size: 2048, dtype: "f32" }), GPU_CAPS)).toThrow(
      /a binding of 4294967296 bytes, the device allows 4294967292 .*Generate a smaller picture/,
    );
  });
});
