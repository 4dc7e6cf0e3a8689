/** Pictures for comparison: the one on the page, the one the command line makes, and how far apart they are. */
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { decode } from "fast-png";
import type { Page } from "playwright";

const ROOT = path.resolve(import.meta.dirname, "..");

/** What tests leave behind to be looked at. */
export const RESULTS = path.join(ROOT, "test-results");

export interface Pixels {
  readonly width: number;
  readonly height: number;
  /** RGB, 8 bits. */
  readonly rgb: Uint8Array;
}

export function readPng(png: Uint8Array): Pixels & { text: Record<string, string> } {
  const { width, height, channels, data, text } = decode(png, { checkCrc: true });
  return { width, height, rgb: rgbOf(data, channels), text };
}

/** The pixels of the page's canvas. */
export async function canvasPixels(page: Page): Promise<Pixels> {
  const { width, height, rgba } = await page.evaluate(() => {
    const canvas = document.querySelector("canvas")!;
    const { width, height } = canvas;
    const { data } = canvas.getContext("2d")!.getImageData(0, 0, width, height);
    return { width, height, rgba: Array.from(data) };
  });
  return { width, height, rgb: rgbOf(rgba, 4) };
}

const made = new Map<string, Promise<Pixels>>();

/** `mixdq generate` with these flags, as a person would run it; once per set of flags. */
export function commandLinePicture(flags: Record<string, string | number>): Promise<Pixels> {
  const key = Object.values(flags).join("-").replace(/\W+/g, "-");
  const known = made.get(key);
  if (known) return known;
  const picture = generate(path.join(RESULTS, `command-line-${key}.png`), flags);
  made.set(key, picture);
  return picture;
}

async function generate(out: string, flags: Record<string, string | number>): Promise<Pixels> {
  const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
  const command = [path.join(ROOT, "bin/mixdq.mjs"), "generate", "--out", out, ...args];
  await promisify(execFile)(process.execPath, command, { cwd: ROOT });
  return readPng(await readFile(out));
}

/** Peak signal-to-noise ratio in dB over 8-bit values; Infinity where they are equal. */
export function psnr(a: Pixels, b: Pixels): number {
  if (a.width !== b.width || a.height !== b.height) {
    throw new Error(`psnr: ${a.width}x${a.height} against ${b.width}x${b.height}`);
  }
  let sum = 0;
  for (let i = 0; i < a.rgb.length; i++) sum += (a.rgb[i] - b.rgb[i]) ** 2;
  return 10 * Math.log10(255 ** 2 / (sum / a.rgb.length));
}

function rgbOf(data: ArrayLike<number>, channels: number): Uint8Array {
  const rgb = new Uint8Array((data.length / channels) * 3);
  for (let i = 0; i < rgb.length; i++) rgb[i] = data[Math.floor(i / 3) * channels + (i % 3)];
  return rgb;
}
