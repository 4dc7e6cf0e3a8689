/** Side by side, as a person uses it: fp16 and integers of one seed, the divider, the difference, the numbers, the link. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { Browser, Locator, Page } from "playwright";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { launchBrowser } from "./browser.ts";
import { type Pixels, RESULTS, commandLinePicture, psnr } from "./picture.ts";
import { type ServedPage, servePage } from "./serve.ts";
import { NEVER_MS } from "./clock.ts";

const PROMPT = "a blue tent by a lake";
const SEED = 7;
const STATE = { mode: "compare", precision: "w4a8", prompt: PROMPT, seed: SEED };

let served: ServedPage;
let browser: Browser;

beforeAll(async () => {
  await mkdir(RESULTS, { recursive: true });
  [served, browser] = await Promise.all([servePage(), launchBrowser("swiftshader")]);
});
afterEach(async ({ task }) => {
  for (const context of browser.contexts()) {
    const file = path.join(RESULTS, `failed-${task.name.replace(/\W+/g, "-").slice(0, 60)}.png`);
    if (task.result?.state === "fail")
      for (const page of context.pages()) await page.screenshot({ path: file, timeout: 5000 }).catch(() => {});
    await context.close();
  }
});
afterAll(() => Promise.all([served?.close(), browser?.close()]));

async function openPage(query: Record<string, string | number>): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1200, height: 1380 } });
  const page = await context.newPage();
  page.setDefaultTimeout(NEVER_MS);
  page.on("pageerror", (error) => console.error(`error on the page: ${error.message}`));
  const params = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)]));
  await page.goto(`${served.url}?${params}`);
  return page;
}

const isIdle = (page: Page): Promise<unknown> => page.waitForSelector('#app[data-state="idle"]');
const parameter = (page: Page, name: string): Promise<string | null> =>
  page.evaluate((key) => new URL(location.href).searchParams.get(key), name);
const numbers = async (row: Locator): Promise<number[]> =>
  (await row.locator("td").allTextContents()).map((text) => parseFloat(text));

/** Presses Compare and waits for the end; returns what the error boxes say. */
async function comparePictures(page: Page): Promise<string[]> {
  await page.click("#generate");
  await isIdle(page);
  return page.locator(".error:not([hidden])").allTextContents();
}

async function pixelsOf(canvas: Locator): Promise<Pixels> {
  const { width, height, rgb } = await canvas.evaluate((element) => {
    const { width, height } = element as HTMLCanvasElement;
    const { data } = (element as HTMLCanvasElement).getContext("2d")!.getImageData(0, 0, width, height);
    return { width, height, rgb: [...data].filter((_, i) => i % 4 !== 3) };
  });
  return { width, height, rgb: Uint8Array.from(rgb) };
}

/** |a - b| times the factor, cut at 255. */
function difference(a: Pixels, b: Pixels, factor: number): Uint8Array {
  return a.rgb.map((value, i) => Math.min(255, factor * Math.abs(value - b.rgb[i])));
}

