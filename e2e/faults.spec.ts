/**
 * Faults of the GPU, the worker and the tab in a real Chromium. After each: one typed error or a picture, nothing left over
 * (devices, buffers, workers), and the same picture as ever. Bounds are in work; the only clock is the one that finds
 * what never ends. MIXDQ_FAULT_ABORTS scales the tests of aborts (50 in BENCHMARKS.md).
 */
import type { Browser } from "playwright";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { NEVER_MS } from "./clock.ts";
import { chance, launch, LONG, MODEL, REQUEST, startServer, Tab } from "./faults/harness.ts";
import type { FaultServer } from "./faults/server.ts";

const ABORTS = Number(process.env["MIXDQ_FAULT_ABORTS"] ?? 10);

let server: FaultServer;
let url: string;
let browser: Browser;
/** SHA-256 of the picture that everybody makes. */
let digest: string;

beforeAll(async () => {
  ({ server, url } = await startServer(new Map([["m", MODEL]])));
  browser = await launch();
  const tab = await Tab.open(browser, url);
  expect(await tab.create()).toMatchObject({ code: "ok" });
  digest = (await tab.generate()).digest!;
  await tab.page.close();
});
beforeEach(() => server.reset());
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});
afterAll(async () => {
  await browser?.close();
  server?.close();
});

async function loaded(options = {}): Promise<Tab> {
  const tab = await Tab.open(browser, url);
  expect(await tab.create("a", options)).toMatchObject({ code: "ok" });
  return tab;
}

describe("the GPU process is killed", { timeout: 2 * NEVER_MS }, () => {
  /** In a browser of its own: after a few crashes Chromium does without a GPU altogether. */
  async function inOwnBrowser(work: (tab: Tab, kill: () => Promise<void>) => Promise<void>): Promise<void> {
    const own = await launch();
    try {
      const devtools = await own.newBrowserCDPSession();
      const kill = (): Promise<void> => devtools.send("Browser.crashGpuProcess" as never).then(() => {});
      const tab = await Tab.open(own, url);
      await work(tab, kill);
      expect(tab.complaints).toEqual([]);
    } finally {
      await own.close();
    }
  }
  const begin = (tab: Tab, work: "create" | "generate", options: object): Promise<void> =>
    tab.page.evaluate(([work, options]) => window.faults.begin("doomed", work, "a", options as never), [
      work,
      options,
    ] as const);
  const ended = (tab: Tab) => tab.page.evaluate(() => window.faults.ended("doomed"));

  test.each([
    ["while weights arrive", /^download unet/],
    ["while the last kernels compile", /^download vae/],
  ] as const)("%s", async (_, moment) => {
    await inOwnBrowser(async (tab, kill) => {
      const seen = tab.event(moment);
      await begin(tab, "create", tab.options());
      await seen;
      await kill();
      const outcome = await ended(tab);
      if (outcome.code === "ok") {
        // It was loaded before the process had died: then the picture is what fails.
        expect(await tab.generate()).toMatchObject({ code: "device-lost" });
        await tab.dispose();
      } else expect(outcome).toMatchObject({ code: "device-lost" });
      await tab.expectNothingLeft();
      expect(await tab.create()).toMatchObject({ code: "ok" });
      await tab.expectPicture(digest);
    });
  });

  test.each([
    ["at the first sign of a picture", /^encode/, 1],
    ["between two steps", /^step/, 20],
  ] as const)("%s", async (_, moment, times) => {
    await inOwnBrowser(async (tab, kill) => {
      await tab.create();
      const seen = tab.event(moment, times);
      await begin(tab, "generate", LONG);
      await seen;
      await kill();
      expect(await ended(tab)).toMatchObject({
        code: "device-lost",
        message: expect.stringContaining("Create the engine again"),
      });
      expect(await tab.generate()).toMatchObject({ code: "device-lost" });
      await tab.dispose();
      await tab.expectNothingLeft();
      expect(await tab.create()).toMatchObject({ code: "ok" });
      await tab.expectPicture(digest);
    });
  });

  test("between two pictures, and a second time: no adapter until the page is loaded again, and we say so", async () => {
    await inOwnBrowser(async (tab, kill) => {
      for (const time of ["first", "second"]) {
        expect(await tab.create(), time).toMatchObject({ code: "ok" });
        await tab.expectPicture(digest);
        await kill();
        expect(await tab.generate(), time).toMatchObject({ code: "device-lost" });
        await tab.dispose();
      }
      expect(await tab.create()).toMatchObject({
        code: "unsupported",
        message: expect.stringContaining("the browser's GPU process has crashed: reload the page"),
      });
      await tab.expectNothingLeft();
      await tab.page.reload();
      expect(await tab.create()).toMatchObject({ code: "ok" });
      await tab.expectPicture(digest);
    });
  });
});

