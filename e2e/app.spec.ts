/** The page as a person uses it, in a real Chromium: type, watch, look, cancel, download, come back. */
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { Browser, Page } from "playwright";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type BrowserAdapter, launchBrowser, lavapipeMissing } from "./browser.ts";
import { type Pixels, RESULTS, canvasPixels, commandLinePicture, psnr, readPng } from "./picture.ts";
import { type ServedPage, servePage } from "./serve.ts";

const PROMPT = "a blue tent by a lake";
const SEED = 7;

/** Every WGSL kernel is compiled by a software GPU on the first run. */
const SLOW_MS = 180_000;

let served: ServedPage;
let browser: Browser | undefined;

beforeAll(async () => {
  await mkdir(RESULTS, { recursive: true });
  served = await servePage();
});
afterAll(() => served?.close());

function inBrowser(adapter: BrowserAdapter): void {
  beforeAll(async () => {
    browser = await launchBrowser(adapter);
  });
  afterEach(async ({ task }) => {
    for (const context of browser?.contexts() ?? []) {
      if (task.result?.state === "fail") await keepEvidence(task.name, context.pages());
      await context.close();
    }
  });
  afterAll(() => browser?.close());
}

/** What a failed test's pages looked like. */
async function keepEvidence(name: string, pages: Page[]): Promise<void> {
  const file = path.join(RESULTS, `failed-${name.replace(/\W+/g, "-").slice(0, 60)}.png`);
  for (const page of pages) await page.screenshot({ path: file, timeout: 5000 }).catch(() => {});
}

/** Opens the page and writes down everything it says from then on. */
async function openPage(query: Record<string, string | number> = {}): Promise<Page> {
  const context = await browser!.newContext({ viewport: { width: 1200, height: 860 } });
  const page = await context.newPage();
  page.setDefaultTimeout(SLOW_MS);
  page.on("pageerror", (error) => console.error(`error on the page: ${error.message}`));
  await page.addInitScript(() => {
    const seen: string[] = [];
    Object.assign(window, { seen });
    addEventListener("DOMContentLoaded", () => {
      const note = (): void => {
        const state = document.querySelector<HTMLElement>("#app")!.dataset.state;
        const stage = document.querySelector<HTMLElement>('#stages [data-progress="now"]')?.dataset.stage;
        const line =
          state === "generating" ? `stage ${stage}` : `${state} ${document.querySelector("#detail")?.textContent}`;
        if (seen.at(-1) !== line) seen.push(line);
      };
      const options = { subtree: true, childList: true, attributes: true, characterData: true };
      new MutationObserver(note).observe(document.querySelector("#app")!, options);
    });
  });
  const params = new URLSearchParams(Object.entries(query).map(([key, value]) => [key, String(value)]));
  await page.goto(`${served.url}?${params}`);
  return page;
}

const seenOn = (page: Page): Promise<string[]> => page.evaluate(() => (window as unknown as { seen: string[] }).seen);
const isIdle = (page: Page): Promise<unknown> => page.waitForSelector('#app[data-state="idle"]');

/** Presses Generate and waits for the picture; what the error panel says is the failure's message. */
async function makePicture(page: Page): Promise<Pixels> {
  await page.click("#generate");
  await isIdle(page);
  const error = await page.locator("#error:not([hidden])").allTextContents();
  expect(error).toEqual([]);
  return canvasPixels(page);
}

