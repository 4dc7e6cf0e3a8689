/** The report of `mixdq allocate`, as somebody opens it who was sent the file: from disk, in a real browser, offline. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { encode } from "fast-png";
import type { Browser, Page } from "playwright";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { allocate as solve } from "../src/mixdq/allocation/allocate.ts";
import { baselines } from "../src/mixdq/allocation/baselines.ts";
import type { Choice } from "../src/mixdq/allocation/choice.ts";
import { makeRandom } from "../src/mixdq/allocation/random.ts";
import { renderReport, type ReportInput } from "../src/mixdq/report/report.ts";
import { sampleChoice } from "../src/mixdq/report/samples.testing.ts";
import { sampleSensitivity } from "../src/mixdq/allocation/samples.testing.ts";
import { writeSensitivity, type Sensitivity } from "../src/mixdq/allocation/sensitivity.ts";
import { sweep } from "../src/mixdq/allocation/sweep.ts";
import { allocate } from "../src/cli/allocate/allocate.ts";
import { NEVER_MS } from "./clock.ts";
import { launchBrowser } from "./browser.ts";
import { RESULTS } from "./picture.ts";

const WIDE = 1280;
const NARROW = 390;
const MOST_BYTES = 3e6;
const PAIRS = 12;

const folder = mkdtempSync(path.join(os.tmpdir(), "mixdq-report-"));
const at = (name: string): string => path.join(folder, name);
let browser: Browser;

beforeAll(async () => {
  mkdirSync(RESULTS, { recursive: true });
  browser = await launchBrowser("none");
});
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await browser?.close();
});

/** The whole of a small UNet: down, middle and up, transformers of one and of several blocks, samplers, both ends. */
function wholeSensitivity(): Sensitivity {
  const sample = sampleSensitivity(3, 8);
  const layers = new Map(sample.layers);
  const ofQuality = [...sample.layers.values()].find(({ group }) => group === "quality")!;
  for (const [name, layer] of sample.layers) {
    layers.set(name.replace("down_blocks", "up_blocks"), layer);
    if (name.startsWith("down_blocks.0")) layers.set(name.replace("down_blocks.0", "mid_block"), layer);
    if (name.startsWith("down_blocks.2"))
      layers.set(name.replace("transformer_blocks.0", "transformer_blocks.1"), layer);
  }
  const blocks = ["down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.2", "mid_block"];
  const around = blocks.flatMap((block) =>
    [0, 1].flatMap((i) => ["proj_in", "proj_out"].map((name) => `${block}.attentions.${i}.${name}`)),
  );
  const samplers = ["down_blocks.0.downsamplers.0.conv", "up_blocks.0.upsamplers.0.conv"];
  const ends = ["conv_in", "time_embedding.linear_1", "add_embedding.linear_1", "conv_out"];
  for (const name of [...around, ...samplers, ...ends]) layers.set(name, ofQuality);
  return { ...sample, model: "a small model", layers };
}

/** A picture of noise, as large as a PNG of its size can be. */
function noise(seed: number): Uint8Array {
  const random = makeRandom(seed);
  const data = Uint8Array.from({ length: 128 * 128 * 3 }, () => 256 * random());
  return encode({ width: 128, height: 128, data, channels: 3, depth: 8 });
}

type Input = ReportInput & { choice: Choice };

interface Opened {
  readonly page: Page;
  /** What the page asked for. */
  readonly requests: readonly string[];
  readonly complaints: readonly string[];
}

async function open(file: string, width: number, scheme: "light" | "dark" = "light"): Promise<Opened> {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: scheme, offline: true });
  const page = await context.newPage();
  page.setDefaultTimeout(NEVER_MS);
  const [requests, complaints]: string[][] = [[], []];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(pathToFileURL(file).href, { waitUntil: "load" });
  return { page, requests, complaints };
}

/** Fails for whatever somebody would see on any report. */
async function checkPage({ page, requests, complaints }: Opened, file: string): Promise<void> {
  await page.evaluate(() => document.fonts.ready);
  const own = pathToFileURL(file).href;
  expect(requests.filter((url) => !url.startsWith("data:"))).toEqual([own]);
  expect(complaints).toEqual([]);
  const [content, viewport] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  expect(content).toBe(viewport);
  const small = await page.locator("section, h2, figure, svg:visible, table").evaluateAll((all) =>
    all.flatMap((element) => {
      const { width, height } = element.getBoundingClientRect();
      return width > 40 && height > 10 ? [] : [`${element.outerHTML.slice(0, 80)}: ${width} x ${height}`];
    }),
  );
  expect(small).toEqual([]);
}

