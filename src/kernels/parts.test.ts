/** A parameter that comes in parts ends up where the whole one does. */
import { describe, expect, test } from "vitest";
import type { Weight } from "../graph/ops.ts";
import type { PackedWeight, Quantization } from "./kernel.ts";
import { heldRows } from "../quant/matrix.ts";
import { ROUNDINGS } from "../quant/nearest.ts";
import { quantizedWeights, quantizeLayer } from "./quantized.ts";
import { layerCodes, layerParameters, packMatrix, parametersShape, placeWords, sourceWords } from "./words.ts";
import { matrix, packSource, vector, type Run } from "./weights.ts";

const weight = (name: string, ...shape: number[]): Weight => ({ name: `${name}.weight`, shape });

const values = ({ shape, name }: Weight): Float32Array =>
  Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i * 1.7 + name.length));

/** A packed weight's memory, in elements. */
function memory({ bytes }: PackedWeight, runs: Iterable<Run>): number[] {
  const elements = new Array<number>(bytes / 4).fill(0);
  for (const { offset, values } of runs) values.forEach((value, i) => (elements[offset + i] = value));
  return elements;
}

describe("floats", () => {
  test.each<[string, PackedWeight]>([
    ["a matrix", matrix([weight("a", 14, 8)], "f32")],
    ["a matrix whose columns are padded", matrix([weight("a", 14, 6)], "f32")],
    ["the second of two", matrix([weight("a", 8, 8), weight("b", 14, 8)], "f32")],
    ["a convolution", matrix([weight("a", 10, 5, 3, 3)], "f32")],
    ["gated rows", matrix([weight("a", 24, 8)], "f32", true)],
    ["gated rows whose columns are padded", matrix([weight("a", 16, 6)], "f32", true)],
    ["a vector", vector([weight("a", 13)])],
    ["a gated vector", vector([weight("a", 16)], true)],
  ])("of %s", (_, packed) => {
    packed.sources.forEach((source, index) => {
      const whole = values(source);
      const rows = source.shape[0];
      const perRow = whole.length / rows;
      for (const step of [4, 8]) {
        const parts = function* (): Generator<Run> {
          for (let first = 0; first < rows; first += step) {
            const count = Math.min(step, rows - first);
            const some = whole.subarray(first * perRow, (first + count) * perRow);
            yield* packSource(packed, index, some, { first, count });
          }
        };
        expect(memory(packed, parts())).toEqual(memory(packed, packSource(packed, index, whole)));
      }
    });
  });

  test("of another number than they say are refused", () => {
    const packed = matrix([weight("a", 8, 4)], "f32");
    expect(() => [...packSource(packed, 0, new Float32Array(15), { first: 0, count: 4 })]).toThrow("got 15 values");
  });
});

describe("integers", () => {
  const base: Quantization = {
    weight: { bits: 4, symmetric: false, range: "minmax", group: null },
    channels: [40],
    hasHalves: false,
    taps: 1,
    activations: [{ scale: 0.1, zeroPoint: 3, bits: 8 }],
  };
  test.each<[string, Weight[], Partial<Quantization>, boolean]>([
    ["a layer", [weight("a", 12, 40)], {}, false],
    ["three stacked layers", [weight("a", 8, 40), weight("b", 5, 40), weight("cc", 6, 40)], {}, false],
    ["a gated layer", [weight("a", 16, 40)], {}, true],
    ["halves", [weight("a", 6, 40)], { channels: [24, 16], hasHalves: true }, false],
    ["groups", [weight("a", 6, 160)], { channels: [160], weight: { ...base.weight, group: 64 } }, false],
    ["stored integers", [weight("a", 6, 40), weight("b", 9, 40)], { activations: [] }, false],
  ])("of %s", (_, sources, change, gated) => {
    const quantization = { ...base, ...change };
    const { codes, parameters } = quantizedWeights(sources, quantization, gated);
    for (const [packed, words] of [[codes, layerCodes] as const, [parameters, layerParameters] as const]) {
      const [wholes, pieces]: [Run[], Run[]] = [[], []];
      sources.forEach((source, index) => {
        const layer = { path: source.name, weight: source, quantization, gated };
        const floats = heldRows(values(source), source.shape[0]);
        const matrix = quantizeLayer(layer, floats, ROUNDINGS[quantization.weight.range]);
        wholes.push(...packMatrix(packed, index, matrix));
        const own = words(matrix, layer);
        expect(own.length).toBe(sourceWords(packed, index));
        for (let first = 0; first < own.length; first += 12)
          pieces.push(...placeWords(packed, index, own.subarray(first, first + 12), first));
      });
      expect(memory(packed, pieces)).toEqual(memory(packed, wholes));
      expect(memory(packed, wholes).some((word) => word !== 0)).toBe(true);
    }
    const shape = parametersShape(sources[0], quantization);
    expect(shape.reduce((product, size) => product * size, 1)).toBe(sourceWords(parameters, 0));
  });
});
