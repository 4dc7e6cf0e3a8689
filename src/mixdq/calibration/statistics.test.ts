import { expect, test } from "vitest";
import { createGenerator } from "../../diffusion/noise.ts";
import { MixdqError } from "../../base/errors.ts";
import { GraphBuilder } from "../../graph/builder.ts";
import { elementCount, type Graph } from "../../graph/ops.ts";
import { quantizableLayers } from "./layers.ts";
import { Recording, TensorStatistics, type RecordingState } from "./statistics.ts";

const noise = createGenerator(7);

function recorded(...prompts: readonly Float32Array[][]): TensorStatistics {
  const statistics = new TensorStatistics();
  for (const prompt of prompts) {
    for (const values of prompt) expect(statistics.observe(values)).toBe(true);
    statistics.endPrompt();
  }
  return statistics;
}

test("extremes, moving averages and the mean square are exact", () => {
  const summary = recorded([Float32Array.of(-1, 2), Float32Array.of(3)], [Float32Array.of(0.5, -2)]).summary();
  expect(summary).toMatchObject({ min: -2, max: 3, count: 5 });
  expect(summary.movingMin).toBeCloseTo(0.95 * -1 + 0.05 * -2, 12);
  expect(summary.movingMax).toBeCloseTo(0.95 * 3 + 0.05 * 0.5, 12);
  expect(summary.meanSquare).toBeCloseTo((1 + 4 + 9 + 0.25 + 4) / 5, 12);
});

test.each([
  ["normal", (x: number) => x],
  ["heavy-tailed", (x: number) => x ** 5],
  ["positive and tiny", (x: number) => 1e-6 * Math.exp(x)],
  ["negative and huge", (x: number) => -1e6 * Math.exp(x)],
  ["mostly zero", (x: number) => (Math.abs(x) < 3 ? 0 : x)],
])("percentiles of %s values are within a bin of the sorted ones", (_, shape) => {
  const values = noise.randn(300_000).map(shape);
  const { percentileMin, percentileMax, min, max } = recorded(
    [values.subarray(0, 100_001)],
    [values.subarray(100_001)],
  ).summary();
  const sorted = values.toSorted();
  const [low, high] = [sorted[30], sorted[sorted.length - 31]];
  // A bin is 1/64 wide; the ranks beside it may lie in the next.
  expect(Math.abs(percentileMin - low)).toBeLessThanOrEqual(Math.abs(low) / 32);
  expect(Math.abs(percentileMax - high)).toBeLessThanOrEqual(Math.abs(high) / 32);
  expect(percentileMin).toBeGreaterThanOrEqual(min);
  expect(percentileMax).toBeLessThanOrEqual(max);
});

test("the percentiles of few or equal values are their extremes", () => {
  expect(recorded([Float32Array.of(-3, 5)]).summary()).toMatchObject({ percentileMin: -3, percentileMax: 5 });
  expect(recorded([new Float32Array(9).fill(2)]).summary()).toMatchObject({ percentileMin: 2, percentileMax: 2 });
  expect(recorded([new Float32Array(9)]).summary()).toMatchObject({
    percentileMin: 0,
    percentileMax: 0,
    meanSquare: 0,
  });
});

test("values that are not finite are refused", () => {
  for (const value of [Number.NaN, Infinity, -Infinity])
    expect(new TensorStatistics().observe(Float32Array.of(1, value, 2))).toBe(false);
});

/** Two layers over x, a third over their sum with a skip connection, keys and values of a text of three tokens. */
function network(): Graph {
  const g = new GraphBuilder("unet", "f32");
  const text = g.input("encoder_hidden_states", [2, 1, 3, 4]);
  const x = g.input("x", [2, 2, 2, 4]);
  const qk = g.linears("attn1", x, [
    { path: "attn1.to_q", n: 4 },
    { path: "attn1.to_k", n: 4 },
  ]);
  g.linears("attn2.to_kv", text, [
    { path: "attn2.to_k", n: 4 },
    { path: "attn2.to_v", n: 4 },
  ]);
  g.linear("text_proj", text, 4);
  g.output("y", g.conv2d("conv_shortcut", qk, 8, { kernel: 1, skip: x }));
  return g.finish();
}

/** Shows the recording what a run computes, `seed` making the values. */
function show(recording: Recording, graph: Graph, seed: number): void {
  const random = createGenerator(seed);
  for (const tensor of [...Object.values(graph.inputs), ...graph.ops.map(({ y }) => y)])
    if (recording.wants(tensor)) recording.observe(tensor, random.randn(elementCount(tensor.shape)));
}

