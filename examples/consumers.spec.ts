/**
 * Every bundler that the package is to work in, by its example: installed from the tarball, built, and its picture drawn in
 * Chromium. A row whose packages npm cannot get here counts as skipped and says why.
 */
import { cpSync, readFileSync } from "node:fs";
import path from "node:path";
import type { Browser } from "playwright";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launchBrowser } from "../e2e/browser.ts";
import {
  buildExample,
  exampleConsumer,
  pack,
  type Packed,
  removeFolders,
  ROOT,
  startVite,
} from "../e2e/consumers/consumer.ts";
import { drawn, LEAST_DB, likeness, MODEL } from "../e2e/consumers/drawn.ts";
import { serveSite } from "../e2e/consumers/site.ts";

interface Row {
  readonly title: string;
  readonly example: string;
  /** Of its packages, instead of those that it names. */
  readonly versions?: Readonly<Record<string, string>>;
  /** What its build is served from; "dev": Vite's development server. */
  readonly site: "." | "dist" | "out" | "dev";
  /** file: emitted by the bundler. text: from the copy of its text, because the bundler leaves it behind. */
  readonly worker: "file" | "text";
}

const ROWS: readonly Row[] = [
  { title: "webpack 5", example: "webpack", site: ".", worker: "file" },
  { title: "esbuild", example: "esbuild", site: ".", worker: "text" },
  { title: "Rollup", example: "rollup", site: ".", worker: "text" },
  { title: "Next 16 (Turbopack)", example: "next", site: "out", worker: "file" },
  { title: "Vite 5", example: "vite", versions: { vite: "^5.4.0" }, site: "dist", worker: "file" },
  { title: "Vite 6", example: "vite", versions: { vite: "^6.0.0" }, site: "dist", worker: "file" },
  { title: "Vite 7", example: "vite", versions: { vite: "^7.0.0" }, site: "dist", worker: "file" },
  { title: "Vite 8", example: "vite", site: "dist", worker: "file" },
  { title: "Vite 5, development", example: "vite", versions: { vite: "^5.4.0" }, site: "dev", worker: "text" },
  { title: "Vite 8, development", example: "vite", site: "dev", worker: "text" },
];

/** A software GPU compiles kernels meanwhile, and npm may have to fetch 150 MB. */
const SLOW_MS = 600_000;

let browser: Browser;
let packed: Packed;

beforeAll(async () => {
  packed = await pack(ROOT);
  browser = await launchBrowser("swiftshader");
});
afterAll(async () => {
  await browser?.close();
  removeFolders();
});

test("the bundlers' examples have one program", () => {
  const program = (example: string) => readFileSync(path.join(ROOT, "examples", example, "main.js"), "utf8");
  for (const example of ["webpack", "esbuild", "rollup"]) expect(program(example)).toBe(program("vite"));
  const picture = (file: string) => readFileSync(path.join(ROOT, "examples", file), "utf8");
  expect(picture("next/app/Picture.jsx")).toBe(`"use client";\n\n${picture("react/Picture.jsx")}`);
});

describe("the package, installed from its tarball, draws in", () => {
  // Two at a time: one waits for npm while the other computes.
  test.concurrent.for(ROWS)("$title", { timeout: SLOW_MS }, async ({ example, versions, site, worker }, { skip }) => {
    const found = await exampleConsumer(packed, example, versions);
    if ("missing" in found) return skip(found.missing);
    const served = site === "dev" ? await developed(found.folder) : await built(found.folder, site);
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.goto(served.url);
      expect(await likeness(await drawn(page))).toBeGreaterThanOrEqual(LEAST_DB);
      expect(page.workers().map((each) => (each.url().startsWith("blob:") ? "text" : "file"))).toEqual([worker]);
    } finally {
      await context.close();
      await served.close();
    }
  });
});

async function built(folder: string, site: string): Promise<{ url: string; close(): Promise<void> }> {
  await buildExample(folder);
  return serveSite(path.join(folder, site), MODEL);
}

async function developed(folder: string): Promise<{ url: string; close(): Promise<void> }> {
  cpSync(MODEL, path.join(folder, "public/models/postcard"), { recursive: true });
  return startVite(folder);
}
