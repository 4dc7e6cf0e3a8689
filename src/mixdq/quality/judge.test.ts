import { decode } from "fast-png";
import { describe, expect, test } from "vitest";
import { MixdqError } from "../../base/errors.ts";
import { encodePixels } from "../../api/image.ts";
import { ModelWriter } from "../../ort/model.ts";
import { loadNetwork } from "../../ort/network.ts";
import { writeSafetensors } from "../../weights/safetensors.ts";
import { pictureGrid } from "./grid.ts";
import { readDescription, readStatistics } from "./judge.ts";
import type { Picture } from "./picture.ts";
import { readJudgedPrompts, readPromptLines } from "./prompts.ts";
import { createReader, type RunNetwork } from "./reader.ts";

const DESCRIPTION = {
  format: "mixdq-judge",
  version: 1,
  size: 4,
  attributes: [
    { name: "color", values: ["red", "green", "blue"] },
    { name: "light", values: ["dark", "bright"] },
  ],
  features: 3,
  accuracy: { mean: 1, color: 1, light: 1 },
  heldOut: 10,
};

const description = (changes: object = {}) =>
  readDescription(JSON.stringify({ ...DESCRIPTION, ...changes }), "judge.json");

function failure(run: () => unknown): MixdqError {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(MixdqError);
    expect((error as MixdqError).message).toMatch(/^[^\n]+\.$/);
    return error as MixdqError;
  }
  throw new Error("expected a failure");
}

/** A network that is right by construction, for two pictures at most: features are the mean colours. */
function meanColors(size: number, count: number, outputs = ["logits", "features"]): Uint8Array {
  const noWeights = () => expect.unreachable();
  const model = new ModelWriter(noWeights, { float: "f32" });
  model.inputs.push({ name: "pixels", type: "f32", shape: [count, 3, size, size] });
  const pooled = model.node("pool", "GlobalAveragePool", ["pixels"]);
  const mean = model.node("mean", "Reshape", [pooled, model.i64([count, 3])]);
  // Brighter than 0.5 on average is bright.
  const weights = model.floats([1, 0, 0, 0, 2, 0, 1, 0, 0, 2, 0, 0, 1, 0, 2], [3, 5]);
  const scores = model.node("scores", "MatMul", [mean, weights]);
  const logits = model.node("bias", "Add", [scores, model.floats([0, 0, 0, 3, 0], [1, 5])]);
  const named = [logits, mean].map((value, i) => model.node(outputs[i], "Identity", [value]));
  model.outputs.push({ name: named[0], type: "f32", shape: [count, 5] });
  model.outputs.push({ name: named[1], type: "f32", shape: [count, 3] });
  return model.finish("mean colours");
}

/** Its outputs are named "logits/Identity": names of their own are not what ModelWriter is for. */
async function network(size = 4): Promise<RunNetwork> {
  const networks = [await loadNetwork(meanColors(size, 1), "one"), await loadNetwork(meanColors(size, 2), "two")];
  return async (inputs) => {
    const outputs = await networks[inputs["pixels"].shape[0] - 1].run(inputs);
    return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name.replace("/Identity", ""), value]));
  };
}

function flat(width: number, height: number, rgb: readonly number[]): Picture {
  const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => [...rgb, 255][i % 4]);
  return { width, height, data };
}

