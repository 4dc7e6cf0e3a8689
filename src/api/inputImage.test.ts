/** Pictures that come as files: what is read, and how damaged, moving and enormous ones are refused. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { deflateSync } from "node:zlib";
import { encode } from "fast-png";
import { expect, test } from "vitest";
import { readPicture } from "./inputImage.ts";
import { describePicture } from "./pictureFile.ts";

const PICTURE = path.join(import.meta.dirname, "../../e2e/golden/editing/picture.png");

/** A PNG of chunks whose checksums are right. */
function png(...chunks: readonly (readonly [type: string, data: Uint8Array])[]): Uint8Array {
  const crc = (bytes: Uint8Array): number => {
    let value = ~0;
    for (const byte of bytes) {
      value ^= byte;
      for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
    }
    return ~value >>> 0;
  };
  const parts = chunks.map(([type, data]) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const whole = Buffer.alloc(body.length + 8);
    whole.writeUInt32BE(data.length);
    body.copy(whole, 4);
    whole.writeUInt32BE(crc(body), body.length + 4);
    return whole;
  });
  return new Uint8Array(Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...parts]));
}

function header(width: number, height: number, depth: number, colour: number): readonly [string, Uint8Array] {
  const data = Buffer.alloc(13);
  data.writeUInt32BE(width);
  data.writeUInt32BE(height, 4);
  data[8] = depth;
  data[9] = colour;
  return ["IHDR", data];
}
const END = ["IEND", new Uint8Array()] as const;
const data = (...rows: number[]): readonly [string, Uint8Array] => ["IDAT", deflateSync(Uint8Array.from(rows))];
const MUCH = ["IDAT", deflateSync(new Uint8Array(1e6))] as const;

test.each<[string, Uint8Array, number[]]>([
  [
    "colours",
    encode({ width: 1, height: 2, channels: 3, data: Uint8Array.of(1, 2, 3, 4, 5, 6) }),
    [1, 2, 3, 255, 4, 5, 6, 255],
  ],
  ["colours with alpha", encode({ width: 1, height: 1, channels: 4, data: Uint8Array.of(9, 8, 7, 0) }), [9, 8, 7, 0]],
  [
    "grey",
    encode({ width: 2, height: 1, channels: 1, data: Uint8Array.of(0, 200) }),
    [0, 0, 0, 255, 200, 200, 200, 255],
  ],
  ["grey with alpha", encode({ width: 1, height: 1, channels: 2, data: Uint8Array.of(50, 60) }), [50, 50, 50, 60]],
  [
    "16 bits",
    encode({ width: 1, height: 1, channels: 3, depth: 16, data: Uint16Array.of(0xff00, 0x80ff, 1) }),
    [255, 128, 0, 255],
  ],
  ["1 bit", png(header(3, 1, 1, 0), data(0, 0b1010_0000), END), [255, 255, 255, 255, 0, 0, 0, 255, 255, 255, 255, 255]],
  [
    "a palette of 2 bits",
    png(header(2, 1, 2, 3), ["PLTE", Uint8Array.of(1, 2, 3, 10, 20, 30)], data(0, 0b0100_0000), END),
    [10, 20, 30, 255, 1, 2, 3, 255],
  ],
])("a PNG of %s", async (_, file, expected) => {
  expect([...(await readPicture(file, "image")).data]).toEqual(expected);
});

const whole = new Uint8Array(readFileSync(PICTURE));
const changed = (at: number): Uint8Array => whole.map((byte, i) => (i === at ? byte ^ 0xff : byte));
test.each<[string, Uint8Array | string, string]>([
  ["is cut off", whole.slice(0, 9000), "image: the PNG file is damaged: it ends early"],
  ["has a wrong byte", changed(5000), "image: the PNG file is damaged:"],
  [
    "is enormous",
    png(header(10_000, 10_000, 8, 2), data(0), END),
    "image: got 10000x10000 pixels (100 megapixels), expected at most 67",
  ],
  ["unpacks to more than its pixels", png(header(2, 2, 8, 0), MUCH, END), "its data are not those of its pixels"],
  ["has no pixels", png(header(0, 4, 8, 0), data(0), END), "image: the PNG has no pixels"],
  [
    "moves",
    png(header(1, 1, 8, 0), ["acTL", new Uint8Array(8)], data(0, 0), END),
    "image: got a PNG that moves, expected a still picture",
  ],
  ["is a GIF", Uint8Array.from("GIF89a\x01\x00\x01\x00", (c) => c.charCodeAt(0)), "image: got a GIF, expected a still"],
  [
    "is a JPEG, without a browser",
    Uint8Array.of(255, 216, 255, 192, 0, 11, 8, 0, 9, 0, 7, 1),
    "image: got a JPEG file, expected a PNG",
  ],
  ["is none", Uint8Array.of(1, 2, 3), "image: got what is no picture that is known here"],
])("a file that %s is refused", async (_, file, message) => {
  const reading = readPicture(file as Uint8Array, "image");
  await expect(reading).rejects.toMatchObject({ code: "invalid-input" });
  await expect(readPicture(file as Uint8Array, "image")).rejects.toThrow(message);
});

test("pixels are taken as they are, files from paths and addresses", async () => {
  const pixels = { width: 1, height: 1, data: new Uint8ClampedArray(4) };
  expect(await readPicture(pixels, "image")).toBe(pixels);
  const fromPath = await readPicture("p.png", "image", { readPath: async () => whole });
  expect([fromPath.width, fromPath.height]).toEqual([90, 70]);
  const address = `data:image/png;base64,${Buffer.from(whole).toString("base64")}`;
  expect((await readPicture(address, "image")).data).toEqual(fromPath.data);
  await expect(readPicture({} as never, "mask")).rejects.toThrow(
    "mask: got Object, expected pixels with width and height",
  );
});

test("sizes are told by the headers of JPEG and WebP", () => {
  const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
  const jpeg = latin1("\xff\xd8\xff\xe0\x00\x04ab\xff\xc2\x00\x0b\x08\x00\x09\x00\x07\x01");
  expect(describePicture(jpeg)).toEqual({ kind: "JPEG", width: 7, height: 9, isAnimated: false });
  const extended = latin1("RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x06\0\0\x08\0\0");
  expect(describePicture(extended)).toEqual({ kind: "WebP", width: 7, height: 9, isAnimated: true });
  const lossless = latin1("RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f\x06\x00\x02\x00");
  expect(describePicture(lossless)).toEqual({ kind: "WebP", width: 7, height: 9, isAnimated: false });
  const lossy = latin1("RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x07\0\x09\0");
  expect(describePicture(lossy)).toEqual({ kind: "WebP", width: 7, height: 9, isAnimated: false });
});
