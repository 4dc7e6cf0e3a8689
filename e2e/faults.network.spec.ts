/**
 * Faults of the network in a real Chromium, between a server of the test's own and a load: a typed error with the right
 * code within a stated silence, or a load that goes on; nothing left over, and the same picture afterwards.
 */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import type { Browser } from "playwright";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { emptyFolder, printed } from "./broken.ts";
import { NEVER_MS } from "./clock.ts";
import { launch, MODEL, startServer, Tab } from "./faults/harness.ts";
import { type Fault, type FaultServer, serve } from "./faults/server.ts";
import { quantize } from "../src/cli/quantize.ts";
import { readUNet } from "../src/cli/unet.ts";
import { buildUNet } from "../src/diffusion/unet.ts";
import { quantizableLayers } from "../src/mixdq/calibration/layers.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { writeMixdqConfig } from "../src/quant/config.ts";

/** Silence after which a load is given up here; by default it is longer. */
const STALL_MS = 2000;

/** What a fault may do to a file: the last weights but one, so that something was loaded and something would follow. */
const UNET = /^unet\/.*\.safetensors$/;
const SHARD = /shard.*\.bin$|\.safetensors$/;

let server: FaultServer;
let url: string;
let browser: Browser;
let tab: Tab;
let digest: string;

beforeAll(async () => {
  ({ server, url } = await startServer(
    new Map([
      ["m", MODEL],
      ["pack", await makePack()],
    ]),
  ));
  browser = await launch();
  tab = await Tab.open(browser, url);
  expect(await tab.create()).toMatchObject({ code: "ok" });
  digest = (await tab.generate()).digest!;
  await tab.dispose();
});
afterEach(() => server.reset());
afterAll(async () => {
  await browser?.close();
  server?.close();
});

/** All layers of the UNet in 8 bits, with made-up ranges: what is tested is its bytes. */
async function makePack(): Promise<string> {
  const folder = emptyFolder();
  const files = await diskFiles(MODEL);
  const unet = await readUNet(files);
  const [height, width] = unet.sampleSize;
  const layers = quantizableLayers(buildUNet(unet, { batch: 1, height, width, tokens: 77 }, "unet", "f32"));
  const act = { scale: Math.fround(0.05), zeroPoint: 128 };
  const config = path.join(folder, "mixdq.json");
  const layer = { weightBits: 8, actBits: 8, act } as const;
  const json = writeMixdqConfig({
    model: "sd21-turbo",
    weights: { symmetric: true, range: "minmax", group: null },
    layers: new Map(layers.map(({ path, hasSkip }) => [path, { ...layer, ...(hasSkip && { act2: act }) }])),
    bos: false,
    averageWeightBits: undefined,
    provenance: {},
  });
  writeFileSync(config, json);
  const out = path.join(folder, "pack");
  await printed(() => quantize(["--model", MODEL, "--config", config, "--out", out]));
  return out;
}

/** Only for the file that `which` names; `times`: only its first requests. */
const on =
  (which: RegExp, fault: Fault, times = Infinity): (() => Fault) =>
  () => {
    let asked = 0;
    return (file, ...rest) => which.test(file) && asked++ < times && fault(file, ...rest);
  };

const drop: Fault = (_, content, __, response) => {
  response.setHeader("content-length", content.length).setHeader("accept-ranges", "bytes");
  response.write(content.subarray(0, content.length / 2), () => setTimeout(() => response.socket?.destroy(), 50));
  return true;
};
const stall: Fault = (_, content, __, response) => {
  response.setHeader("content-length", content.length).setHeader("accept-ranges", "bytes");
  response.write(content.subarray(0, content.length / 2));
  return true;
};
const silence: Fault = () => true;
const status =
  (code: number): Fault =>
  (_, __, ___, response) => {
    response.writeHead(code, { "content-type": "application/xml" }).end("<Error><Code>No</Code></Error>");
    return true;
  };
