/** A Chromium on the fault suite's page, and how its tests speak to it. */
import path from "node:path";
import type { Browser, BrowserContext, CDPSession, Page, Worker } from "playwright";
import { expect } from "vitest";
import type { EngineOptions, GenerateOptions } from "../../src/base/types.ts";
import { type BrowserAdapter, launchBrowser, lavapipeMissing } from "../browser.ts";
import { NEVER_MS } from "../clock.ts";
import type { Faults, Moment, Outcome } from "./page.ts";
import { FaultServer } from "./server.ts";

declare global {
  interface Window {
    faults: Faults;
    gpuLive: GpuLive;
  }
}

interface GpuLive {
  counts: Counts;
  fail(label: string | undefined): void;
}

export interface Counts {
  readonly devices: number;
  readonly buffers: number;
  readonly bytes: number;
}

/** The smallest whole pipeline of the reference models; its pictures take some ten milliseconds. */
export const MODEL = path.join(import.meta.dirname, "../golden/sd21-turbo");
/** What Playwright can send to a page. */
type Sent = Omit<GenerateOptions, "image" | "mask">;

export const REQUEST: Sent = { prompt: "a red house", seed: 7, width: 64, height: 64, numInferenceSteps: 2 };

/** A picture that takes long enough for something to happen in it. */
export const LONG: Sent = { ...REQUEST, numInferenceSteps: 1000 };

/** Compiles in a fraction of SwiftShader's time; the faults are the browser's and ours, not the adapter's. */
const ADAPTER: BrowserAdapter = (await lavapipeMissing()) === undefined ? "lavapipe" : "swiftshader";

export const launch = (): Promise<Browser> => launchBrowser(ADAPTER);

export async function startServer(models: ReadonlyMap<string, string>): Promise<{ server: FaultServer; url: string }> {
  const server = new FaultServer(models);
  return { server, url: await server.start() };
}

/** One tab of the suite's page. */
export class Tab {
  readonly page: Page;
  readonly #url: string;
  /** Errors that nobody caught, on the page or in a worker. */
  readonly complaints: string[] = [];

  private constructor(page: Page, url: string) {
    this.page = page;
    this.#url = url;
    page.setDefaultTimeout(NEVER_MS);
    page.on("pageerror", ({ message }) => this.complaints.push(message));
  }

  static async open(where: Browser | BrowserContext, url: string): Promise<Tab> {
    const tab = new Tab(await where.newPage(), url);
    await tab.page.goto(url);
    return tab;
  }

  options(options: Partial<EngineOptions> = {}): EngineOptions {
    return { model: `${this.#url}models/m`, precision: "fp32", ...options };
  }

  create(name = "a", options: Partial<EngineOptions> = {}, abort?: Moment): Promise<Outcome> {
    return this.page.evaluate(([name, options, abort]) => window.faults.create(name, options, abort), [
      name,
      this.options(options),
      abort,
    ] as const);
  }

  generate(request: Sent = REQUEST, name = "a", abort?: Moment): Promise<Outcome> {
    return this.page.evaluate(([name, request, abort]) => window.faults.generate(name, request, abort), [
      name,
      request,
      abort,
    ] as const);
  }

  /** The picture that everybody makes, which is `digest`. */
  async expectPicture(digest: string, name = "a"): Promise<void> {
    expect(await this.generate(REQUEST, name)).toEqual({ code: "ok", message: "", digest });
  }

  dispose(name = "a"): Promise<Outcome> {
    return this.page.evaluate((name) => window.faults.dispose(name), name);
  }

  /** Waits until loads and pictures have said this, from now on so many times. */
  async event(pattern: RegExp, times = 1): Promise<void> {
    const from = (await this.page.evaluate(() => window.faults.events)).length;
    await this.page.waitForFunction(
      ([source, from, times]) =>
        window.faults.events.slice(from).filter((event) => new RegExp(source).test(event)).length >= times,
      [pattern.source, from, times] as const,
      { polling: 1 },
    );
  }

  /** What lives in all workers of the page, and on the page itself. */
  async counts(): Promise<Counts> {
    const all = await Promise.all([
      this.page.evaluate(() => window.gpuLive.counts),
      ...this.page.workers().map((worker) => worker.evaluate(() => (self as unknown as Window).gpuLive.counts)),
    ]);
    const sum = (key: keyof Counts): number => all.reduce((total, counts) => total + counts[key], 0);
    return { devices: sum("devices"), buffers: sum("buffers"), bytes: sum("bytes") };
  }

  /** The worker of the only engine. */
  worker(): Worker {
    const workers = this.page.workers();
    expect(workers).toHaveLength(1);
    return workers[0];
  }

  async expectNoWorkers(): Promise<void> {
    await expect.poll(() => this.page.workers().length, { timeout: NEVER_MS }).toBe(0);
  }

  /** Everything that an engine has is gone. */
  async expectNothingLeft(): Promise<void> {
    await this.expectNoWorkers();
    expect(await this.counts()).toEqual({ devices: 0, buffers: 0, bytes: 0 });
    expect(this.complaints).toEqual([]);
  }

  devtools(): Promise<CDPSession> {
    return this.page.context().newCDPSession(this.page);
  }

  /** Bytes of JavaScript's objects and buffers after a garbage collection, on the page and in the only engine's worker. */
  async heaps(): Promise<{ page: number; worker: number }> {
    const devtools = await this.devtools();
    const bytes = async (send: (method: string) => Promise<unknown>): Promise<number> => {
      await send("HeapProfiler.collectGarbage");
      const usage = (await send("Runtime.getHeapUsage")) as { usedSize: number; backingStorageSize?: number };
      return usage.usedSize + (usage.backingStorageSize ?? 0);
    };
    const page = await bytes((method) => devtools.send(method as never));
    const answers = new Map<number, (result: unknown) => void>();
    devtools.on("Target.receivedMessageFromTarget", ({ message }) => {
      const { id, result } = JSON.parse(message) as { id: number; result: unknown };
      answers.get(id)?.(result);
    });
    const attached = new Promise<string>((resolve) =>
      devtools.on("Target.attachedToTarget", ({ sessionId }) => resolve(sessionId)),
    );
    await devtools.send("Target.setAutoAttach", { autoAttach: true, waitForDebuggerOnStart: false, flatten: false });
    const sessionId = await attached;
    const worker = await bytes(
      (method) =>
        new Promise((resolve) => {
          const id = answers.size + 1;
          answers.set(id, resolve);
          void devtools.send("Target.sendMessageToTarget", { sessionId, message: JSON.stringify({ id, method }) });
        }),
    );
    await devtools.detach();
    return { page, worker };
  }
}

/** Numbers from 0 to 1 by chance, the same for the same seed. */
export function chance(seed: number): () => number {
  return () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}
