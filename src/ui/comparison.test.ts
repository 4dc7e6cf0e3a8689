import { expect, test } from "vitest";
import { MixdqError } from "../base/errors.ts";
import { amplifiedDifference, likenessOf, compare, type Sides } from "./comparison.ts";
import type { Session } from "./session.ts";
import { DEFAULTS, type Settings } from "./settings.ts";

function gray(value: number, side = 16) {
  const data = new Uint8ClampedArray(side * side * 4).fill(value);
  for (let i = 3; i < data.length; i += 4) data[i] = 255;
  return { width: side, height: side, data };
}

test("the difference is absolute, amplified, cut at white, and opaque", () => {
  const [a, b] = [gray(10, 1), gray(10, 1)];
  b.data.set([13, 7, 200]);
  expect([...amplifiedDifference(a, b, 8)]).toEqual([24, 24, 255, 255]);
  expect([...amplifiedDifference(b, a, 1)]).toEqual([3, 3, 190, 255]);
});

test("equal pictures have SSIM 1 and no PSNR; one off everywhere has 48.13 dB", () => {
  expect(likenessOf(gray(7), gray(7))).toEqual({ ssim: 1, ssim11: 1, psnr: undefined });
  expect(likenessOf(gray(7), gray(8)).psnr).toBeCloseTo(48.1308, 4);
  expect(likenessOf(gray(7, 8), gray(8, 8)).ssim11).toBeUndefined();
});

/** Makes pictures at once, and writes down in which order and beside what. */
function fakeSession(loaded: string[], failing: Record<string, MixdqError> = {}) {
  const made: { precision: string; seed: Settings["seed"]; companion: string | undefined }[] = [];
  const session = {
    has: ({ precision }: Settings) => loaded.includes(precision),
    picture: async ({ precision, seed }: Settings, _: unknown, companion?: Settings) => {
      made.push({ precision, seed, companion: companion?.precision });
      if (failing[precision]) throw failing[precision];
      return gray(1);
    },
  };
  return { session: session as unknown as Session, made };
}

const HOOKS = {
  signal: new AbortController().signal,
  onProgress: () => {},
  onReady: () => {},
  onStep: () => {},
  onTurn: () => {},
  onSide: () => {},
};
const SETTINGS: Settings = { ...DEFAULTS, mode: "compare", precision: "w4a8", seed: undefined };

test("both sides get one seed, also where none was asked for, and each the other as companion", async () => {
  const { session, made } = fakeSession([]);
  const sides = await compare(session, SETTINGS, HOOKS);
  expect(made.map(({ precision, companion }) => [precision, companion])).toEqual([
    ["fp16", "w4a8"],
    ["w4a8", "fp16"],
  ]);
  expect(made[0].seed).toBeTypeOf("number");
  expect(made[1].seed).toBe(made[0].seed);
  expect([sides.left!.precision, sides.right!.precision]).toEqual(["fp16", "w4a8"]);
});

test("the side that is loaded goes first", async () => {
  const order = async (loaded: string[]): Promise<string[]> => {
    const { session, made } = fakeSession(loaded);
    await compare(session, SETTINGS, HOOKS);
    return made.map(({ precision }) => precision);
  };
  expect(await order(["w4a8"])).toEqual(["w4a8", "fp16"]);
  expect(await order(["fp16"])).toEqual(["fp16", "w4a8"]);
  expect(await order(["fp16", "w4a8"])).toEqual(["fp16", "w4a8"]);
  expect(await order(["w8a8"])).toEqual(["fp16", "w4a8"]);
});

test("one side's failure leaves the other its picture; an abort ends both", async () => {
  const seen: Sides[] = [];
  const error = new MixdqError("out-of-memory", "fp16 does not fit.");
  const failed = await compare(fakeSession([], { fp16: error }).session, SETTINGS, {
    ...HOOKS,
    onSide: (sides) => seen.push(sides),
  });
  expect(failed.left).toEqual({ precision: "fp16", error });
  expect(failed.right!.image).toBeDefined();
  expect(seen.map((sides) => Object.keys(sides))).toEqual([["left"], ["left", "right"]]);

  const { session, made } = fakeSession([], { fp16: new MixdqError("aborted", "Cancelled.") });
  await expect(compare(session, SETTINGS, HOOKS)).rejects.toMatchObject({ code: "aborted" });
  expect(made).toHaveLength(1);
});
