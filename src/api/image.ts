/**
 * A finished picture in the forms people need it in, and its PNG encoding. The PNG carries everything needed to make
 * the picture again: one `parameters` chunk in the form that image browsers already read (Stable Diffusion web UI's),
 * and one chunk `mixdq:<name>` per parameter for programs.
 */
import { encode } from "fast-png";
import type { GenerateStats, RawImage, Seed } from "../base/types.ts";

export class GeneratedImage implements RawImage {
  readonly width: number;
  readonly height: number;
  /** RGBA, row by row from the top. */
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  readonly seed: Seed;
  readonly stats: GenerateStats;
  readonly warnings: readonly string[];
  readonly parameters: Readonly<Record<string, string>>;

  constructor(raw: RawImage) {
    this.width = raw.width;
    this.height = raw.height;
    this.data = raw.data;
    this.seed = raw.seed;
    this.stats = raw.stats;
    this.warnings = raw.warnings;
    this.parameters = raw.parameters;
  }

  /** A PNG with the generation parameters inside. */
  toBlob(): Blob {
    return new Blob([encodePng(this)], { type: "image/png" });
  }

  toImageData(): ImageData {
    return new ImageData(this.data.slice(), this.width, this.height);
  }

  toImageBitmap(): Promise<ImageBitmap> {
    return createImageBitmap(this.toImageData());
  }
}

/** The picture with its generation parameters inside. */
export function encodePng(raw: RawImage): Uint8Array<ArrayBuffer> {
  return encodePixels(raw, textChunks(raw));
}

/**
 * An opaque 8-bit RGB PNG: the alpha of a generated picture is always 255 and would only cost bytes. `texts` become its
 * text chunks, by keyword.
 */
export function encodePixels(
  { width, height, data }: Pick<RawImage, "width" | "height" | "data">,
  texts: Readonly<Record<string, string>>,
): Uint8Array<ArrayBuffer> {
  const pixelCount = width * height;
  const rgb = new Uint8Array(pixelCount * 3);
  for (let i = 0; i < pixelCount; i++) {
    rgb[i * 3] = data[i * 4];
    rgb[i * 3 + 1] = data[i * 4 + 1];
    rgb[i * 3 + 2] = data[i * 4 + 2];
  }

  const latin1: Record<string, string> = {};
  const unicode: Uint8Array[] = [];
  for (const [key, value] of Object.entries(texts)) {
    const text = value.replaceAll("\0", "");
    if (/^[\u0001-\u00ff]*$/.test(text)) latin1[key] = text;
    else unicode.push(internationalText(key, text));
  }
  const png = encode({ width, height, data: rgb, channels: 3, text: latin1 });
  return insertBeforeEnd(png, unicode);
}

function textChunks(raw: RawImage): Record<string, string> {
  const chunks: Record<string, string> = { parameters: webUiLine(raw), Software: "mixdq-web" };
  for (const [name, value] of Object.entries({ seed: String(raw.seed), ...raw.parameters })) {
    chunks[`mixdq:${name}`] = value;
  }
  return chunks;
}

/** `prompt⏎[Negative prompt: …⏎]Steps: 1, Seed: 42, Size: 512x512, …`: Stable Diffusion web UI's "infotext". */
function webUiLine(raw: RawImage): string {
  const p = raw.parameters;
  const fields: [string, string | undefined][] = [
    ["Steps", p.steps ?? String(raw.stats.steps)],
    ["Sampler", p.scheduler],
    ["CFG scale", p.guidanceScale],
    ["Seed", String(raw.seed)],
    ["Size", `${raw.width}x${raw.height}`],
    ["Model", p.model],
    ["Precision", p.precision],
    ["Backend", p.backend],
    ["Version", "mixdq-web"],
  ];
  const settings = fields
    .filter((field): field is [string, string] => field[1] !== undefined && field[1] !== "")
    .map(([name, value]) => `${name}: ${/[,:\n"]/.test(value) ? JSON.stringify(value) : value}`)
    .join(", ");
  const negative = p.negativePrompt ? `Negative prompt: ${p.negativePrompt}\n` : "";
  return `${p.prompt ?? ""}\n${negative}${settings}`;
}

/** An iTXt chunk (UTF-8, not compressed): fast-png writes tEXt only, which cannot hold a prompt in most scripts. */
function internationalText(keyword: string, text: string): Uint8Array {
  const data = new TextEncoder().encode(`iTXt${keyword}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(4 + data.length + 4);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length - 4);
  chunk.set(data, 4);
  view.setUint32(4 + data.length, crc32(data));
  return chunk;
}

/** IEND is always the last 12 bytes of a PNG. */
function insertBeforeEnd(png: Uint8Array, chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const end = png.length - 12;
  const result = new Uint8Array(png.length + chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  result.set(png.subarray(0, end));
  let offset = end;
  for (const chunk of chunks) {
    result.set(chunk, offset);
    offset += chunk.length;
  }
  result.set(png.subarray(end), offset);
  return result;
}

/** PNG's checksum, bit by bit: the texts are short. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