const changed =
  (change: (content: Buffer) => Buffer): Fault =>
  (_, content, request, response) => {
    serve(change(Buffer.from(content)), request, response);
    return true;
  };
const tooLong: Fault = (_, content, __, response) => {
  response.setHeader("content-length", content.length + 1000);
  response.write(content, () => setTimeout(() => response.socket?.destroy(), 50));
  return true;
};
const gzip: Fault = (_, content, request, response) => {
  if (request.headers.range || request.method === "HEAD") return false;
  const body = gzipSync(content);
  response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length }).end(body);
  return true;
};
const flipped = changed((content) => {
  content[content.length >> 1] ^= 1;
  return content;
});

describe("a load fails with one typed error, leaves nothing, and works when the fault is gone", () => {
  test.each<[string, string, () => Fault, readonly string[]]>([
    ["the connection drops in the middle of a file, every time", "m", on(UNET, drop), ["network"]],
    ["a file stalls in its middle, every time", "m", on(UNET, stall), ["network"]],
    ["weights are never answered", "m", on(UNET, silence), ["network"]],
    ["a JSON is never answered", "m", on(/^unet\/config\.json$/, silence), ["network"]],
    [
      "a file is cut short",
      "m",
      on(
        UNET,
        changed((content) => content.subarray(0, 100_000)),
      ),
      ["integrity"],
    ],
    [
      "a file is longer than its header says",
      "m",
      on(
        UNET,
        changed((c) => Buffer.concat([c, c])),
      ),
      ["integrity"],
    ],
    ["a length that is too large", "m", on(UNET, tooLong), ["network", "integrity"]],
    ["status 403 for weights", "m", on(UNET, status(403)), ["network", "invalid-model"]],
    ["status 500 for weights", "m", on(UNET, status(500)), ["network"]],
    ["status 500 for everything", "m", on(/./, status(500)), ["network"]],
    ["a bit of a pack is flipped", "pack", on(SHARD, flipped), ["integrity"]],
    [
      "a pack is cut short",
      "pack",
      on(
        SHARD,
        changed((content) => content.subarray(0, 100_000)),
      ),
      ["integrity"],
    ],
  ])("%s", { timeout: NEVER_MS }, async (_, model, fault, codes) => {
    server.fault = fault();
    const options = {
      model: `${url}models/${model}`,
      stallMs: STALL_MS,
      ...(model === "pack" && { precision: undefined }),
    };
    const { code, message } = await tab.create("a", options as object);
    console.log(`${code}: ${message}`);
    expect(codes).toContain(code);
    expect(message).toMatch(/^[^\n]+[.)"]$/);
    await tab.expectNothingLeft();
    server.reset();
    expect(await tab.create("a", options as object)).toMatchObject({ code: "ok" });
    if (model === "m") await tab.expectPicture(digest);
    await tab.dispose();
    await tab.expectNothingLeft();
  });
});

describe("a load goes on", () => {
  test.each<[string, () => Fault]>([
    ["the connection drops once in the middle of a file", on(UNET, drop, 1)],
    ["a file stalls once", on(UNET, stall, 1)],
    ["weights are not answered once", on(UNET, silence, 1)],
    ["status 500 once", on(UNET, status(500), 1)],
    ["gzip", on(/./, gzip)],
  ])("%s", { timeout: NEVER_MS }, async (_, fault) => {
    server.fault = fault();
    expect(await tab.create("a", { stallMs: STALL_MS } as object)).toMatchObject({ code: "ok" });
    await tab.expectPicture(digest);
    await tab.dispose();
    await tab.expectNothingLeft();
  });

  test("from a server that answers 403 for whatever is not there", { timeout: NEVER_MS }, async () => {
    server.missing = 403;
    expect(await tab.create()).toMatchObject({ code: "ok" });
    await tab.expectPicture(digest);
    await tab.dispose();
  });
});
