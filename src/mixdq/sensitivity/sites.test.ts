import { SIMPLE } from "../../kernels/choices.ts";
import { expect, test } from "vitest";
import { SDXL_TURBO_UNET } from "../../model/known/sdxlTurbo.ts";
import { Config } from "../../base/config.ts";
import { buildUNet, readUNetConfig } from "../../diffusion/unet.ts";
import { aliveAt } from "../../gpu/snapshot.ts";
import type { Dispatch } from "../../kernels/kernel.ts";
import { makePlan } from "../../plan/plan.ts";
import { evaluationsOf, keyOf, shardOf, sitesOf } from "./sites.ts";

const unet = readUNetConfig(new Config("unet/config.json", SDXL_TURBO_UNET));
const graph = buildUNet(unet, { batch: 1, height: 64, width: 64, tokens: 77 }, "unet", "f32");
const plan = makePlan(graph, {
  caps: {
    shaderF16: false,
    ...SIMPLE,
    overrides: "constants",
    packedDot: false,
    maxWorkgroupsPerDimension: 65535,
  },
  limits: { maxBindingBytes: 2 ** 30, maxBufferBytes: 2 ** 30 },
  weightType: "f16",
});
const sites = sitesOf(graph, plan);

test("every layer of SDXL has its dispatches, in the order of the plan", () => {
  expect(sites).toHaveLength(794);
  let before = 0;
  for (const { from, to, op, path, weight } of sites) {
    expect(from, path).toBeGreaterThanOrEqual(before);
    before = from;
    const stretch = plan.dispatches.slice(from, to);
    const bound = stretch.flatMap(({ bindings }) => Object.values(bindings));
    expect(
      bound.some((b) => "key" in b && b.sources.some(({ name }) => name === weight.name)),
      path,
    ).toBe(true);
    expect(
      bound.some((b) => "id" in b && b.id === op.y.id),
      path,
    ).toBe(true);
    expect(
      bound.some((b) => "id" in b && b.id === op.x.id),
      path,
    ).toBe(true);
  }
});

test("layers that share an op share its channels out among them", () => {
  const block = "mid_block.attentions.0.transformer_blocks.3.attn1";
  const parts = sites.filter(({ path }) => path.startsWith(`${block}.to_`) && !path.includes("out"));
  expect(parts.map(({ path, firstColumn, columns }) => [path, firstColumn, columns])).toEqual([
    [`${block}.to_q`, 0, 1280],
    [`${block}.to_k`, 1280, 1280],
    [`${block}.to_v`, 2560, 1280],
  ]);
  expect(new Set(parts.map(({ from }) => from)).size).toBe(1);
  expect(parts.every(({ isAlone }) => !isAlone)).toBe(true);
  // A gated product is alone in its op, whose result has half as many channels as the weight has rows.
  const gated = sites.find(({ path }) => path.endsWith("ff.net.0.proj"))!;
  expect(gated).toMatchObject({ isAlone: true, firstColumn: 0, columns: gated.op.y.shape[3] });
});

test("shards hold every layer once and cost the same", () => {
  const work = (from: number): number =>
    plan.dispatches.reduce((sum, d, i) => sum + (i >= from && !plan.textDispatches.has(d) ? d.work : 0), 0);
  const shards = Array.from({ length: 8 }, (_, i) => shardOf(sites, { index: i + 1, count: 8 }));
  expect(
    shards
      .flat()
      .map(({ path }) => path)
      .sort(),
  ).toEqual(sites.map(({ path }) => path).sort());
  const costs = shards.map((shard) => shard.reduce((sum, { from }) => sum + work(from), 0));
  expect(Math.max(...costs) / Math.min(...costs)).toBeLessThan(1.03);
  expect(shardOf([1, 2, 3], { index: 1, count: 1 })).toEqual([1, 2, 3]);
});

test("evaluations have names of their own", () => {
  const all = sites.flatMap(({ path }) => evaluationsOf(path, { weight: [2, 4, 8], activation: [4, 8] }));
  expect(new Set(all.map(keyOf)).size).toBe(794 * 5);
  expect(evaluationsOf("a", { weight: [4], activation: [] })).toEqual([{ path: "a", side: "weight", bits: 4 }]);
});

test("a snapshot of SDXL holds a small part of the memory, and all that is read later", () => {
  const bytes = (ids: Iterable<number>): number =>
    [...ids].reduce((sum, id) => sum + plan.memory.placements.get(id)!.bytes, 0);
  for (const at of [0, 100, 700, plan.dispatches.length - 1]) {
    const alive = aliveAt(plan, at);
    expect(bytes(alive)).toBeLessThan(80 * 2 ** 20);
    // Whatever a later dispatch reads was alive, or is written by one that comes before it.
    const written = new Set(alive);
    for (const { bindings, writes } of plan.dispatches.slice(at) as Dispatch[]) {
      for (const [name, bound] of Object.entries(bindings))
        if ("id" in bound && !writes.includes(name)) expect(written.has(bound.id), bound.name).toBe(true);
      for (const name of writes) written.add((bindings[name] as { id: number }).id);
    }
  }
  expect(aliveAt(plan, 0)).toEqual(new Set(Object.values(graph.inputs).map(({ id }) => id)));
});