test(
  "both pictures, their difference and plausible numbers; a divider for keyboard and mouse; the address holds it all",
  { timeout: 3 * NEVER_MS },
  async () => {
    const page = await openPage(STATE);
    const fetched: string[] = [];
    page.on("request", (request) => {
      if (request.url().endsWith(".safetensors")) fetched.push(request.url());
    });
    expect(await comparePictures(page)).toEqual([]);
    await page.waitForTimeout(600); // the fade-in
    await page.screenshot({ path: path.join(RESULTS, "compare.png"), fullPage: true });

    const left = await pixelsOf(page.locator("#left"));
    const right = await pixelsOf(page.locator("#right"));
    expect([left.width, left.height, right.width, right.height]).toEqual([128, 128, 128, 128]);
    const expected = await commandLinePicture({
      prompt: PROMPT,
      seed: SEED,
      precision: "w4a8",
      adapter: "swiftshader",
    });
    expect(psnr(right, expected), "w4a8 side against the command line").toBeGreaterThanOrEqual(80);
    for (const [side, picture] of Object.entries({ left, right })) {
      const print = await pixelsOf(page.locator(`.tile[data-side="${side}"] canvas`));
      expect(psnr(print, picture), side).toBe(Infinity);
    }

    const shown = await pixelsOf(page.locator("#difference"));
    expect(shown.rgb).toEqual(difference(left, right, 8));
    await page.focus("#amplify");
    await page.keyboard.press("Home");
    await page.keyboard.press("ArrowRight");
    expect(await page.textContent("#amplify-value")).toBe("× 2");
    expect((await pixelsOf(page.locator("#difference"))).rgb).toEqual(difference(left, right, 2));

    const psnrText = (await page.textContent("#psnr"))!;
    expect(psnrText).toMatch(/^\d+\.\d dB$/);
    expect(parseFloat(psnrText)).toBeCloseTo(psnr(left, right), 0);
    for (const id of ["#ssim", "#ssim11"]) {
      const value = Number(await page.textContent(id));
      console.log(`${id.slice(1)} ${value}, PSNR ${psnrText}`);
      expect(value).toBeGreaterThan(0.3);
      expect(value).toBeLessThanOrEqual(1);
    }
    expect(await page.locator("#cost-unet td").allTextContents()).toEqual([
      expect.stringMatching(/^[\d.]+ m?s$/),
      expect.stringMatching(/^[\d.]+ m?s$/),
      expect.stringMatching(/^\d+ %$/),
    ]);
    const [fullBytes, fewBytes, share] = await numbers(page.locator("#cost-weights"));
    expect(fewBytes).toBeLessThan(0.6 * fullBytes);
    expect(share).toBeCloseTo((100 * fewBytes) / fullBytes, -1);
    const peaks = await numbers(page.locator("#cost-peak"));
    expect(peaks[0]).toBeGreaterThan(fullBytes);
    expect(peaks[1]).toBeGreaterThan(fewBytes);
    expect(peaks[1]).toBeLessThan(peaks[0]);
    expect(await page.textContent("#context")).toMatch(/swiftshader is a software adapter: times here say nothing/);

    const split = page.getByRole("slider", { name: "Divider between fp16 and w4a8" });
    await split.focus();
    await page.keyboard.press("ArrowLeft");
    expect(await split.getAttribute("aria-valuetext")).toBe("49 % fp16, 51 % w4a8");
    const dividerAt = async (): Promise<number> => {
      const [divider, pair] = [await page.locator("#divider").boundingBox(), await page.locator("#pair").boundingBox()];
      return (divider!.x + divider!.width / 2 - pair!.x) / pair!.width;
    };
    expect(await dividerAt()).toBeCloseTo(0.49, 2);
    const pair = (await page.locator("#pair").boundingBox())!;
    const frame = (await page.locator("#frame").boundingBox())!;
    expect(pair.width, "nothing is cut off").toBeLessThanOrEqual(frame.width);
    expect(pair.width).toBeCloseTo(pair.height, 0);
    await page.mouse.move(pair.x + 0.5 * pair.width, pair.y + 40);
    await page.mouse.down();
    await page.mouse.move(pair.x + 0.25 * pair.width, pair.y + 60);
    await page.mouse.up();
    expect(await dividerAt()).toBeCloseTo(0.25, 2);
    await page.waitForFunction(() => new URL(location.href).searchParams.get("split") === "25");

    const before = fetched.length;
    expect(before).toBeGreaterThan(0);
    await page.fill("#seed", "8");
    expect(await comparePictures(page)).toEqual([]);
    expect(fetched.slice(before), "another seed loads nothing").toEqual([]);
    expect(psnr(await pixelsOf(page.locator("#left")), left)).toBeLessThan(40);

    for (const [name, value] of Object.entries({ ...STATE, seed: 8, split: 25, amplify: 2 }))
      expect(await parameter(page, name), name).toBe(String(value));
    await page.reload();
    expect(await page.isChecked('[name="mode"][value="compare"]')).toBe(true);
    expect(await page.isChecked('[name="precision"][value="w4a8"]')).toBe(true);
    const values = await page.evaluate(() =>
      ["prompt", "seed", "split", "amplify"].map((id) => (document.getElementById(id) as HTMLInputElement).value),
    );
    expect(values).toEqual([PROMPT, "8", "25", "2"]);
  },
);

test("a side that fails says why, and the other keeps its picture", { timeout: NEVER_MS }, async () => {
  const page = await openPage({ ...STATE, precision: "w8a8", w: 64, h: 64 });
  await page.route("**/mixdq.w8a8.json", (route) => route.fulfill({ status: 404 }));
  expect(await comparePictures(page)).toHaveLength(1);
  expect(await page.textContent('.error[data-precision="w8a8"][data-code="unsupported"]')).toMatch(
    /^w8a8: .*has no mixdq\.w8a8\.json/,
  );
  expect((await pixelsOf(page.locator("#left"))).width).toBe(64);
  expect(await page.isVisible("#right")).toBe(false);
  expect(await page.isVisible("#divider")).toBe(false);
  expect(await page.locator("#cost-unet td").allTextContents()).toEqual([expect.stringMatching(/\d m?s$/), "–"]);

  await page.check('[name="mode"][value="picture"]', { force: true });
  expect(await page.locator(".error:visible").count()).toBe(0);
  expect(await page.isVisible("#comparison")).toBe(false);
});

test("cancelling takes effect within 250 ms on the second side, too", { timeout: NEVER_MS }, async () => {
  const page = await openPage({ ...STATE, w: 64, h: 64, steps: 40 });
  await page.click("#generate");
  await page.waitForFunction(() => document.querySelector("#turn")!.textContent === "w4a8 · 2 of 2");
  await page.waitForSelector('#app[data-state="generating"] [data-stage="step"][data-progress="now"]');
  await page.keyboard.press("Escape");
  await isIdle(page);
  const cancelMs = Number(await page.getAttribute("#app", "data-cancel-ms"));
  console.log(`cancelled after ${cancelMs} ms on the second side`);
  expect(cancelMs).toBeLessThan(250);
  expect(await page.locator(".error:visible").count()).toBe(0);
  await page.fill("#steps", "1");
  expect(await comparePictures(page)).toEqual([]);
  expect(await page.isVisible("#divider")).toBe(true);
});