test("layers that read one tensor share its range, the halves of a concatenation have their own", () => {
  const graph = network();
  const recording = new Recording(quantizableLayers(graph), { bos: true });
  expect(recording.tensors).toBe(3); // text, x, and what conv_shortcut reads; nobody reads the other results
  show(recording, graph, 1);
  recording.endPrompt();
  const layers = recording.layers();
  const paths = ["attn1.to_q", "attn1.to_k", "attn2.to_k", "attn2.to_v", "text_proj", "conv_shortcut"];
  expect([...layers.keys()]).toEqual(paths);
  expect(layers.get("attn1.to_q")).toEqual(layers.get("attn1.to_k"));
  expect(layers.get("conv_shortcut")!.act2).toEqual(layers.get("attn1.to_q")!.act);
  expect(layers.get("conv_shortcut")!.act.count).toBe(2 * 2 * 2 * 8);
  expect(layers.get("attn1.to_q")!.act2).toBeUndefined();
});

test("keys and values never see the first token of any image, unless they shall", () => {
  const graph = network();
  const text = graph.inputs["encoder_hidden_states"];
  const values = new Float32Array(2 * 3 * 4).map((_, i) => (i % 12 < 4 ? 800 : (i % 12) / 4));
  const rangeOf = (bos: boolean): [number, number] => {
    const recording = new Recording(quantizableLayers(graph), { bos });
    show(recording, graph, 2);
    recording.endPrompt();
    const again = new Recording(quantizableLayers(graph), { bos });
    show(again, { ...graph, inputs: { x: graph.inputs["x"] } }, 2);
    again.observe(text, values);
    again.endPrompt();
    const { min, max, count } = again.layers().get("attn2.to_v")!.act;
    expect(count).toBe(bos ? 16 : 24);
    expect(again.layers().get("attn2.to_k")!.act.max).toBe(max);
    return [min, max];
  };
  expect(rangeOf(true)).toEqual([1, 2.75]);
  expect(rangeOf(false)).toEqual([1, 800]);
});

test("a recording that was put down goes on as if it had not been, bit for bit", () => {
  const graph = network();
  const layers = quantizableLayers(graph);
  const whole = new Recording(layers, { bos: true });
  let current = new Recording(layers, { bos: true });
  for (let prompt = 0; prompt < 5; prompt++) {
    for (const recording of [whole, current]) {
      show(recording, graph, prompt);
      recording.endPrompt();
    }
    const next = new Recording(layers, { bos: true });
    expect(next.restore(JSON.parse(JSON.stringify(current.state())) as RecordingState)).toBe(true);
    current = next;
  }
  expect(current.layers()).toEqual(whole.layers());
  expect(JSON.stringify(current.state())).toBe(JSON.stringify(whole.state()));
});

test("a state of other layers, or a damaged one, is not taken", () => {
  const graph = network();
  const layers = quantizableLayers(graph);
  const recording = new Recording(layers, { bos: true });
  show(recording, graph, 1);
  recording.endPrompt();
  const state = JSON.parse(JSON.stringify(recording.state())) as Record<string, { min: unknown; bins: number[] }>;
  const restores = (changed: object): boolean =>
    new Recording(layers, { bos: true }).restore(changed as unknown as RecordingState);
  expect(restores(state)).toBe(true);
  const first = Object.keys(state)[0];
  const { [first]: gone, ...rest } = state;
  expect(restores(rest)).toBe(false);
  expect(restores({ ...rest, other: gone })).toBe(false);
  expect(restores({ ...state, [first]: { ...gone, min: "0" } })).toBe(false);
  expect(restores({ ...state, [first]: { ...gone, bins: gone!.bins.slice(2) } })).toBe(false);
  expect(restores({ ...state, [first]: { ...gone, bins: [-1, ...gone!.bins.slice(1)] } })).toBe(false);
  expect(restores({ ...state, [first]: null })).toBe(false);
});

test("a tensor that a run did not show is a fault, not an empty range", () => {
  const graph = network();
  const recording = new Recording(quantizableLayers(graph), { bos: true });
  show(recording, { ...graph, ops: [] }, 1);
  expect(() => recording.endPrompt()).toThrow("conv_shortcut: its input (attn1) was not recorded");
});

test("numbers that left their range are reported with the layer that reads them", () => {
  const graph = network();
  const recording = new Recording(quantizableLayers(graph), { bos: true });
  const broken = (): void => recording.observe(graph.inputs["x"], new Float32Array(32).fill(Number.NaN));
  expect(broken).toThrow(MixdqError);
  expect(broken).toThrow("attn1.to_q: its input (x) holds NaN or infinity");
});
