import { expect, test } from "vitest";
import { codeWords, packCodes, storedRow, tapWords, unpackCodes, type CodeLayout } from "./codes.ts";
import { codeRange, type WeightBits } from "./formats.ts";

const BITS: readonly WeightBits[] = [2, 3, 4, 8];
const hex = (words: Uint32Array) => Array.from(words, (word) => word.toString(16).padStart(8, "0"));
const layout = (bits: WeightBits, channels: number[], rows = 1, taps = 1, gated = false): CodeLayout => ({
  ...{ bits, rows, taps, channels, gated },
});

/** A small linear congruential stream: the same numbers on every run. */
function stream(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function randomCodes(length: number, bits: WeightBits, below: (n: number) => number): Int8Array {
  const [first] = codeRange(bits);
  return Int8Array.from({ length }, () => first + below(2 ** bits));
}

test("8 bits: four channels a word, the first in the lowest byte", () => {
  const codes = Int8Array.of(1, 2, 3, 4, -1, -128, 127, 0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, -2);
  expect(hex(packCodes(codes, layout(8, [16])))).toEqual(["04030201", "007f80ff", "44332211", "fe776655"]);
});

test("4 bits: channel l of eight in byte l's low half, channel 4+l in its high half", () => {
  const codes = Int8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  expect(hex(packCodes(codes, layout(4, [16])))).toEqual(["73625140", "fbead9c8"]);
});

test("2 bits: channel 4j+l at bit 2j of byte l", () => {
  // Byte 0 holds channels 0, 4, 8, 12 = 3, 2, 1, 0; byte 1 channels 1, 5, 9, 13 = 0, 1, 2, 3; bytes 2, 3: all 1, all 2.
  const codes = Int8Array.of(3, 0, 1, 2, 2, 1, 1, 2, 1, 2, 1, 2, 0, 3, 1, 2);
  expect(hex(packCodes(codes, layout(2, [16])))).toEqual(["aa55e41b"]);
});

test("3 bits: the low two bits as 2 bits, then the high bits of two blocks a word", () => {
  // Blocks of channel value c % 8 (low two bits c % 4), all 4 (low 0, high 1), and 7 in channel 32 alone.
  const codes = Int8Array.from({ length: 33 }, (_, c) => (c < 16 ? c % 8 : c < 32 ? 4 : 7));
  // Low plane: byte l holds l four times. High bits of block 0: channels 4..7 and 12..15, so bits 1 and 3 of each
  // byte; block 1: bits 4..7 of each; block 2 begins the next word.
  expect(hex(packCodes(codes, layout(3, [33])))).toEqual(["ffaa5500", "00000000", "00000003", "fafafafa", "00000001"]);
});

test("missing channels are zero codes, and a concatenation's second part begins on a new block", () => {
  const codes = Int8Array.of(1, 2, 3, 4, 5, 6);
  expect(hex(packCodes(codes, layout(4, [5, 1])))).toEqual(["04030251", "00000000", "00000006", "00000000"]);
});

test("taps come before channels, rows before taps", () => {
  const codes = Int8Array.of(1, 2, 3, 4, 5, 6, 7, 8); // [2 rows, 2 channels, 2 taps]
  const words = packCodes(codes, layout(8, [2], 2, 2));
  expect(hex(words).filter((word) => word !== "00000000")).toEqual(["00000301", "00000402", "00000705", "00000806"]);
  expect(words.length).toBe(16);
});

test("gated rows lie in turns of four", () => {
  const rows = Array.from({ length: 16 }, (_, row) => storedRow(row, { rows: 16, gated: true }));
  expect(rows).toEqual([0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]);
  const words = packCodes(
    Int8Array.from({ length: 16 }, (_, row) => row),
    layout(8, [1], 16, 1, true),
  );
  const order = words.filter((_, i) => i % 4 === 0);
  expect(Array.from(order)).toEqual([0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]);
});

test("any codes of any shape survive the way there and back", () => {
  const below = stream(1);
  for (let round = 0; round < 200; round++) {
    const bits = BITS[round % 4];
    const gated = below(2) === 1;
    const channels = Array.from({ length: 1 + below(2) }, () => 1 + below(70));
    const rows = gated ? 8 * (1 + below(3)) : 1 + below(9);
    const shape = layout(bits, channels, rows, [1, 9, 4][below(3)], gated);
    const count = channels.reduce((sum, c) => sum + c, 0) * rows * shape.taps;
    const codes = randomCodes(count, bits, below);
    const words = packCodes(codes, shape);
    expect(words.length).toBe(codeWords(shape));
    const back = unpackCodes(words, shape);
    expect(back.length === count && back.every((code, i) => code === codes[i]), JSON.stringify(shape)).toBe(true);
  }
});

test("words per tap are as documented", () => {
  const words = (channels: number[]) => BITS.map((bits) => tapWords({ bits, channels }));
  expect(words([16])).toEqual([1, 2, 2, 4]);
  expect(words([40, 17])).toEqual([5, 8, 10, 20]);
  expect(words([1280])).toEqual([80, 120, 160, 320]);
});

test("wrong lengths and rows that cannot be interleaved are refused", () => {
  expect(() => packCodes(new Int8Array(15), layout(4, [16]))).toThrow(/got 15, expected 16 for \[1, 16, 1\] at 4 bits/);
  expect(() => unpackCodes(new Uint32Array(3), layout(4, [16]))).toThrow(/got 3, expected 2/);
  expect(() => packCodes(new Int8Array(12), layout(4, [1], 12, 1, true))).toThrow(/12 gated rows/);
});
