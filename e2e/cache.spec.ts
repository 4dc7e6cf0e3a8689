/** Models that stay on the device, in a real Chromium: visits, breaks, damage, tabs, want of room, and a hub. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Browser, BrowserContext } from "playwright";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { emptyFolder } from "./broken.ts";
import { NEVER_MS } from "./clock.ts";
import { chance, launch, MODEL, startServer, Tab } from "./faults/harness.ts";
import { type Fault, type FaultServer, serve } from "./faults/server.ts";
import { startHub, type TestHub } from "../src/weights/hub.testing.ts";
import { parseSafetensors, writeSafetensors } from "../src/weights/safetensors.ts";

const WEIGHTS = /\.safetensors$/;
const UNET = "unet/diffusion_pytorch_model.safetensors";
/** Reloads of a page while it loads; the unit tests have 20. */
const BREAKS = 6;
/** Of a tensor that no layer reads: what is broken so often has to be much larger than as many blocks. */
const PADDING = 12 * 2 ** 20;

let server: FaultServer;
let url: string;
let browser: Browser;
let context: BrowserContext;
let hub: TestHub;
let digest: string;

/** GET requests for weights since the last test, with the bytes that their answers began with. */
const fetched: { file: string; range: string | undefined }[] = [];
const count: Fault = (file, _, { method, headers }) => {
  if (method === "GET" && WEIGHTS.test(file)) fetched.push({ file, range: headers.range });
  return false;
};

beforeAll(async () => {
  ({ server, url } = await startServer(
    new Map([
      ["m", MODEL],
      ["large", padded()],
    ]),
  ));
  const files = new Map(filesOf(MODEL).map((file) => [file, readFileSync(path.join(MODEL, file))] as const));
  hub = await startHub({ "owner/gated": { files: new Map(files), token: "hf_secret", isGated: true } });
  browser = await launch();
  const tab = await Tab.open(browser, url);
  digest = await draw(tab, {});
  await tab.page.close();
});
beforeEach(async () => {
  server.fault = count;
  fetched.length = 0;
  context = await browser.newContext();
});
afterEach(async () => {
  await context.close();
  server.reset();
});
afterAll(async () => {
  await browser?.close();
  server?.close();
  hub?.close();
});

const filesOf = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)));

function padded(): string {
  const folder = path.join(emptyFolder(), "large");
  cpSync(MODEL, folder, { recursive: true });
  const file = path.join(folder, UNET);
  const tensors = [...parseSafetensors(readFileSync(file))].map(
    ([name, { dtype, shape, bytes }]) => [name, { dtype, shape, data: bytes }] as const,
  );
  const padding = { dtype: "U8", shape: [PADDING], data: new Uint8Array(PADDING) };
  writeFileSync(file, writeSafetensors({ ...Object.fromEntries(tensors), zz_padding: padding }));
  return folder;
}

const KEEP = { cache: undefined } as object;
const visit = (): Promise<Tab> => Tab.open(context, url);

/** Loads, draws, and tells what the picture is. */
async function draw(tab: Tab, options: object = KEEP): Promise<string> {
  expect(await tab.create("a", options)).toMatchObject({ code: "ok" });
  const { code, digest } = await tab.generate();
  expect(code).toBe("ok");
  await tab.dispose();
  return digest!;
}

test(
  "a second visit fetches no weight byte, also without its server; what is kept is listed and deleted",
  { timeout: NEVER_MS },
  async () => {
    const tab = await visit();
    expect(await draw(tab)).toBe(digest);
    expect(new Set(fetched.map(({ file }) => file)).size).toBe(fetched.length);
    expect(fetched.length).toBeGreaterThanOrEqual(3);
    await tab.page.close();

    fetched.length = 0;
    const second = await visit();
    expect(await draw(second)).toBe(digest);
    expect(fetched).toEqual([]);

    server.fault = (_, __, { socket }) => !socket.destroy().connecting;
    expect(await draw(second)).toBe(digest);

    const model = `${url}models/m`;
    const kept = await second.page.evaluate(async (model) => {
      const { listCachedModels, hasModelInCache, deleteModelInCache } = window.mixdq;
      const [list, has, other] = [
        await listCachedModels(),
        await hasModelInCache(model),
        await hasModelInCache("models/none"),
      ];
      await deleteModelInCache(model);
      return { list, has, other, after: [await listCachedModels(), await hasModelInCache(model)] };
    }, model);
    expect(kept).toMatchObject({ has: true, other: false, after: [[], false] });
    expect(kept.list).toMatchObject([{ model, isComplete: true }]);
    expect(kept.list[0].bytes).toBeGreaterThan(400_000);
  },
);