describe("the judge's network", () => {
  test("reads the likeliest value of every attribute, and features", async () => {
    const read = await createReader(await network(), description(), "judge.onnx");
    const seen = await read(flat(4, 4, [51, 255, 255 / 5]));
    expect(seen.attributes).toEqual({ color: "green", light: "dark" });
    [0.2, 1, 0.2].forEach((value, i) => expect(seen.features[i]).toBeCloseTo(value, 6));
    expect((await read(flat(4, 4, [204, 205, 255]))).attributes).toEqual({ color: "blue", light: "bright" });
  });

  test("looks at a larger picture through the means of its squares", async () => {
    const sizes: number[] = [];
    const pixels: Float32Array[] = [];
    const run = await network(2);
    const spy: RunNetwork = (inputs) => {
      sizes.push(inputs["pixels"].shape[3]);
      pixels.push(inputs["pixels"].data);
      return run(inputs);
    };
    const read = await createReader(spy, description({ size: 2 }), "judge.onnx");
    const picture = flat(4, 4, [0, 0, 0]);
    for (let i = 0; i < 16; i++) picture.data[4 * i] = 15 * i;
    await read(picture);
    expect(sizes).toEqual([2, 2]);
    // Red, rows 0-1 and columns 0-1 are pixels 0, 1, 4, 5: their mean is 2.5.
    [2.5, 4.5, 10.5, 12.5].forEach((mean, i) => expect(pixels[1][i]).toBeCloseTo((15 * mean) / 255, 6));
    expect([...pixels[1].subarray(4)]).toEqual(new Array(8).fill(0));
  });

  test("refuses pictures of another shape", async () => {
    const read = await createReader(await network(), description(), "judge.onnx");
    for (const [width, height] of [
      [6, 6],
      [8, 4],
      [2, 2],
    ])
      await expect(read(flat(width, height, [0, 0, 0]))).rejects.toThrow(
        `got pictures of ${width}x${height} pixels, expected 4x4 or a whole multiple of it`,
      );
  });

  test("must give what judge.json says", async () => {
    const create = async (changes: object) => createReader(await network(), description(changes), "judge.onnx");
    await expect(create({ features: 4 })).rejects.toThrow(
      'judge.onnx: got "features" [2, 3], expected "features" [2, 4] for 2 pictures, as judge.json has it.',
    );
    await expect(create({ attributes: DESCRIPTION.attributes.slice(1) })).rejects.toThrow(
      'got "logits" [2, 5], expected',
    );
    const unnamed: RunNetwork = async () => ({ y: { shape: [1], data: new Float32Array(1) } });
    await expect(createReader(unnamed, description(), "judge.onnx")).rejects.toThrow(
      'the outputs y, expected "logits"',
    );
  });

  test("must give numbers", async () => {
    const run = await network();
    let calls = 0;
    const broken: RunNetwork = async (inputs) => {
      const outputs = await run(inputs);
      if (calls++ > 0) outputs["features"].data[1] = NaN;
      return outputs;
    };
    const read = await createReader(broken, description(), "judge.onnx");
    await expect(read(flat(4, 4, [9, 9, 9]))).rejects.toMatchObject({ code: "invalid-output" });
  });
});

describe("judge.json", () => {
  test("is read as it is written", () => {
    const { size, attributes, features, accuracy, heldOut } = DESCRIPTION;
    expect(description()).toEqual({ size, attributes, features, accuracy, heldOut });
  });

  test.each<[string, object, string]>([
    ["another format", { format: "pt" }, 'got "format" "pt", expected "mixdq-judge"'],
    ["another version", { version: 2 }, 'got "version" 2, expected 1'],
    ["no size", { size: 0 }, '"size" 0, expected a whole number from 1'],
    ["features that are no number", { features: "64" }, '"features" "64", expected a whole number'],
    ["no attributes", { attributes: [] }, "attributes: got 0 items, expected 1 to 256"],
    [
      "an attribute of one value",
      { attributes: [{ name: "a", values: ["x"] }] },
      "attributes[0]: values: got 1 items, expected 2",
    ],
    [
      "a value twice",
      { attributes: [{ name: "a", values: ["x", "x"] }] },
      'attributes[0]: values: got ["x","x"], expected each once',
    ],
    [
      "a name twice",
      { attributes: [DESCRIPTION.attributes[0], DESCRIPTION.attributes[0]] },
      'got ["color","color"], expected each name once',
    ],
    [
      "an accuracy in percent",
      { accuracy: { mean: 98 } },
      'accuracy: got "mean" 98, expected a finite number from 0 to 1',
    ],
    ["an accuracy without mean", { accuracy: { color: 1 } }, 'accuracy: got "mean" nothing'],
    ["no pictures held out", { heldOut: 0 }, '"heldOut" 0, expected a whole number'],
  ])("with %s is refused", (_, changes, says) => {
    const error = failure(() => description(changes));
    expect(error.code).toBe("invalid-model");
    expect(error.message).toMatch(/^judge\.json: .*got /);
    expect(error.message).toContain(says);
  });

  test("that is no JSON is refused", () => {
    expect(failure(() => readDescription("<html>", "judge.json")).message).toContain("got something that is not JSON");
    expect(failure(() => readDescription("null", "judge.json")).message).toContain("got null, expected a JSON object");
  });
});