/** Texts of one picture that run into each other or out of it. (Those at an angle are left out.) */
function textsInTheWay(page: Page): Promise<string[]> {
  return page.locator("svg").evaluateAll((pictures) =>
    pictures.flatMap((picture) => {
      const frame = picture.getBoundingClientRect();
      const texts = [...picture.querySelectorAll("text")].flatMap((text) => {
        const matrix = text.getCTM()!;
        return Math.abs(matrix.b) > 1e-6 ? [] : [{ says: text.textContent, box: text.getBoundingClientRect() }];
      });
      const out = texts.filter(
        ({ box }) =>
          box.left < frame.left - 1 ||
          box.right > frame.right + 1 ||
          box.top < frame.top - 1 ||
          box.bottom > frame.bottom + 1,
      );
      const pairs = texts.flatMap((a, i) =>
        texts
          .slice(i + 1)
          .filter(
            ({ box }) =>
              Math.min(box.right, a.box.right) - Math.max(box.left, a.box.left) > 0.5 &&
              Math.min(box.bottom, a.box.bottom) - Math.max(box.top, a.box.top) > 3,
          )
          .map((b) => `${a.says} on ${b.says}`),
      );
      const where = picture.getAttribute("aria-label");
      return [...out.map(({ says }) => `${where}: ${says} is cut`), ...pairs.map((pair) => `${where}: ${pair}`)];
    }),
  );
}

test("made by the command, with pictures: whole, legible, and nothing asked of a network", async () => {
  const sensitivity = wholeSensitivity();
  writeFileSync(at("sensitivity.json"), writeSensitivity(sensitivity));
  mkdirSync(at("pictures"));
  for (let pair = 0; pair < PAIRS; pair++)
    for (const [i, side] of ["fp16", "quantized"].entries())
      writeFileSync(at(`pictures/a "red" house & <b>sky<b> ${pair}.${side}.png`), noise(2 * pair + i));
  const file = at("report.html");
  const streams = (["log", "error"] as const).map((stream) => vi.spyOn(console, stream).mockImplementation(() => {}));
  await allocate([
    ...["--sensitivity", at("sensitivity.json"), "--weight-bits", "4.5", "--out", at("mixdq.json")],
    ...["--report", file, "--pictures", at("pictures")],
  ]);
  for (const stream of streams) stream.mockRestore();
  expect(statSync(file).size).toBeLessThan(MOST_BYTES);

  const opened = await open(file, WIDE);
  const { page } = opened;
  await checkPage(opened, file);
  expect(await page.title()).toContain("a small model");
  expect(await page.locator("h2").allTextContents()).toEqual([
    "Bits by layer",
    "The sweep, its front, and the baselines",
    "The chosen configuration",
    "Sensitivity",
    "Pictures: FP16, and quantized",
  ]);
  expect(await page.locator("svg:visible").count()).toBe(7); // the map, two of the sweep, two of each group
  expect(await textsInTheWay(page)).toEqual([]);
  for (const label of ["chosen", "uniform 4-bit", "naive sorting", "SQNR only", "random", "perturbed"])
    expect(await page.locator("svg text").filter({ hasText: label }).count(), label).toBe(2);
  expect(await page.locator("svg text").filter({ hasText: "8 bits" }).count()).toBe(4); // legends

  const { layers } = JSON.parse(readFileSync(at("mixdq.json"), "utf8"));
  const cells = await page
    .locator(".map .cell")
    .evaluateAll((all) =>
      all.map((cell) => [cell.querySelector("title")!.textContent!.split("\n")[0], cell.classList[1]]),
    );
  expect(Object.fromEntries(cells)).toEqual(
    Object.fromEntries([...sensitivity.layers.keys()].map((name) => [name, `b${layers[name].weightBits}`])),
  );
  expect(cells).toHaveLength(sensitivity.layers.size);
  const boxes = await page.locator(".map .cell rect").evaluateAll((all) =>
    all.map((cell) => {
      const { x, y, width, height } = cell.getBoundingClientRect();
      return {
        place: `${x.toFixed(1)} ${y.toFixed(1)}`,
        isShown: width > 5 && height > 5,
        fill: getComputedStyle(cell).fill,
      };
    }),
  );
  expect(new Set(boxes.map(({ place }) => place)).size).toBe(boxes.length);
  expect(boxes.every(({ isShown }) => isShown)).toBe(true);
  const fills = new Set(boxes.map(({ fill }) => fill));
  expect(fills.size).toBe(new Set(cells.map(([, bits]) => bits)).size);

  const images = await page.locator("img").evaluateAll((all) =>
    (all as HTMLImageElement[]).map(({ complete, naturalWidth, width, alt }) => ({
      isThere: complete && naturalWidth === 128 && width > 50,
      alt,
    })),
  );
  expect(images.every(({ isThere }) => isThere)).toBe(true);
  expect(images.map(({ alt }) => alt)).toContain('a "red" house & <b>sky<b> 11, quantized');
  expect(images).toHaveLength(2 * PAIRS);
  await page.screenshot({ path: path.join(RESULTS, "report.png"), fullPage: true });

  const narrow = await open(file, NARROW);
  await checkPage(narrow, file);
  await narrow.page.screenshot({ path: path.join(RESULTS, "report-narrow.png"), fullPage: true });
});

