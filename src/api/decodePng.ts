/** PNG files to RGBA bytes, the same everywhere: 16 bits are cut to 8, palettes looked up, alpha kept as it is. */
import { decode, type DecodedPng } from "fast-png";
import { invalidInput } from "../base/errors.ts";
import type { PixelData } from "../base/types.ts";
import { pngChunks } from "./pictureFile.ts";

/** What of a file makes its pixels; colour profiles and texts are not read. */
const ESSENTIAL = ["IHDR", "PLTE", "IDAT", "IEND"];
const CHANNELS: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

/**
 * `name` is the option, for messages. A file's pixels may be no more than its header says: a small file can unpack to
 * gigabytes. Throws `invalid-input` for a damaged one.
 */
export async function decodePng(bytes: Uint8Array, name: string): Promise<PixelData> {
  const broken = (what: string): Error => invalidInput(`${name}: the PNG file is damaged: ${what}. Save it again.`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks = [...pngChunks(view)];
  if (chunks[0]?.type !== "IHDR" || chunks.at(-1)!.type !== "IEND") throw broken("it ends early");
  const essential = chunks.filter(({ type }) => ESSENTIAL.includes(type));
  const parts = [bytes.subarray(0, 8), ...essential.map(({ at, length }) => bytes.subarray(at, at + 12 + length))];
  const data = essential.filter(({ type }) => type === "IDAT");
  const packed = data.map(({ at, length }) => bytes.subarray(at + 8, at + 8 + length));
  const most = unpackedBytes(view);
  if (most === undefined) throw broken("its header makes no sense");
  if (!(await unpacksWithin(packed, most))) throw broken("its data are not those of its pixels");
  let png: DecodedPng;
  try {
    png = decode(joined(parts), { checkCrc: true });
  } catch (error) {
    throw broken((error as Error).message.replace(/\.$/, ""));
  }
  return toRgba(png, broken);
}

/** Rows with a filter byte each; interlaced ones have at most twice as many and one more. */
function unpackedBytes(view: DataView): number | undefined {
  const [width, height, depth] = [view.getUint32(16), view.getUint32(20), view.getUint8(24)];
  const channels = CHANNELS[view.getUint8(25)];
  if (channels === undefined || width === 0 || height === 0 || ![1, 2, 4, 8, 16].includes(depth)) return undefined;
  const isInterlaced = view.getUint8(28) !== 0;
  const row = Math.ceil((width * channels * depth) / 8);
  return isInterlaced ? (row + 8) * height + 16 * (row + height + 8) : (row + 1) * height;
}

async function unpacksWithin(packed: readonly Uint8Array[], most: number): Promise<boolean> {
  const unpacked = new Blob([...packed] as BlobPart[]).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = unpacked.getReader();
  let count = 0;
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read())
      if ((count += next.value.length) > most) return false;
  } catch {
    return false;
  } finally {
    await reader.cancel().catch(() => {});
  }
  return count > 0;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function toRgba(
  { width, height, channels, depth, data, palette }: DecodedPng,
  broken: (what: string) => Error,
): PixelData {
  const row = depth < 8 ? Math.ceil((width * depth) / 8) : width * channels;
  if (data.length !== row * height) throw broken(`${data.length} samples, expected ${row * height}`);
  const sample = (x: number, y: number, c: number): number => {
    if (depth === 16) return data[y * row + x * channels + c] >> 8;
    if (depth === 8) return data[y * row + x * channels + c];
    const bit = x * depth;
    return (data[y * row + (bit >> 3)] >> (8 - depth - (bit & 7))) & (2 ** depth - 1);
  };
  const full = depth < 8 ? 255 / (2 ** depth - 1) : 1;
  const out = new Uint8ClampedArray(width * height * 4);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++, at += 4) {
      const first = sample(x, y, 0);
      const colour = palette ? palette[first] : undefined;
      if (palette && !colour) throw broken(`a colour ${first} of ${palette.length}`);
      for (let c = 0; c < 3; c++) out[at + c] = colour ? colour[c] : full * (channels < 3 ? first : sample(x, y, c));
      out[at + 3] = channels % 2 === 0 ? sample(x, y, channels - 1) : 255;
    }
  return { width, height, data: out };
}
