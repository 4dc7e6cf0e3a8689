/** A picture of a request, in whatever form it comes, as RGBA bytes. */
import { invalidInput, MixdqError } from "../base/errors.ts";
import { checkPixelCount } from "../base/pixels.ts";
import { printable } from "../base/printable.ts";
import type { ImageInput, PixelData } from "../base/types.ts";
import { decodePng } from "./decodePng.ts";
import { describePicture } from "./pictureFile.ts";

/** Far above any photograph's file of so many pixels. */
export const MAX_PICTURE_BYTES = 2 ** 29;

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Reads what is no address of the web: a path on disk, in Node. */
  readonly readPath?: ((path: string, name: string) => Promise<Uint8Array>) | undefined;
}

/**
 * `name` is the option, for messages. Throws `invalid-input` for what is no picture, moves, is damaged or too large, and
 * `network` for an address that cannot be fetched.
 */
export async function readPicture(input: ImageInput, name: string, options: ReadOptions = {}): Promise<PixelData> {
  if (isPixels(input)) return input;
  if (typeof input === "string" || input instanceof URL) return fromAddress(String(input), name, options);
  if (input instanceof ArrayBuffer || ArrayBuffer.isView(input)) return fromBytes(toBytes(input), name);
  if (input instanceof Blob) {
    if (input.size > MAX_PICTURE_BYTES) throw tooManyBytes(name, input.size);
    return fromBytes(new Uint8Array(await input.arrayBuffer()), name);
  }
  return fromDrawing(input as CanvasImageSource, name);
}

/** Also ImageData. Whether its bytes are as many as they should be is checked where they are used. */
function isPixels(input: ImageInput): input is PixelData {
  if (typeof input !== "object" || !("data" in input)) return false;
  return input.data instanceof Uint8ClampedArray || input.data instanceof Uint8Array;
}

const toBytes = (input: ArrayBuffer | ArrayBufferView): Uint8Array =>
  input instanceof ArrayBuffer
    ? new Uint8Array(input)
    : new Uint8Array(input.buffer, input.byteOffset, input.byteLength);

async function fromAddress(address: string, name: string, { signal, readPath }: ReadOptions): Promise<PixelData> {
  if (readPath && !/^(https?|data|blob):/.test(address)) return fromBytes(await readPath(address, name), name);
  const shown = address.startsWith("data:") ? "a data: address" : printable(address);
  let response: Response;
  try {
    response = await fetch(address, signal ? { signal } : {});
  } catch (error) {
    if (signal?.aborted) throw new MixdqError("aborted", "The run was cancelled.", { cause: error });
    throw new MixdqError("network", `${name}: ${shown} could not be fetched. Check the address.`, { cause: error });
  }
  if (!response.ok)
    throw new MixdqError(
      "network",
      `${name}: ${shown}: got status ${response.status}, expected a picture. Check the address.`,
    );
  const size = Number(response.headers.get("content-length"));
  if (size > MAX_PICTURE_BYTES) throw tooManyBytes(name, size);
  return readPicture(await response.blob(), name);
}

async function fromBytes(bytes: Uint8Array, name: string): Promise<PixelData> {
  if (bytes.length > MAX_PICTURE_BYTES) throw tooManyBytes(name, bytes.length);
  const file = describePicture(bytes);
  if (file?.isAnimated)
    throw invalidInput(
      `${name}: got ${file.kind === "GIF" ? "a GIF" : `a ${file.kind} that moves`}, expected a still picture (PNG, JPEG, WebP).`,
    );
  if (file) checkSize(name, file.width ?? 0, file.height ?? 0, file.kind);
  if (file?.kind === "PNG") return decodePng(bytes, name);
  if (typeof createImageBitmap === "undefined") {
    const got = file ? `a ${file.kind} file` : "what is no picture that is known here";
    throw invalidInput(
      `${name}: got ${got}, expected a PNG file: without a browser no other is decoded. Convert it first.`,
    );
  }
  // As PIL and diffusers' load_image: turned as the camera says, colours and alpha as they are stored.
  const bitmap = await createImageBitmap(new Blob([bytes as BlobPart]), {
    imageOrientation: "from-image",
    premultiplyAlpha: "none",
    colorSpaceConversion: "none",
  }).catch((error: unknown) => {
    const what = file ? `the ${file.kind} file is damaged` : "got what is no picture";
    throw new MixdqError("invalid-input", `${name}: ${what}, expected a PNG, JPEG or WebP file. Save it again.`, {
      cause: error,
    });
  });
  try {
    return fromDrawing(bitmap, name);
  } finally {
    bitmap.close();
  }
}

/** What a canvas can draw, at the size that it has itself. */
function fromDrawing(source: CanvasImageSource, name: string): PixelData {
  const [width, height] = ownSize(source);
  if (typeof width !== "number" || typeof height !== "number")
    throw invalidInput(
      `${name}: got ${Object.prototype.toString.call(source).slice(8, -1)}, expected pixels with width and height, a Blob, ` +
        "bytes, an address, or what a canvas draws.",
    );
  checkSize(name, width, height, "picture");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new MixdqError("out-of-memory", `${name}: there is no memory for ${width}x${height} pixels.`);
  try {
    context.drawImage(source, 0, 0, width, height);
    const { data } = context.getImageData(0, 0, width, height);
    return { width, height, data };
  } catch (error) {
    const reason =
      (error as Error).name === "SecurityError"
        ? "it comes from another origin, which forbids reading it"
        : (error as Error).message;
    throw new MixdqError(
      "invalid-input",
      `${name}: cannot be read: ${reason}. Give a picture whose pixels may be read.`,
      { cause: error },
    );
  }
}

function ownSize(source: CanvasImageSource): readonly unknown[] {
  if ("displayWidth" in source) return [source.displayWidth, source.displayHeight];
  if ("videoWidth" in source) return [source.videoWidth, source.videoHeight];
  if ("naturalWidth" in source) return [source.naturalWidth, source.naturalHeight];
  return [source.width, source.height];
}

function checkSize(name: string, width: number, height: number, what: string): void {
  if (width < 1 || height < 1)
    throw invalidInput(`${name}: the ${what} has no pixels, or says nothing of them. Save it again.`);
  checkPixelCount(name, width, height);
}

const tooManyBytes = (name: string, bytes: number): Error =>
  invalidInput(
    `${name}: got a file of ${(bytes / 1e6).toFixed(0)} MB, expected at most ${MAX_PICTURE_BYTES / 2 ** 20} MiB. Make the picture smaller first.`,
  );
