/** The React hook in a page of its own, in a real Chromium: one engine at a time, and none afterwards. */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { Browser, Page } from "playwright";
import { build } from "vite";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { MixdqStatus, UseMixdqOptions } from "../src/react.ts";
import type { GenerateOptions } from "../src/base/types.ts";
import { launchBrowser } from "./browser.ts";
import { outDirOf } from "./outDir.ts";
import { RESULTS, canvasPixels, commandLinePicture, psnr } from "./picture.ts";
import type { Steered } from "./react/page.tsx";
import { type ServedPage, servePage } from "./serve.ts";
import { NEVER_MS } from "./clock.ts";

const PROMPT = "a blue tent by a lake";
const SEED = 7;
const MODEL = "../models/postcard";

/** Of the same kernels on the same kind of adapter in another process, as in app.spec.ts. */
const LEAST_DB = 80;

const ROOT = path.resolve(import.meta.dirname, "..");
const outDir = outDirOf("e2e-react");
let served: ServedPage;
let browser: Browser;
let page: Page;
/** What React and the page complained of. */
const complaints: string[] = [];

beforeAll(async () => {
  await mkdir(RESULTS, { recursive: true });
  served = await servePage();
  await build({
    root: ROOT,
    configFile: path.join(ROOT, "vite.config.ts"),
    logLevel: "error",
    define: { "process.env.NODE_ENV": '"development"' }, // in production StrictMode does nothing
    build: {
      outDir,
      emptyOutDir: true,
      rolldownOptions: {
        input: path.join(import.meta.dirname, "react/page.tsx"),
        output: { entryFileNames: "page.js" },
      },
    },
  });
  browser = await launchBrowser("swiftshader");
  page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(NEVER_MS / 2);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  await page.route(`${served.url}embed/**`, (route) => {
    const name = new URL(route.request().url()).pathname.replace(/^\/embed\//, "");
    if (name !== "") return route.fulfill({ path: path.join(outDir, name) });
    const body = `<!doctype html><title>react</title><link rel="icon" href="data:,"><div id="root"></div><script type="module" src="page.js"></script>`;
    return route.fulfill({ body, contentType: "text/html" });
  });
  await page.goto(`${served.url}embed/`);
});
afterAll(async () => {
  await browser?.close();
  await served?.close();
});

const show = (options: UseMixdqOptions | undefined): Promise<void> =>
  page.evaluate((options) => (window as unknown as Steered).show(options), options);

const workers = (): Promise<Steered["workers"]> => page.evaluate(() => (window as unknown as Steered).workers);

/** What becomes of a picture: its seed, or the code with which it fails. */
const generate = (options: Omit<GenerateOptions, "image" | "mask">): Promise<number | string> =>
  page.evaluate(
    (options) =>
      (window as unknown as Steered).mixdq.generate(options).then(
        ({ seed }) => seed,
        ({ code }) => code,
      ),
    options,
  );

const becomes = (status: MixdqStatus) => page.waitForSelector(`output[data-status="${status}"]`);

// One story, because every engine compiles its kernels anew.
test(
  "StrictMode, pictures, another precision, a model that is missing, unmounting: never two engines, at last none",
  { timeout: NEVER_MS },
  async () => {
    await show({ model: MODEL, precision: "fp16" });
    await becomes("ready");
    expect(await page.evaluate(() => (window as unknown as Steered).mounts)).toBe(2);
    expect(await workers()).toEqual({ made: 1, live: 1, most: 1 });

    expect(await generate({ prompt: PROMPT, seed: SEED })).toBe(SEED);
    await page.waitForSelector(`canvas[data-seed="${SEED}"]`);
    const expected = await commandLinePicture({
      prompt: PROMPT,
      seed: SEED,
      precision: "fp16",
      adapter: "swiftshader",
    });
    const likeness = psnr(await canvasPixels(page), expected);
    console.log(`hook against command line, fp16: ${likeness.toFixed(1)} dB`);
    expect(likeness).toBeGreaterThanOrEqual(LEAST_DB);

    const first = generate({ prompt: PROMPT, seed: 1, numInferenceSteps: 50 });
    await page.waitForSelector('output[data-status="generating"][data-stage="step"]');
    const second = generate({ prompt: PROMPT, seed: 2 });
    expect(await first).toBe("aborted");
    expect(await second).toBe(2);
    await page.waitForSelector('output[data-status="ready"] + canvas[data-seed="2"]');
    expect((await workers()).made).toBe(1);

    const third = generate({ prompt: PROMPT, seed: 3, numInferenceSteps: 50 });
    await page.waitForSelector('output[data-stage="step"]');
    await show({ model: MODEL, precision: "fp32" });
    expect(await third).toBe("aborted");
    await page.waitForSelector('output[data-status="loading"] + canvas[data-seed="2"]');
    await becomes("ready");
    expect(await page.evaluate(() => (window as unknown as Steered).mixdq.engine?.info.precision)).toBe("fp32");
    expect(await workers()).toEqual({ made: 2, live: 1, most: 1 });

    await show({ model: "../models/nothing" });
    await becomes("error");
    const message = /^invalid-model: .*models\/nothing.*model_index\.json/;
    expect(await page.textContent("output")).toMatch(message);
    expect(await generate({ prompt: PROMPT })).toBe("invalid-model");
    expect(await workers()).toMatchObject({ live: 0, most: 1 });
    await expect.poll(() => page.workers().length, { timeout: 10_000 }).toBe(0);

    // Unmounted with its model half loaded.
    const { made } = await workers();
    const asked = new Promise<void>((resolve) => {
      void page.route("**/unet/*.safetensors", () => resolve()); // which is all the answer it gets
    });
    await show({ model: MODEL });
    await asked;
    expect(await workers()).toMatchObject({ made: made + 1, live: 1 });
    await show(undefined);
    await expect.poll(workers, { timeout: 10_000 }).toEqual({ made: made + 1, live: 0, most: 1 });
    await expect.poll(() => page.workers().length, { timeout: 10_000 }).toBe(0);
    // A file that a browser looks for in vain is its complaint, not React's.
    expect(complaints.filter((text) => !text.startsWith("Failed to load resource"))).toEqual([]);
  },
);
