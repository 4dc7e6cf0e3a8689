/** Shows the judge's network pictures, and tells what it sees. */
import { MixdqError } from "../../base/errors.ts";
import type { Attributes } from "./alignment.ts";
import type { JudgeDescription } from "./judge.ts";
import { COLOR_CHANNELS, type Picture } from "./picture.ts";

export interface FloatTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Runs a network on named tensors; ort/network.ts has one. */
export type RunNetwork = (inputs: Readonly<Record<string, FloatTensor>>) => Promise<Record<string, FloatTensor>>;

export interface Reading {
  /** The likeliest value of every attribute that the judge knows. */
  readonly attributes: Attributes;
  /** [F]. */
  readonly features: Float32Array;
}

export type ReadPicture = (picture: Picture) => Promise<Reading>;

/**
 * A reader of pictures, after one look at two grey ones: whether the network takes and gives what judge.json says.
 * `where` is the network's file, for messages. Throws `invalid-model`; reading throws `invalid-input` for a picture
 * whose size does not fit, and `invalid-output`.
 */
export async function createReader(
  run: RunNetwork,
  judge: Pick<JudgeDescription, "size" | "attributes" | "features">,
  where: string,
): Promise<ReadPicture> {
  const { size, attributes, features } = judge;
  const classes = attributes.reduce((sum, { values }) => sum + values.length, 0);
  const look = async (pixels: Float32Array): Promise<{ logits: Float32Array; features: Float32Array }> => {
    const count = pixels.length / (COLOR_CHANNELS * size * size);
    const outputs = await run({ pixels: { shape: [count, COLOR_CHANNELS, size, size], data: pixels } });
    return {
      logits: output(outputs, "logits", [count, classes], where),
      features: output(outputs, "features", [count, features], where),
    };
  };
  await look(new Float32Array(2 * COLOR_CHANNELS * size * size).fill(0.5));
  return async (picture) => {
    const seen = await look(pixelsFor(picture, size));
    const at = [...seen.logits, ...seen.features].findIndex((value) => !Number.isFinite(value));
    if (at >= 0)
      throw new MixdqError(
        "invalid-output",
        `${where}: got a number that is none at ${at} of its outputs, expected finite ones. The judge is damaged: make it again.`,
      );
    let from = 0;
    const likeliest = attributes.map(({ name, values }) => {
      const logits = seen.logits.subarray(from, (from += values.length));
      return [name, values[logits.indexOf(Math.max(...logits))]] as const;
    });
    return { attributes: Object.fromEntries(likeliest), features: seen.features };
  };
}

/** Throws `invalid-input` for a picture that is not `size` x `size` pixels or a whole multiple of it. */
export function assertReadable({ width, height }: Pick<Picture, "width" | "height">, size: number): void {
  if (width === height && width % size === 0) return;
  throw new MixdqError(
    "invalid-input",
    `The judge: got pictures of ${width}x${height} pixels, expected ${size}x${size} or a whole multiple of it. ` +
      `Use the judge that was made for this model.`,
  );
}

/** RGBA bytes -> [1, 3, size, size] in 0..1; a larger picture is reduced by the mean of its squares of pixels. */
function pixelsFor(picture: Picture, size: number): Float32Array {
  assertReadable(picture, size);
  const { width, data } = picture;
  const scale = width / size;
  const pixels = new Float32Array(COLOR_CHANNELS * size * size);
  for (let channel = 0; channel < COLOR_CHANNELS; channel++)
    for (let y = 0; y < size; y++)
      for (let x = 0; x < size; x++) {
        let sum = 0;
        for (let row = y * scale; row < (y + 1) * scale; row++)
          for (let column = x * scale; column < (x + 1) * scale; column++)
            sum += data[4 * (row * width + column) + channel];
        pixels[(channel * size + y) * size + x] = sum / (scale * scale * 255);
      }
  return pixels;
}

function output(
  outputs: Readonly<Record<string, FloatTensor>>,
  name: string,
  shape: readonly number[],
  where: string,
): Float32Array {
  const tensor = outputs[name];
  if (tensor && tensor.shape.join() === shape.join()) return tensor.data;
  const got = tensor ? `"${name}" [${tensor.shape.join(", ")}]` : `the outputs ${Object.keys(outputs).join(", ")}`;
  throw new MixdqError(
    "invalid-model",
    `${where}: got ${got}, expected "${name}" [${shape.join(", ")}] for ${shape[0]} pictures, as judge.json has it. ` +
      `Take all files of the judge from one model, or make them again.`,
  );
}
