/**
 * How weight codes lie in GPU memory and in packs: [rows][taps][words], made so that a shader turns a word into operands
 * of dot4I8Packed with one shift and one mask. A block is 16 input channels; per row and tap there are, for B blocks,
 *
 *   8 bits  4 B words            word 4b + q: channels 4q .. 4q+3 of block b, byte l = channel 4q+l, two's complement
 *   4 bits  2 B words            word 2b + h: byte l = channel 8h+l in bits 0..3, channel 8h+4+l in bits 4..7
 *   2 bits    B words            word b: byte l = channel 4j+l in bits 2j, 2j+1, for j = 0..3
 *   3 bits    B + ceil(B/2)      the lower two bits of all blocks as 2 bits, then the highest bits: word B + floor(b/2),
 *                                byte l = channel 4j+l of block b in bit j + 4 (b mod 2)
 *
 * all little-endian. A layer that reads a concatenation has the second part's channels begin on a block of their own.
 * Channels that fill up a block have code 0.
 */
import { MixdqError } from "../base/errors.ts";
import type { WeightBits } from "./formats.ts";

export interface CodeLayout {
  readonly bits: WeightBits;
  readonly rows: number;
  readonly taps: number;
  /** [C], or [C1, C2] for a layer that reads a concatenation. */
  readonly channels: readonly number[];
  /** GEGLU: rows of the value half and of the gate half in turns of four, so that one thread meets both. */
  readonly gated: boolean;
}

/** Input channels of a block. */
export const BLOCK_CHANNELS = 16;

/** Blocks of a row's tap. */
export const blocksOf = (channels: readonly number[]): number =>
  channels.reduce((sum, count) => sum + Math.ceil(count / BLOCK_CHANNELS), 0);

/** u32 words of one row's tap. */
export function tapWords({ bits, channels }: Pick<CodeLayout, "bits" | "channels">): number {
  const blocks = blocksOf(channels);
  return bits === 3 ? blocks + Math.ceil(blocks / 2) : (blocks * bits) / 2;
}

/** u32 words of a layer's codes. */
export const codeWords = (layout: CodeLayout): number => layout.rows * layout.taps * tapWords(layout);

/** Codes [rows, channels, taps] in PyTorch's order -> words as above. Throws `invalid-input` where lengths disagree. */
export function packCodes(codes: Int8Array, layout: CodeLayout): Uint32Array<ArrayBuffer> {
  const { rows, taps } = layout;
  const channels = channelCount(layout);
  checkLength("packCodes", codes.length, rows * channels * taps, layout);
  const words = new Uint32Array(codeWords(layout));
  const bytes = new Uint8Array(words.buffer);
  const tapBytes = tapWords(layout) * 4;
  for (const { place, shift, from, mask } of planesOf(layout))
    for (let row = 0, i = 0; row < rows; row++) {
      const base = storedRow(row, layout) * taps * tapBytes;
      for (let channel = 0; channel < channels; channel++) {
        let at = base + place[channel];
        const left = shift[channel];
        for (let tap = 0; tap < taps; tap++, i++, at += tapBytes) bytes[at] |= ((codes[i] >> from) & mask) << left;
      }
    }
  return words;
}

/** The way back: words -> codes [rows, channels, taps]. Throws `invalid-input` where lengths disagree. */
export function unpackCodes(words: Uint32Array, layout: CodeLayout): Int8Array<ArrayBuffer> {
  const { rows, taps } = layout;
  const channels = channelCount(layout);
  checkLength("unpackCodes", words.length, codeWords(layout), layout);
  const codes = new Int8Array(rows * channels * taps);
  const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
  const tapBytes = tapWords(layout) * 4;
  for (const { place, shift, from, mask } of planesOf(layout))
    for (let row = 0, i = 0; row < rows; row++) {
      const base = storedRow(row, layout) * taps * tapBytes;
      for (let channel = 0; channel < channels; channel++) {
        let at = base + place[channel];
        const right = shift[channel];
        for (let tap = 0; tap < taps; tap++, i++, at += tapBytes) codes[i] |= ((bytes[at] >> right) & mask) << from;
      }
    }
  return codes;
}

/** Where a row of the checkpoint lies on the GPU: row 4i+j of the value half at 8i+j, of the gate half at 8i+4+j. */
export function storedRow(row: number, { rows, gated }: Pick<CodeLayout, "rows" | "gated">): number {
  if (!gated) return row;
  const half = rows / 2;
  const within = row % half;
  return within * 2 - (within % 4) + (row < half ? 0 : 4);
}

/** Refuses what the interleaving of `storedRow` cannot hold. */
export function checkRows({ rows, gated }: Pick<CodeLayout, "rows" | "gated">, where: string): void {
  if (gated && rows % 8 !== 0) {
    const advice = "Leave this layer in 16 bits.";
    throw new MixdqError("unsupported", `${where}: got ${rows} gated rows, expected a multiple of 8. ${advice}`);
  }
}

/** Some bits of every code: those that `mask` keeps of code >> from, at bit `shift` of the byte at `place` in a tap. */
interface Plane {
  readonly from: number;
  readonly mask: number;
  /** By channel. */
  readonly place: Int32Array;
  readonly shift: Int32Array;
}

function planesOf({ bits, channels }: CodeLayout): Plane[] {
  const blocks = blocksOf(channels);
  switch (bits) {
    case 8:
      return [plane(channels, 0, 0xff, (b, c) => [16 * b + c, 0])];
    case 4:
      return [plane(channels, 0, 0xf, (b, c) => [8 * b + 4 * (c >> 3) + (c & 3), c & 4])];
    case 2:
      return [plane(channels, 0, 3, (b, c) => [4 * b + (c & 3), 2 * (c >> 2)])];
    case 3:
      return [
        plane(channels, 0, 3, (b, c) => [4 * b + (c & 3), 2 * (c >> 2)]),
        plane(channels, 2, 1, (b, c) => [4 * blocks + 4 * (b >> 1) + (c & 3), (c >> 2) + 4 * (b & 1)]),
      ];
  }
}

function plane(
  channels: readonly number[],
  from: number,
  mask: number,
  locate: (block: number, channel: number) => [place: number, shift: number],
): Plane {
  const located = channels.flatMap((count, part) => {
    const first = blocksOf(channels.slice(0, part));
    return Array.from({ length: count }, (_, c) => locate(first + Math.floor(c / BLOCK_CHANNELS), c % BLOCK_CHANNELS));
  });
  return {
    from,
    mask,
    place: Int32Array.from(located, ([place]) => place),
    shift: Int32Array.from(located, ([, shift]) => shift),
  };
}

const channelCount = ({ channels }: CodeLayout): number => channels.reduce((sum, count) => sum + count, 0);

function checkLength(where: string, got: number, expected: number, layout: CodeLayout): void {
  checkRows(layout, where);
  if (got === expected) return;
  const { bits, rows, taps, channels } = layout;
  const shape = `[${rows}, ${channels.join(" + ")}, ${taps}] at ${bits} bits`;
  throw new MixdqError("invalid-input", `${where}: got ${got}, expected ${expected} for ${shape}.`);
}