describe("on SwiftShader", () => {
  inBrowser("swiftshader");

  test(
    "a prompt becomes the picture that the command line makes, with progress all the way",
    { timeout: 2 * SLOW_MS },
    async () => {
      const page = await openPage({ precision: "fp32" });
      await page.waitForFunction(() => /MB/.test(document.querySelector("#download-size")!.textContent!));
      await page.fill("#prompt", PROMPT);
      await page.fill("#seed", String(SEED));
      await page.press("#prompt", "Enter");
      await page.waitForSelector("#picture:not([hidden])");
      await isIdle(page);
      await page.waitForTimeout(600); // the fade-in
      await page.screenshot({ path: path.join(RESULTS, "app.png") });

      const seen = await seenOn(page);
      const loading = seen
        .map((line) => /^loading ([\d.]+) (k|M|G)?B of .*\.safetensors$/.exec(line))
        .filter((m) => m !== null);
      expect(loading.length, seen.join("\n")).toBeGreaterThan(3);
      expect(
        seen.filter((line) => line.startsWith("stage")),
        seen.join("\n"),
      ).toEqual(expect.arrayContaining(["stage encode", "stage step", "stage decode"]));
      expect(await page.textContent("#time-total")).toMatch(/\d (ms|s)$/);

      const onPage = await canvasPixels(page);
      const flags = { prompt: PROMPT, seed: SEED, precision: "fp32", model: "models/postcard" };
      const difference = psnr(onPage, await commandLinePicture("app-command-line", flags));
      console.log(`page against command line, fp32: ${difference.toFixed(1)} dB`);
      expect(difference).toBeGreaterThanOrEqual(50);

      const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
      expect(download.suggestedFilename()).toBe(`mixdq-${SEED}.png`);
      const png = readPng(await readFile(await download.path()));
      expect(psnr(png, onPage)).toBe(Infinity);
      expect(png.text.parameters).toMatch(new RegExp(`^${PROMPT}\nSteps: 1, .*Seed: ${SEED}, Size: 128x128`));
      expect(png.text["mixdq:prompt"]).toBe(PROMPT);
    },
  );

  test(
    "cancelling takes effect within 250 ms, while loading and while painting, and another picture follows",
    { timeout: 2 * SLOW_MS },
    async () => {
      const page = await openPage({ prompt: PROMPT, seed: SEED, steps: 50 });
      await page.route("**/unet/*.safetensors", async (route) => {
        await new Promise((resolve) => setTimeout(resolve, 3000));
        await route.continue().catch(() => {}); // cancelled meanwhile
      });
      const cancelMs = async (): Promise<number> => {
        await page.keyboard.press("Escape");
        await isIdle(page);
        return Number(await page.getAttribute("#app", "data-cancel-ms"));
      };
      await page.click("#generate");
      await page.waitForFunction(() => /MB|kB/.test(document.querySelector("#detail")!.textContent!));
      const whileLoading = await cancelMs();
      await page.unroute("**/unet/*.safetensors");

      await page.click("#generate");
      await page.waitForSelector('#app[data-state="generating"] [data-stage="step"][data-progress="now"]');
      const whilePainting = await cancelMs();
      console.log(`cancelled after ${whileLoading} ms while loading, ${whilePainting} ms while painting`);
      expect(whileLoading).toBeLessThan(250);
      expect(whilePainting).toBeLessThan(250);
      expect(await page.isVisible("#error")).toBe(false);

      await page.fill("#steps", "1");
      const first = await makePicture(page);
      const second = await makePicture(page);
      expect(psnr(first, second)).toBe(Infinity);
    },
  );

  test("the address keeps every setting over a reload", async () => {
    const page = await openPage();
    await page.fill("#prompt", "a castle & 100% fog");
    await page.fill("#seed", "123");
    await page.fill("#steps", "2");
    await page.fill("#width", "192");
    await page.fill("#height", "64");
    await page.check('[name="precision"][value="fp32"]', { force: true });
    await page.click("#advanced summary");
    await page.selectOption("#backend", "ort-wasm");
    await page.fill("#model", "models/elsewhere");
    await page.press("#model", "Tab");
    await page.reload();
    const values = await page.evaluate(() =>
      ["prompt", "seed", "steps", "width", "height", "backend", "model"].map(
        (id) => (document.getElementById(id) as HTMLInputElement).value,
      ),
    );
    expect(values).toEqual(["a castle & 100% fog", "123", "2", "192", "64", "ort-wasm", "models/elsewhere"]);
    expect(await page.isChecked('[name="precision"][value="fp32"]')).toBe(true);
    expect(new URL(page.url()).searchParams.get("w")).toBe("192");
  });

  test("a wrong model address says what is missing and what to do, before and after pressing Generate", async () => {
    const page = await openPage({ model: "models/nothing" });
    await page.waitForSelector("#error:not([hidden])");
    expect(await page.getAttribute("#error", "data-code")).toBe("model");
    expect(await page.textContent("#error")).toMatch(/models\/nothing.*model_index\.json/);
    await page.click("#generate");
    await page.waitForSelector('#error[data-code="invalid-model"]:not([hidden])');
    expect(await page.textContent("#error-message")).toMatch(/models\/nothing.*model_index\.json/);
    expect(await page.textContent("#error-advice")).toContain("model URL");
  });

  test(
    "a worker that cannot start, or dies, is reported, and the next picture starts anew",
    { timeout: SLOW_MS },
    async () => {
      const page = await openPage({ prompt: PROMPT, seed: SEED, steps: 50 });
      await page.route("**/engine.worker*", (route) => route.abort());
      await page.click("#generate");
      await page.waitForSelector('#error[data-code="unsupported"]:not([hidden])');
      expect(await page.textContent("#error-message")).toContain("worker script could not be started");
      await page.unroute("**/engine.worker*");

      await page.click("#generate");
      await page.waitForSelector('#app[data-state="generating"]');
      await page.workers()[0].evaluate(
        () =>
          void setTimeout(() => {
            throw new Error("out of luck");
          }),
      );
      await page.waitForSelector('#error[data-code="device-lost"]:not([hidden])');
      expect(await page.textContent("#error-message")).toContain("out of luck");

      await page.fill("#steps", "1");
      await makePicture(page);
    },
  );

  test("a prompt that is too long gives a picture and a warning with what was cut", { timeout: SLOW_MS }, async () => {
    const page = await openPage({ prompt: `${"a red house by the sea ".repeat(20)}windmill` });
    await makePicture(page);
    expect(await page.textContent("#warnings")).toContain("windmill");
  });
});