test(
  "a load that is broken again and again by reloading the page fetches at most 1.05 times the bytes in all",
  { timeout: 2 * NEVER_MS },
  async () => {
    const random = chance(11);
    const tab = await visit();
    const options = { ...KEEP, model: `${url}models/large` };
    const keptOnDisk = () =>
      tab.page.evaluate(async () => (await window.mixdq.listCachedModels()).reduce((sum, { bytes }) => sum + bytes, 0));
    let [sent, size, breaks] = [0, 0, 0];
    let end = 0;
    server.fault = (file, content, request, response) => {
      if (file !== UNET || request.method !== "GET") return false;
      size = content.length;
      const from = Number(/bytes=(\d+)/.exec(request.headers.range ?? "")?.[1] ?? 0);
      // So many bytes, then silence until the page is gone: what arrives does not depend on how fast the machine is.
      end = breaks === BREAKS ? size : Math.min(size - 1, from + 1 + Math.floor((random() * 2 * size) / (BREAKS + 1)));
      sent += end - from;
      if (end === size) return false;
      const silence = { end: (part: Buffer) => (response.write(part.subarray(0, end - from)), response) };
      serve(content, request, Object.assign(response, silence));
      return true;
    };
    for (; breaks < BREAKS; breaks++) {
      end = 0;
      await tab.page.evaluate(
        (options) => window.faults.begin("load", "create", "a", options as never),
        tab.options(options),
      );
      await expect.poll(() => end, { timeout: NEVER_MS }).toBeGreaterThan(0);
      await expect.poll(keptOnDisk, { timeout: NEVER_MS }).toBeGreaterThan(end - 16 * 2 ** 10);
      await tab.page.reload();
    }
    expect(await draw(tab, options)).toBe(digest);
    console.log(`${sent} bytes for ${size}: ${(sent / size).toFixed(3)}`);
    expect(sent / size).toBeLessThan(1.05);
  },
);

test("a flipped bit is found, and the block that it is in fetched again", { timeout: NEVER_MS }, async () => {
  const tab = await visit();
  expect(await draw(tab)).toBe(digest);
  fetched.length = 0;
  await tab.page.evaluate(async (name) => {
    const top = await (await navigator.storage.getDirectory()).getDirectoryHandle("mixdq-web");
    for await (const folder of (top as any).values()) {
      if (folder.kind !== "directory") continue;
      const file = await folder.getFileHandle(`${encodeURIComponent(name)}.data`);
      const at = (await file.getFile()).size >> 1;
      const byte = new Uint8Array(await (await file.getFile()).slice(at, at + 1).arrayBuffer());
      byte[0] ^= 4;
      const writable = await file.createWritable({ keepExistingData: true });
      await writable.write({ type: "write", position: at, data: byte });
      await writable.close();
    }
  }, UNET);
  expect(await draw(tab)).toBe(digest);
  expect(fetched).toEqual([{ file: UNET, range: expect.stringMatching(/^bytes=\d+-\d+$/) }]);
  const [from, to] = fetched[0].range!.match(/\d+/g)!.map(Number);
  expect(to - from + 1).toBe(16 * 2 ** 10);
  fetched.length = 0;
  expect(await draw(tab)).toBe(digest);
  expect(fetched).toEqual([]);
});

test("two tabs that load at once fetch a file once, and draw the same", { timeout: NEVER_MS }, async () => {
  const tabs = await Promise.all([visit(), visit()]);
  expect(await Promise.all(tabs.map((tab) => draw(tab)))).toEqual([digest, digest]);
  const files = fetched.map(({ file }) => file);
  expect(files.toSorted()).toEqual([...new Set(files)].toSorted());
});

test(
  "without room a model is loaded but not kept; where it must be kept, the error says what there is",
  { timeout: NEVER_MS },
  async () => {
    const tab = await visit();
    const devtools = await tab.devtools();
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: new URL(url).origin, quotaSize: 200_000 });
    const { code, message } = await tab.create("a", { cache: true });
    expect({ code, message }).toMatchObject({
      code: "quota",
      message: expect.stringMatching(
        /a file is to be kept, and the browser's storage for this site is full\. Free space/,
      ),
    });
    expect(await draw(tab)).toBe(digest);
  },
);

test("a gated model of a hub loads by its id with a token, which nobody else sees", { timeout: NEVER_MS }, async () => {
  const tab = await visit();
  await tab.page.evaluate((host) => void Object.assign(window.mixdq.env, { remoteHost: host }), hub.url);
  const options = { ...KEEP, model: "owner/gated" };
  const refused = await tab.create("a", options);
  expect(refused).toMatchObject({
    code: "network",
    message: expect.stringMatching(/licence at .*owner\/gated.*token/),
  });
  await tab.page.evaluate(() => void (window.mixdq.env.accessToken = "hf_secret"));
  expect(await draw(tab, options)).toBe(digest);
  expect(hub.askedCdn.length).toBeGreaterThanOrEqual(3);
  expect(hub.askedCdn.filter(({ authorization }) => authorization !== undefined)).toEqual([]);
  expect(hub.asked.filter(({ status }) => status === 404)).toEqual([]);

  hub.asked.length = hub.askedCdn.length = 0;
  expect(await draw(tab, options)).toBe(digest);
  expect(hub.asked.map(({ path }) => path)).toEqual(["/api/models/owner/gated/tree/main?recursive=1"]);
  expect(hub.askedCdn).toEqual([]);
  expect(await tab.page.evaluate(() => window.mixdq.hasModelInCache("owner/gated", "fp32"))).toBe(true);
});
