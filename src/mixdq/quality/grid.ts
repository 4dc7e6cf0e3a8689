/** Pictures side by side in one. */
import { MixdqError } from "../../base/errors.ts";
import type { Picture } from "./picture.ts";

/** White pixels between two pictures. */
const GAP = 2;

/** Row by row from the top left, `columns` in a row, on white. All of one size; throws `invalid-input` otherwise. */
export function pictureGrid(pictures: readonly Picture[], columns: number): Picture {
  const { width: tileWidth, height: tileHeight } = pictures[0];
  const odd = pictures.find(({ width, height }) => width !== tileWidth || height !== tileHeight);
  if (odd)
    throw new MixdqError(
      "invalid-input",
      `The grid: got a picture of ${odd.width}x${odd.height} pixels, expected ${tileWidth}x${tileHeight} as the first ` +
        `has. Make all with the same width and height.`,
    );
  const rows = Math.ceil(pictures.length / columns);
  const width = columns * (tileWidth + GAP) - GAP;
  const height = rows * (tileHeight + GAP) - GAP;
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (const [i, picture] of pictures.entries()) {
    const left = (i % columns) * (tileWidth + GAP);
    const top = Math.floor(i / columns) * (tileHeight + GAP);
    for (let y = 0; y < tileHeight; y++) {
      const row = picture.data.subarray(4 * y * tileWidth, 4 * (y + 1) * tileWidth);
      data.set(row, 4 * ((top + y) * width + left));
    }
  }
  return { width, height, data };
}