describe("the worker", { timeout: NEVER_MS }, () => {
  test.each(["throws", "is ended from outside"] as const)("%s in a picture: device-lost", async (what) => {
    const tab = await loaded();
    const step = tab.event(/^step/);
    const picture = tab.generate(LONG);
    await step;
    if (what === "throws") await tab.worker().evaluate('setTimeout(() => { throw new Error("out of luck"); })');
    else await tab.page.evaluate(() => window.faults.endWorkers());
    expect(await picture).toMatchObject({
      code: "device-lost",
      message: expect.stringContaining("Create a new engine"),
    });
    expect(await tab.generate()).toMatchObject({ code: "device-lost" });
    await tab.dispose();
    await tab.expectNothingLeft();
    expect(await tab.create()).toMatchObject({ code: "ok" });
    await tab.expectPicture(digest);
  });

  /** Computes for ever, as a driver that hangs does: nothing but its end ends that. */
  const hang = async (tab: Tab): Promise<void> => {
    // A synchronous request says that it has begun, and lets no other message in between. In a task of the worker's own:
    // Chromium does not end a script that its developer tools have started.
    await tab.worker().evaluate(`void setTimeout(() => {
      const request = new XMLHttpRequest();
      request.open("GET", "${url}hanging", false);
      request.send();
      for (;;);
    })`);
    await expect.poll(() => server.requests.includes("hanging"), { timeout: NEVER_MS }).toBe(true);
  };

  test("computes and does not hear that its load is cancelled: it is ended, and nothing is left", async () => {
    const tab = await Tab.open(browser, url);
    server.fault = (file) => file.startsWith("unet/") && file.endsWith(".safetensors"); // which is all the answer it gets
    const asked = expect.poll(() => server.requests.some((file) => /^unet.*safetensors$/.test(file)), {
      timeout: NEVER_MS,
    });
    const loading = tab.create("a", {}, { ms: 60_000 });
    await asked.toBe(true);
    await hang(tab);
    await tab.page.evaluate(() => window.faults.abortAll());
    expect(await loading).toMatchObject({ code: "aborted" });
    await tab.expectNothingLeft();
    server.reset();
    expect(await tab.create()).toMatchObject({ code: "ok" });
    await tab.expectPicture(digest);
  });

  test("computes and does not hear that its picture is cancelled: the next picture loads the model again", async () => {
    const tab = await loaded();
    const step = tab.event(/^step/);
    const picture = tab.generate(LONG);
    await step;
    await hang(tab);
    await tab.page.evaluate(() => window.faults.abortAll());
    expect(await picture).toMatchObject({ code: "aborted" });
    await tab.expectPicture(digest);
    await expect.poll(() => tab.page.workers().length, { timeout: NEVER_MS }).toBe(1); // a browser takes its time, too
    expect(await tab.counts()).toMatchObject({ devices: 1 });
    await tab.dispose();
    await tab.expectNothingLeft();
  });
});