describe("statistics.safetensors", () => {
  const write = (mean: readonly number[], covariance: readonly number[], shape = [2, 2]): Uint8Array =>
    writeSafetensors({
      mean: { dtype: "F32", shape: [mean.length], data: Float32Array.from(mean) },
      covariance: { dtype: "F32", shape, data: Float32Array.from(covariance) },
    });
  const read = (bytes: Uint8Array) => readStatistics(bytes, 2, "statistics");

  test("is read as it is written", () => {
    const { mean, covariance } = read(write([1, 2], [3, 0.5, 0.5, 4]));
    expect([[...mean], [...covariance]]).toEqual([
      [1, 2],
      [3, 0.5, 0.5, 4],
    ]);
  });

  test.each<[string, Uint8Array, string]>([
    ["another number of features", write([1, 2, 3], [1, 0, 0, 1]), '"mean" [3], expected "mean" [2]'],
    ["a covariance in one row", write([1, 2], [1, 0, 0, 1], [4]), '"covariance" [4], expected "covariance" [2, 2]'],
    ["a number that is none", write([1, NaN], [1, 0, 0, 1]), 'NaN at 1 of "mean"'],
    ["a covariance that is not symmetric", write([1, 2], [1, 0.5, 0.4, 1]), "[1, 0] and 0.5 at [0, 1]"],
    ["no mean", writeSafetensors({}), 'the tensors none, expected "mean" [2]'],
  ])("with %s is refused", (_, bytes, says) => {
    expect(failure(() => read(bytes)).message).toContain(says);
  });
});

describe("prompts", () => {
  const judged = (text: string) => readJudgedPrompts(text, description().attributes, "p.jsonl");

  test("are read line by line, empty lines passed over", () => {
    expect(readPromptLines("\ufeffa house\r\n\n  two boats \n", "p.txt").map(({ prompt }) => prompt)).toEqual([
      "a house",
      "two boats",
    ]);
    expect(judged('{"prompt":"a red dot","attributes":{"color":"red"}}\n\n')).toEqual([
      { prompt: "a red dot", attributes: { color: "red" } },
    ]);
  });

  test.each<[string, string, string]>([
    ["of no line", "\n", "p.jsonl: got no prompts, expected one a line"],
    ["without attributes", '{"prompt":"x"}', 'line 1: got "attributes" nothing, expected a JSON object'],
    ["with empty attributes", '{"prompt":"x","attributes":{}}', "line 1: attributes: got 0 attributes, expected 1"],
    [
      "of another judge",
      '\n{"prompt":"x","attributes":{"time":"day"}}',
      'line 2: attributes: got "time", expected one',
    ],
    [
      "with an unknown value",
      '{"prompt":"x","attributes":{"color":"pink"}}',
      'attributes: got "color" "pink", expected one',
    ],
    ["without a prompt", '{"attributes":{"color":"red"}}', 'got "prompt" nothing, expected a text'],
    ["that are no JSON", "a house", "line 1: got something that is not JSON"],
    ["that are null", "null", "line 1: got null, expected a JSON object"],
    ["of the length of a book", `{"prompt":"${"x".repeat(10_001)}"}`, "a prompt of 10001 characters, expected at most"],
  ])("%s are refused", (_, text, says) => {
    const error = failure(() => judged(text));
    expect(error.code).toBe("invalid-input");
    expect(error.message).toContain(says);
  });
});

test("a grid lays pictures out row by row, and its PNG holds them", () => {
  const colors = [10, 20, 30, 40, 50];
  const grid = pictureGrid(
    colors.map((value) => flat(3, 2, [value, 0, 0])),
    2,
  );
  const png = decode(encodePixels(grid, { prompts: "a\nb" }), { checkCrc: true });
  expect([png.width, png.height]).toEqual([2 * 3 + 2, 3 * 2 + 2 * 2]);
  const red = (x: number, y: number): number => png.data[3 * (y * png.width + x)];
  expect([red(0, 0), red(5, 1), red(2, 4), red(7, 5), red(2, 9)]).toEqual([10, 20, 30, 40, 50]);
  expect([red(3, 0), red(0, 2), red(5, 8)]).toEqual([255, 255, 255]);
  expect(png.text).toMatchObject({ prompts: "a\nb" });
  expect(() => pictureGrid([flat(3, 2, [0, 0, 0]), flat(2, 3, [0, 0, 0])], 2)).toThrow("a picture of 2x3 pixels");
});