describe("without WebGPU", () => {
  inBrowser("none");

  test(
    "the page says so and offers the WebAssembly backend, which makes the picture",
    { timeout: 2 * SLOW_MS },
    async () => {
      const page = await openPage({ prompt: PROMPT, seed: SEED, precision: "fp32" });
      await page.waitForSelector("#error:not([hidden])");
      expect(await page.getAttribute("#error", "data-code")).toMatch(/^no-(webgpu|adapter)$/);
      expect(await page.textContent("#error-message")).toMatch(/hardware acceleration|no WebGPU/);
      await page.screenshot({ path: path.join(RESULTS, "app-without-webgpu.png") });

      await page.click("#use-wasm");
      await page.waitForSelector("#picture:not([hidden])");
      await isIdle(page);
      const flags = { prompt: PROMPT, seed: SEED, precision: "fp32", model: "models/postcard" };
      const difference = psnr(await canvasPixels(page), await commandLinePicture("app-command-line-2", flags));
      console.log(`onnxruntime-web (wasm) against command line, fp32: ${difference.toFixed(1)} dB`);
      expect(difference).toBeGreaterThanOrEqual(45);
    },
  );
});

const noLavapipe = await lavapipeMissing();
const lavapipeRequired = Boolean(process.env.CI) && process.env.MIXDQ_REQUIRE_LAVAPIPE === "1";

describe.skipIf(noLavapipe && !lavapipeRequired)(`on lavapipe${noLavapipe ? ` (${noLavapipe})` : ""}`, () => {
  inBrowser("lavapipe");

  test("with shader-f16, the fp16 picture is the command line's", { timeout: 2 * SLOW_MS }, async () => {
    const page = await openPage({ prompt: PROMPT, seed: SEED });
    const picture = await makePicture(page);
    // A lost f16 adapter must fail here, not quietly test SwiftShader twice.
    expect(await page.textContent("#info-machine")).toContain("shader-f16");
    const flags = { prompt: PROMPT, seed: SEED, precision: "fp16", model: "models/postcard" };
    const difference = psnr(picture, await commandLinePicture("app-command-line-fp16", flags));
    console.log(`page on lavapipe against command line, fp16: ${difference.toFixed(1)} dB`);
    expect(difference).toBeGreaterThanOrEqual(40);
  });
});