/** A report with the choice, made without the command. `change`: of what it is made of. */
async function writeChoice(name: string, change: (made: Input) => Input = (made) => made): Promise<[string, Input]> {
  const sensitivity = wholeSensitivity();
  const weightBits = 4.5;
  const allocation = await solve(sensitivity, { weightBits, certify: false });
  const { programs, chosen } = allocation.weights;
  const points = await sweep(programs, weightBits);
  const bits = new Map(chosen.groups.flatMap((group) => [...group.bits]));
  const others = await baselines(programs, sensitivity.layers, bits, weightBits, 0);
  const choice = await sampleChoice(programs, points, others);
  const input = change({ sensitivity, allocation, weightBits, points, baselines: others, choice });
  writeFileSync(at(name), await renderReport(input));
  return [at(name), input];
}

test("with the choice by pictures: its chart, its table and the measured figures, in light and dark", async () => {
  const [file, { choice }] = await writeChoice("choice.html");
  for (const [scheme, width] of [
    ["light", WIDE],
    ["dark", WIDE],
    ["light", NARROW],
  ] as const) {
    const opened = await open(file, width, scheme);
    const { page } = opened;
    await checkPage(opened, file);
    const section = page.locator("section").filter({ hasText: "Choice by pictures" });
    expect(await section.locator("svg:visible").count()).toBe(1);
    expect(await section.locator("tbody tr").count()).toBe(choice.trials.length + choice.baselines.length);
    // The chosen one's row alone is bold.
    const weights = await section
      .locator("tbody td:first-child")
      .evaluateAll((all) => all.map((cell) => getComputedStyle(cell).fontWeight));
    expect(weights.map((weight) => Number(weight) > 500)).toEqual(weights.map((_, i) => i === 0));
    const ssim = choice.trials[0].scores.ssim.value.toFixed(4);
    expect(await page.locator(".tiles b").allTextContents()).toContain(ssim);
    expect(await section.locator("tbody tr").first().textContent()).toContain(ssim);
    // Marks have the page's colours, which differ from the card's.
    const colors = await section.evaluate((element) => ({
      marks: [...element.querySelectorAll("svg path")].map((mark) => getComputedStyle(mark).fill),
      card: getComputedStyle(element).backgroundColor,
      labels: [...element.querySelectorAll("svg text")].map((text) => getComputedStyle(text).fill),
    }));
    expect(colors.labels).not.toContain(colors.card);
    expect(colors.marks.filter((color) => color === colors.card)).toEqual([]);
    if (width === WIDE) expect(await textsInTheWay(page)).toEqual([]);
    await section.screenshot({ path: path.join(RESULTS, `report-choice-${scheme}-${width}.png`) });
  }
});

test("labels of marks that lie in one place stand apart", async () => {
  const [file] = await writeChoice("crowded.html", (made) => {
    const { name: _, ...first } = made.baselines[0];
    const { name: __, ...firstTrial } = made.choice.baselines[0];
    return {
      ...made,
      baselines: made.baselines.map((baseline) => ({ ...baseline, ...first })),
      choice: { ...made.choice, baselines: made.choice.baselines.map((trial) => ({ ...trial, ...firstTrial })) },
    };
  });
  const { page } = await open(file, WIDE);
  for (const label of ["chosen", "uniform 4-bit", "naive sorting", "random"])
    expect(await page.locator("svg text").filter({ hasText: label }).count()).toBe(3);
  expect(await textsInTheWay(page)).toEqual([]);
});
