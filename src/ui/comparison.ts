/** The same prompt and seed in fp16 and in integers, one side after the other, and how far apart the pictures are. */
import type { GeneratedImage } from "../index.ts";
import { MixdqError } from "../base/errors.ts";
import { psnr } from "../mixdq/quality/psnr.ts";
import { ssim, ssim11 } from "../mixdq/quality/ssim.ts";
import type { EngineInfo, Precision, RawImage } from "../base/types.ts";
import type { Hooks, Session } from "./session.ts";
import { randomSeed, type Settings } from "./settings.ts";

/** fp16 is on the left. */
export type SideName = "left" | "right";

/** How one side came out: a picture, or why there is none. */
export interface Side {
  readonly precision: Precision;
  readonly image?: GeneratedImage;
  readonly info?: EngineInfo;
  readonly error?: unknown;
}

export type Sides = Partial<Record<SideName, Side>>;

interface ComparisonHooks extends Hooks {
  /** A side begins: the first or the second. */
  onTurn: (precision: Precision, turn: number) => void;
  /** All sides so far, whenever one has come out. */
  onSide: (sides: Sides) => void;
}

/**
 * One side's failure leaves the other its picture. Begins with the side whose engine is loaded: where only one fits, a
 * second seed then loads one model and not two. Throws `aborted` only.
 */
export async function compare(session: Session, asked: Settings, hooks: ComparisonHooks): Promise<Sides> {
  const settings = { ...asked, seed: asked.seed ?? randomSeed() };
  const both: Record<SideName, Settings> = { left: { ...settings, precision: "fp16" }, right: settings };
  const rightFirst = session.has(both.right) && !session.has(both.left);
  const order: readonly SideName[] = rightFirst ? ["right", "left"] : ["left", "right"];
  const sides: Sides = {};
  for (const [i, name] of order.entries()) {
    const { precision } = both[name];
    let info: EngineInfo | undefined;
    const onReady = (ready: EngineInfo): void => hooks.onReady((info = ready));
    hooks.onTurn(precision, i + 1);
    try {
      const companion = both[name === "left" ? "right" : "left"];
      const image = await session.picture(both[name], { ...hooks, onReady }, companion);
      sides[name] = { precision, image, ...(info && { info }) };
    } catch (error) {
      if (error instanceof MixdqError && error.code === "aborted") throw error;
      sides[name] = { precision, error };
    }
    hooks.onSide({ ...sides });
  }
  return sides;
}

type Pixels = Pick<RawImage, "width" | "height" | "data">;

export interface Likeness {
  /** MixDQ's form, one window over nearly the whole picture; undefined for pictures too small for a window. */
  readonly ssim: number | undefined;
  /** The usual form, windows of 11 x 11. */
  readonly ssim11: number | undefined;
  /** dB; undefined where no value differs. */
  readonly psnr: number | undefined;
}

/** Of two pictures of one size. */
export function likenessOf(a: Pixels, b: Pixels): Likeness {
  const shortest = Math.min(a.width, a.height);
  return {
    ssim: shortest >= 3 ? ssim(a, b) : undefined,
    ssim11: shortest >= 11 ? ssim11(a, b) : undefined,
    psnr: a.data.every((value, i) => value === b.data[i]) ? undefined : psnr(a, b),
  };
}

/** |a - b| of each colour times `factor`, cut at 255: RGBA, opaque. Black where the pictures are equal. */
export function amplifiedDifference(a: Pixels, b: Pixels, factor: number): Uint8ClampedArray<ArrayBuffer> {
  const result = new Uint8ClampedArray(a.data.length);
  for (let i = 0; i < result.length; i++) result[i] = i % 4 === 3 ? 255 : factor * Math.abs(a.data[i] - b.data[i]);
  return result;
}