describe("an abort", () => {
  test(`at ${ABORTS} random moments of a picture: the same picture afterwards`, { timeout: 5 * NEVER_MS }, async () => {
    const tab = await loaded();
    await tab.expectPicture(digest);
    const before = await tab.counts();
    const random = chance(1);
    const request = { ...REQUEST, numInferenceSteps: 10 };
    const began = performance.now();
    await tab.generate(request);
    const pictureMs = performance.now() - began;
    const codes: string[] = [];
    for (let i = 0; i < ABORTS; i++) {
      const moment = i % 2 === 0 ? { events: 1 + Math.floor(12 * random()) } : { ms: pictureMs * random() };
      codes.push((await tab.generate(request, "a", moment)).code);
      await tab.expectPicture(digest);
      expect(await tab.counts()).toEqual(before);
    }
    console.log(`${ABORTS} aborts: ${codes.filter((code) => code === "aborted").length} before the picture was there`);
    expect(new Set(codes).has("aborted")).toBe(true);
    expect(codes.filter((code) => code !== "aborted" && code !== "ok")).toEqual([]);
    expect(tab.complaints).toEqual([]);
  });

  test(
    "at random moments of a load: nothing is left, and the next load makes the same picture",
    { timeout: 5 * NEVER_MS },
    async () => {
      const tab = await Tab.open(browser, url);
      const random = chance(2);
      for (let i = 0; i < Math.max(4, ABORTS / 2); i++) {
        const moment = i % 2 === 0 ? { events: 1 + Math.floor(40 * random()) } : { ms: 1500 * random() };
        const { code } = await tab.create("a", {}, moment);
        expect(["aborted", "ok"], JSON.stringify(moment)).toContain(code);
        if (code === "ok") await tab.dispose();
        await tab.expectNothingLeft();
      }
      expect(await tab.create()).toMatchObject({ code: "ok" });
      await tab.expectPicture(digest);
    },
  );

  test(
    "with the next request in the same tick, as typing does: never busy, the newest wins",
    { timeout: NEVER_MS },
    async () => {
      const tab = await loaded();
      const outcomes = await tab.page.evaluate((request) => window.faults.type("a", request, 21, 40), {
        ...REQUEST,
        prompt: "a red house by the lake",
      });
      expect(outcomes).toHaveLength(21);
      expect(outcomes.at(-1)).toMatchObject({ code: "ok" });
      expect(outcomes.filter(({ code }) => code !== "aborted" && code !== "ok")).toEqual([]);
      console.log(`typing: ${outcomes.filter(({ code }) => code === "ok").length} of 21 pictures`);
      await tab.expectPicture(digest);
    },
  );

  test("typing into <mixdq-image> shows pictures, and at last the last prompt's", { timeout: NEVER_MS }, async () => {
    const tab = await Tab.open(browser, url);
    const text = "a red house by the lake";
    const shown = await tab.page.evaluate(
      async ([model, text]) => {
        const element = document.createElement("mixdq-image");
        const attributes = { model, precision: "fp32", seed: "7", width: "64", height: "64", steps: "2" };
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        const shown: string[] = [];
        const labels = (): string | null => element.shadowRoot!.querySelector("canvas")!.ariaLabel;
        element.addEventListener("load", () => shown.push(labels()!));
        element.addEventListener("error", (event) => shown.push(String((event as unknown as CustomEvent).detail)));
        document.body.append(element);
        const until = async (prompt: string): Promise<void> => {
          while (shown.at(-1) !== prompt) await new Promise((resolve) => setTimeout(resolve, 10));
        };
        // The first two say how long a picture takes once its kernels are there.
        for (const prompt of ["once", "twice"]) {
          element.setAttribute("prompt", prompt);
          await until(prompt);
        }
        for (let key = 1; key <= text.length; key++) {
          element.setAttribute("prompt", text.slice(0, key));
          await new Promise((resolve) => setTimeout(resolve, 40));
        }
        await until(text);
        const { image } = element as HTMLElement & { image: { data: Uint8ClampedArray } };
        const rows = { shown, pixels: image.data.length };
        element.remove();
        return rows;
      },
      [`${url}models/m`, text] as const,
    );
    console.log(`typing into the element: ${shown.shown.length - 2} of ${text.length} pictures were shown`);
    expect(shown.shown.at(-1)).toBe(text);
    expect(new Set(shown.shown).size).toBe(shown.shown.length);
    await tab.expectNothingLeft();
  });
});
