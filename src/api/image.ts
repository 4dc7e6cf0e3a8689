/**
 * A finished picture in the forms people need it in, and its PNG encoding. The PNG carries everything needed to make
 * the picture again: one `parameters` chunk in the form that image browsers already read (Stable Diffusion web UI's),
 * and one chunk `mixdq:<name>` per parameter for programs.
 */
import { encode } from "fast-png";
import type { GenerateStats, RawImage, Seed } from "../base/types.ts";

/** A finished picture: its pixels, how it was made, and the forms in which a page needs it. */
export class GeneratedImage implements RawImage {
  /** Pixels. */
  readonly width: number;
  /** Pixels. */
  readonly height: number;
  /** RGBA, row by row from the top: width * height * 4 bytes, alpha 255. */
  readonly data: Uint8ClampedArray<ArrayBuffer>;
  /** The seed of its start noise, also where none was asked for; a bigint beyond 2^53. */
  readonly seed: Seed;
  /** How long it took, and in how much memory. */
  readonly stats: GenerateStats;
  /** What the user should know, such as the part of the prompt that did not fit; empty most often. */
  readonly warnings: readonly string[];
  /** What it was made with, by name; its PNG carries them too. */
  readonly parameters: Readonly<Record<string, string>>;

  /** Of what a pipeline made. */
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

  /** For `putImageData`; a copy of the pixels. Only in a browser. */
  toImageData(): ImageData {
    return new ImageData(this.data.slice(), this.width, this.height);
  }

  /** For `drawImage` and WebGL textures. Only in a browser. */
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
 * text chunks, by keyword, before the pixels: many readers stop at the first IDAT (Pillow's `Image.open(file).info`).
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
  const png = encode({ width, height, data: rgb, channels: 3 });
  return insertAfterHeader(
    png,
    Object.entries(texts).map(([keyword, text]) => textChunk(keyword, text)),
  );
}

function textChunks(raw: RawImage): Record<string, string> {
  const chunks: Record<string, string> = { parameters: webUiLine(raw), Software: "mixdq-web" };
  for (const [name, value] of Object.entries({ seed: String(raw.seed), ...raw.parameters })) {
    const isFolder = name === "model" && !isAddress(value);
    chunks[`mixdq:${name}`] = isFolder ? modelName(value) : value;
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
    ["Denoising strength", p.strength],
    ["Model", p.model && modelName(p.model)],
    ["Precision", p.precision],
    ["Backend", p.backend],
    ["Version", "mixdq-web"],
  ];
  const settings = fields
    .filter((field): field is [string, string] => field[1] !== undefined && field[1] !== "")
    .map(([name, value]) => `${name}: ${/[,:\n"]/.test(value) ? JSON.stringify(value) : value}`)
    .join(", ");
  const negative = p.negativePrompt ? `Negative prompt: ${lines(p.negativePrompt)}\n` : "";
  return `${lines(p.prompt ?? "")}\n${negative}${settings}`;
}

/** Readers split the text at line feeds. */
const lines = (text: string): string => text.replace(/\r\n?/g, "\n");

const isAddress = (location: string): boolean => /^https?:/.test(location) && URL.canParse(location);

/**
 * What people call a model: `owner/name` of a Hugging Face address, else the last folder. Where the folder lies on the
 * machine that drew the picture means nothing to whoever gets the picture.
 */
function modelName(location: string): string {
  const path = isAddress(location) ? new URL(location).pathname : location;
  const [, hub] = /^\/([^/]+\/[^/]+)\/resolve\//.exec(path) ?? [];
  return hub ?? path.split(/[\\/]/).findLast((part) => part !== "") ?? location;
}

/** Printable Latin-1 and line feeds: the characters that the PNG specification gives a meaning in a tEXt chunk. */
const LATIN1 = /^[\n\x20-\x7e\xa0-\xff]*$/;

/** A tEXt chunk where Latin-1 can hold the text, else an iTXt chunk (UTF-8, not compressed, no language). */
function textChunk(keyword: string, text: string): Uint8Array {
  // The specification's own rule, and no zero byte may end the keyword or the text early.
  if (!/^(?! )(?!.*  )[\x20-\x7e\xa0-\xff]{1,79}(?<! )$/.test(keyword))
    throw new RangeError(`PNG keyword ${JSON.stringify(keyword)}: expected 1 to 79 Latin-1 characters.`);
  const content = text.replaceAll("\0", "");
  return LATIN1.test(content)
    ? chunk("tEXt", latin1(`${keyword}\0${content}`))
    : chunk("iTXt", latin1(`${keyword}\0\0\0\0\0`), new TextEncoder().encode(content));
}

const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));

/** Length of the data, type, data, checksum of type and data. */
function chunk(type: string, ...data: readonly Uint8Array[]): Uint8Array {
  const length = data.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length);
  let at = 4;
  for (const part of [latin1(type), ...data]) {
    bytes.set(part, at);
    at += part.length;
  }
  view.setUint32(at, crc32(bytes.subarray(4, at)));
  return bytes;
}

/** The signature (8 bytes) and IHDR (25 bytes), which the specification puts first and whose size never changes. */
const HEADER_BYTES = 33;

function insertAfterHeader(png: Uint8Array, chunks: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const parts = [png.subarray(0, HEADER_BYTES), ...chunks, png.subarray(HEADER_BYTES)];
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

/** PNG's checksum, bit by bit: texts are short. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
