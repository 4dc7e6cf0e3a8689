/** What a picture file says of itself before anything is decoded: its kind, its size, whether it moves. */

export interface PictureFile {
  readonly kind: "PNG" | "JPEG" | "WebP" | "GIF";
  /** undefined where the file does not say, as broken ones. */
  readonly width: number | undefined;
  readonly height: number | undefined;
  readonly isAnimated: boolean;
}

/** undefined for a kind that is not known here; the browser may know it. */
export function describePicture(bytes: Uint8Array): PictureFile | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (startsWith(bytes, 0, "\x89PNG\r\n\x1a\n")) return png(view);
  if (startsWith(bytes, 0, "\xff\xd8\xff")) return { kind: "JPEG", ...jpegSize(view), isAnimated: false };
  if (startsWith(bytes, 0, "RIFF") && startsWith(bytes, 8, "WEBP")) return webp(view, bytes);
  if (startsWith(bytes, 0, "GIF8"))
    return { kind: "GIF", width: u16(view, 6, true), height: u16(view, 8, true), isAnimated: true };
  return undefined;
}

function startsWith(bytes: Uint8Array, at: number, text: string): boolean {
  return bytes.length >= at + text.length && [...text].every((c, i) => bytes[at + i] === c.charCodeAt(0));
}

const u16 = (view: DataView, at: number, little = false): number | undefined =>
  at + 2 <= view.byteLength ? view.getUint16(at, little) : undefined;
const u24 = (view: DataView, at: number): number | undefined =>
  at + 3 <= view.byteLength ? view.getUint16(at, true) + 2 ** 16 * view.getUint8(at + 2) : undefined;
const u32 = (view: DataView, at: number): number | undefined =>
  at + 4 <= view.byteLength ? view.getUint32(at) : undefined;

/** Length, type, data and checksum, one after the other; ends where the file does. */
export function* pngChunks(
  view: DataView,
): Generator<{ readonly type: string; readonly at: number; readonly length: number }> {
  for (let at = 8; at + 12 <= view.byteLength;) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...[4, 5, 6, 7].map((i) => view.getUint8(at + i)));
    if (at + 12 + length > view.byteLength) return;
    yield { type, at, length };
    at += 12 + length;
  }
}

function png(view: DataView): PictureFile {
  const types = [...pngChunks(view)].map(({ type }) => type);
  return { kind: "PNG", width: u32(view, 16), height: u32(view, 20), isAnimated: types.includes("acTL") };
}

/** From the frame's header; segments before it are passed over. */
function jpegSize(view: DataView): Pick<PictureFile, "width" | "height"> {
  for (let at = 2; at + 4 <= view.byteLength;) {
    if (view.getUint8(at) !== 0xff) break;
    const marker = view.getUint8(at + 1);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (isFrame) return { height: u16(view, at + 5), width: u16(view, at + 7) };
    at += marker === 0xff ? 1 : 2 + view.getUint16(at + 2);
  }
  return { width: undefined, height: undefined };
}

/** The three forms of the container: extended, lossless, lossy. */
function webp(view: DataView, bytes: Uint8Array): PictureFile {
  if (startsWith(bytes, 12, "VP8X")) {
    const [width, height] = [u24(view, 24), u24(view, 27)];
    const isAnimated = bytes.length > 20 && (bytes[20] & 2) !== 0;
    return { kind: "WebP", width: width && width + 1, height: height && height + 1, isAnimated };
  }
  if (startsWith(bytes, 12, "VP8L")) {
    const bits = bytes.length >= 25 ? view.getUint32(21, true) : undefined;
    const [width, height] = bits === undefined ? [] : [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1];
    return { kind: "WebP", width, height, isAnimated: false };
  }
  const [width, height] = [u16(view, 26, true), u16(view, 28, true)];
  return { kind: "WebP", width: width && width & 0x3fff, height: height && height & 0x3fff, isAnimated: false };
}
