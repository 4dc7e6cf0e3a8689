/** What an example's page draws, and what it is to look like. */
import path from "node:path";
import type { Page } from "playwright";
import { commandLinePicture, type Pixels, psnr } from "../picture.ts";
import { ROOT } from "./consumer.ts";
import { NEVER_MS } from "../clock.ts";

/** Small, and its kernels take a software GPU the least time to compile. */
export const MODEL = path.join(ROOT, "e2e/golden/sd21-turbo");

/** In every example. */
export const PROMPT = "a red house by the sea";
export const SEED = 7;

/** Of the same kernels on the same kind of adapter in another process, as in app.spec.ts. */
export const LEAST_DB = 80;

/** Presses the button where there is one, and waits for the picture. Throws what the page says went wrong. */
export async function drawn(page: Page): Promise<Pixels> {
  const button = page.locator("form button");
  if ((await button.count()) > 0) await button.click();
  await page.waitForFunction(
    () => {
      const picture = document.querySelector("img");
      const element = document.querySelector<HTMLElement & { image?: unknown }>("mixdq-image");
      const text =
        document.querySelector("output")?.textContent || element?.shadowRoot?.querySelector("p")?.textContent;
      return (
        (picture?.complete && picture.naturalWidth > 0) || element?.image || /^[a-z]+(-[a-z]+)*: /.test(text ?? "")
      );
    },
    undefined,
    { timeout: NEVER_MS },
  );
  const { width, height, rgba, text } = await page.evaluate(() => {
    const root = document.querySelector("mixdq-image")?.shadowRoot ?? document;
    const source = root.querySelector<HTMLImageElement | HTMLCanvasElement>("img, canvas");
    const [width, height] =
      source instanceof HTMLImageElement
        ? [source.naturalWidth, source.naturalHeight]
        : [source?.width ?? 0, source?.height ?? 0];
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const context = canvas.getContext("2d")!;
    if (source && width > 0) context.drawImage(source, 0, 0);
    const rgba = width > 0 ? Array.from(context.getImageData(0, 0, width, height).data) : [];
    return { width, height, rgba, text: root.querySelector("output, p")?.textContent };
  });
  if (width === 0) throw new Error(`no picture: ${text}`);
  return {
    width,
    height,
    rgb: Uint8Array.from({ length: width * height * 3 }, (_, i) => rgba[Math.floor(i / 3) * 4 + (i % 3)]),
  };
}

/** How like what the command line of this repository draws, in dB. */
export async function likeness(pixels: Pixels): Promise<number> {
  const flags = { model: MODEL, prompt: PROMPT, seed: SEED, adapter: "swiftshader" };
  return psnr(pixels, await commandLinePicture(flags));
}
