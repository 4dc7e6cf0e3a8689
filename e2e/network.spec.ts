/** What a Chromium does with a model's server: what it asks for, what it keeps, and what it says when there is none. */
import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Browser, Page } from "playwright";
import { createServer, type ViteDevServer } from "vite";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { launchBrowser } from "./browser.ts";
import { type ServedPage, servePage } from "./serve.ts";
import { NEVER_MS } from "./clock.ts";

/** Small enough for the cache of a private window, which is in memory. */
const WEIGHTS = "models/postcard/text_encoder/model.safetensors";

let browser: Browser;
const servers: Server[] = [];

beforeAll(async () => {
  browser = await launchBrowser("swiftshader");
});
afterAll(() => browser?.close());
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** On another origin than the page's. */
async function serve(listener: RequestListener): Promise<string> {
  const server = createHttpServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/m`;
}

describe("the page", () => {
  let served: ServedPage;
  beforeAll(async () => {
    served = await servePage();
  });
  afterAll(() => served?.close());

  /** The page once it has looked around, and all that went wrong meanwhile. */
  async function open(model?: string): Promise<{ page: Page; wrong: string[] }> {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(NEVER_MS);
    const wrong: string[] = [];
    page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
    page.on("pageerror", (error) => wrong.push(error.message));
    page.on("response", (response) => response.status() >= 400 && wrong.push(`${response.status()} ${response.url()}`));
    await page.goto(model === undefined ? served.url : `${served.url}?model=${encodeURIComponent(model)}`);
    return { page, wrong };
  }

  const errorOf = async (page: Page, code: string): Promise<string> => {
    await page.waitForSelector(`#error[data-code="${code}"]:not([hidden])`);
    return (await page.textContent("#error"))!;
  };

  test("asks for nothing that is not there", async () => {
    const { page, wrong } = await open();
    await page.waitForFunction(() => /MB/.test(document.querySelector("#download-size")!.textContent!));
    expect(wrong).toEqual([]);
  });

  test("gets no byte again of a file that it has and that has not changed", async () => {
    const { page } = await open();
    const fetched = (): Promise<{ bytes: number; transferred: number }> =>
      page.evaluate(async (file) => {
        performance.clearResourceTimings();
        const bytes = (await (await fetch(file)).arrayBuffer()).byteLength;
        // A timing is told after the body.
        for (;;) {
          const timing = performance.getEntriesByType("resource").find(({ name }) => name.endsWith(file));
          if (timing) return { bytes, transferred: (timing as PerformanceResourceTiming).transferSize };
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      }, WEIGHTS);
    const first = await fetched();
    expect(first.transferred).toBeGreaterThan(first.bytes);
    await page.reload();
    const second = await fetched();
    expect(second.bytes).toBe(first.bytes);
    expect(second.transferred).toBeLessThan(1000);
  });

  test("says that it is offline, not that the browser or the model is wrong", async () => {
    const { page } = await open();
    await page.waitForFunction(() => /MB/.test(document.querySelector("#download-size")!.textContent!));
    await page.context().setOffline(true);
    await page.check('[name="precision"][value="fp32"]', { force: true });
    expect(await errorOf(page, "offline")).toMatch(/You are offline.*this device is offline/s);
    await page.click("#generate");
    const error = await errorOf(page, "network");
    expect(error).toMatch(/You are offline.*this device is offline/s);
    expect(error).not.toMatch(/Content-Security-Policy|cannot run|cannot be used/);
  });

  test("tells a host that cannot be reached from one that does not let it read", async () => {
    const url = await serve((_, response) => response.end("{}"));
    const closed = url.replace(/:\d+/, ":9");
    expect(await errorOf((await open(`${url}?token=hidden`)).page, "network")).toMatch(
      `${url}/manifest.json: the server answers, but does not let this page read from it`,
    );
    expect(await errorOf((await open(`${closed}?token=hidden`)).page, "offline")).toMatch(
      `${closed}/manifest.json: no answer`,
    );
  });
});

describe("a file from another site", () => {
  let dev: ViteDevServer;
  beforeAll(async () => {
    dev = await createServer({ logLevel: "error", server: { port: 5273, host: "127.0.0.1" } });
    await dev.listen();
  });
  afterAll(() => dev?.close());

  test("goes on after a break with what browsers let a page see, and without asking for leave", async () => {
    const content = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) % 251);
    const asked: string[] = [];
    const url = await serve(({ method, headers }, response) => {
      asked.push(`${method} ${headers.range ?? ""}`.trim());
      const first = Number(/\d+/.exec(headers.range ?? "0")![0]);
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("last-modified", new Date(0).toUTCString());
      response.setHeader("content-length", content.length - first);
      if (first > 0)
        response.writeHead(206, { "content-range": `bytes ${first}-${content.length - 1}/${content.length}` });
      const part = content.subarray(first, first + 120_000);
      if (first + part.length === content.length) response.end(part);
      else response.write(part, () => setTimeout(() => response.socket?.destroy(), 50));
    });
    const page = await (await browser.newContext()).newPage();
    await page.goto(dev.resolvedUrls!.local[0]);
    // As text: the test runner would turn the import() into one of its own.
    const got = await page.evaluate<number[]>(`(async () => {
      const { httpFiles } = await import("/src/weights/http.ts");
      const stream = await httpFiles(${JSON.stringify(url)}, { retryMs: 1 }).open("a.bin");
      return [...new Uint8Array(await new Response(stream.body).arrayBuffer())];
    })()`);
    expect(Buffer.compare(Uint8Array.from(got), content)).toBe(0);
    // A browser may name the end, which it knows from its own cache.
    const starts = asked.map((line) => line.replace(/-\d*$/, ""));
    expect(starts).toEqual(["GET", "GET bytes=120000", "GET bytes=240000"]);
  });
});
