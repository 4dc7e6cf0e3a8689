/**
 * What an app does to an engine for a day, in a real Chromium: hundreds of pictures, several engines and tabs, endings in
 * the middle, tabs that sleep, sizes that do not fit. See faults.spec.ts. MIXDQ_FAULT_PICTURES scales the long test (200
 * in BENCHMARKS.md).
 */
import type { Browser } from "playwright";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { NEVER_MS } from "./clock.ts";
import { launch, LONG, MODEL, REQUEST, startServer, Tab } from "./faults/harness.ts";
import type { FaultServer } from "./faults/server.ts";

const PICTURES = Number(process.env["MIXDQ_FAULT_PICTURES"] ?? 40);

/**
 * Bytes by which a heap may grow: code that was compiled meanwhile, and the test's own notes of each picture. One leaked
 * picture is 16 kB of pixels alone.
 */
const HEAP_BYTES = 100_000 + 1500 * PICTURES;

let server: FaultServer;
let url: string;
let browser: Browser;
let digest: string;

beforeAll(async () => {
  ({ server, url } = await startServer(new Map([["m", MODEL]])));
  browser = await launch();
  const tab = await loaded();
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

test(`${PICTURES} pictures: live buffers and both heaps stay as they are`, { timeout: 5 * NEVER_MS }, async () => {
  const tab = await loaded();
  const measure = async () => ({ ...(await tab.heaps()), ...(await tab.counts()) });
  const some = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await tab.expectPicture(digest);
  };
  await some(10);
  const before = await measure();
  await some(PICTURES);
  const after = await measure();
  console.log(`${PICTURES} pictures: ${JSON.stringify({ before, after })}`);
  const { page, worker, ...gpu } = after;
  expect(gpu).toEqual({ devices: before.devices, buffers: before.buffers, bytes: before.bytes });
  expect(page - before.page).toBeLessThan(HEAP_BYTES);
  expect(worker - before.worker).toBeLessThan(HEAP_BYTES);
});

test("two engines on a page work side by side, and one ends without the other", { timeout: NEVER_MS }, async () => {
  const tab = await loaded();
  expect(await tab.create("b")).toMatchObject({ code: "ok" });
  expect(tab.page.workers()).toHaveLength(2);
  const both = await Promise.all([tab.generate(REQUEST, "a"), tab.generate(REQUEST, "b")]);
  expect(both.map((outcome) => outcome.digest)).toEqual([digest, digest]);
  const step = tab.event(/^step/);
  const doomed = tab.generate(LONG, "a");
  await step;
  const [, other] = await Promise.all([tab.dispose("a"), tab.generate(REQUEST, "b")]);
  expect(await doomed).toMatchObject({ code: "aborted" });
  expect(other.digest).toBe(digest);
  await tab.dispose("b");
  await tab.expectNothingLeft();
});

test("two tabs work side by side, and one closes without the other", { timeout: NEVER_MS }, async () => {
  const context = await browser.newContext();
  const tabs = [await Tab.open(context, url), await Tab.open(context, url)] as const;
  const loads = await Promise.all(tabs.map((tab) => tab.create()));
  expect(loads.map(({ code }) => code)).toEqual(["ok", "ok"]);
  const both = await Promise.all(tabs.map((tab) => tab.generate()));
  expect(both.map((outcome) => outcome.digest)).toEqual([digest, digest]);
  const step = tabs[0].event(/^step/);
  tabs[0].generate(LONG).catch(() => {}); // its page closes
  await step;
  await tabs[0].page.close();
  await tabs[1].expectPicture(digest);
});

test("reloaded while it loads: the page begins anew", { timeout: NEVER_MS }, async () => {
  const tab = await Tab.open(browser, url);
  server.fault = (file) => /^unet.*safetensors$/.test(file); // which is all the answer it gets
  const asked = tab.page.waitForRequest(/unet.*safetensors/);
  tab.create().catch(() => {}); // its page goes
  await asked;
  await tab.page.reload();
  server.reset();
  await tab.expectNothingLeft();
  expect(await tab.create()).toMatchObject({ code: "ok" });
  await tab.expectPicture(digest);
});

test("disposed while it makes a picture, twice: aborted, and nothing is left", { timeout: NEVER_MS }, async () => {
  const tab = await loaded();
  const step = tab.event(/^step/);
  const picture = tab.generate(LONG);
  await step;
  const ends = await Promise.all([tab.dispose(), tab.dispose()]);
  expect(ends.map(({ code }) => code)).toEqual(["ok", "ok"]);
  expect(await picture).toMatchObject({ code: "aborted" });
  await tab.expectNothingLeft();
  expect(await tab.generate()).toMatchObject({ code: "invalid-input", message: expect.stringContaining("disposed") });
  expect(await tab.dispose()).toMatchObject({ code: "ok" });
});

test("a tab that is hidden and frozen in a picture goes on when it is shown again", { timeout: NEVER_MS }, async () => {
  const context = await browser.newContext();
  const tab = await Tab.open(context, url);
  await tab.create();
  const devtools = await tab.devtools();
  const long = { ...REQUEST, numInferenceSteps: 100 };
  const expected = await tab.generate(long);
  const step = tab.event(/^step/);
  const picture = tab.generate(long);
  await step;
  const other = await Tab.open(context, url);
  await other.page.bringToFront();
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  await other.page.waitForTimeout(3000);
  await devtools.send("Page.setWebLifecycleState", { state: "active" });
  await tab.page.bringToFront();
  expect(await picture).toEqual(expected);
  await tab.expectPicture(digest);
});

test.each([true, false])(
  "no memory (worker: %s): out-of-memory, then a smaller picture",
  { timeout: NEVER_MS },
  async (worker) => {
    const tab = await loaded({ worker });
    await tab.expectPicture(digest);
    const fail = async (label: string | undefined): Promise<void> => {
      const tell = (label: string | undefined): void => (self as unknown as Window).gpuLive.fail(label);
      await (worker ? tab.worker().evaluate(tell, label) : tab.page.evaluate(tell, label));
    };
    const larger = { ...REQUEST, width: 128, height: 128 };
    for (const label of ["arena", "cache", "uniforms", "read"]) {
      await fail(label);
      const { code, message } = await tab.generate(larger);
      if (label === "cache" && code === "ok") continue; // this model caches nothing
      expect([code, message]).toEqual(["out-of-memory", expect.stringContaining("use a smaller size or precision")]);
      await fail(undefined);
      await tab.expectPicture(digest);
    }
    expect(await tab.generate(larger)).toMatchObject({ code: "ok" });
    await tab.dispose();
    await tab.expectNothingLeft();
  },
);

test("no memory for weights: out-of-memory, and nothing is left", { timeout: NEVER_MS }, async () => {
  const tab = await Tab.open(browser, url);
  for (const label of ["text_encoder weights", "unet weights", "vae weights"]) {
    await tab.page.evaluate((label) => window.gpuLive.fail(label), label);
    expect(await tab.create("a", { worker: false })).toMatchObject({ code: "out-of-memory" });
    await tab.expectNothingLeft();
  }
  await tab.page.evaluate(() => window.gpuLive.fail(undefined));
  expect(await tab.create("a", { worker: false })).toMatchObject({ code: "ok" });
  await tab.expectPicture(digest);
});

test("sizes, steps and seeds that cannot be: a typed error, and the next picture", { timeout: NEVER_MS }, async () => {
  const tab = await loaded();
  const refused = [
    { width: 8192, height: 8192 },
    { width: 2 ** 31 },
    { height: Number.MAX_SAFE_INTEGER },
    { width: -64 },
    { width: 0 },
    { width: 63.5 },
    { width: Number.NaN, height: Number.POSITIVE_INFINITY },
    { numInferenceSteps: 1e9 },
    { numInferenceSteps: 0 },
    { guidanceScale: Number.NaN },
  ];
  for (const change of refused)
    expect(await tab.generate({ ...REQUEST, ...change }), JSON.stringify(change)).toMatchObject({
      code: "invalid-input",
    });
  // Allowed by the model; whether the adapter can hold it is for the adapter to say.
  const { code } = await tab.generate({ ...REQUEST, width: 4096, height: 4096, numInferenceSteps: 1 }, "a", {
    events: 2,
  });
  expect(["unsupported", "out-of-memory", "aborted"]).toContain(code);
  await tab.expectPicture(digest);
  expect(tab.complaints).toEqual([]);
});
