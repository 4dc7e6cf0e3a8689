/**
 * The npm package, as somebody has it who installed it: its size, its types, Node, the command line, and pages. Here is
 * what needs nothing but this repository; every bundler by itself is in examples/consumers.spec.ts.
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Browser, Page } from "playwright";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launchBrowser } from "./browser.ts";
import { consumer, link, pack, type Packed, removeFolders, ROOT, run } from "./consumers/consumer.ts";
import { drawn, LEAST_DB, likeness, MODEL, PROMPT, SEED } from "./consumers/drawn.ts";
import { serveSite, type Site } from "./consumers/site.ts";
import { psnr, readPng } from "./picture.ts";
import { NEVER_MS } from "./clock.ts";

let packed: Packed;
let folder: string;

beforeAll(async () => {
  packed = await pack(ROOT);
  folder = await consumer(packed);
});
afterAll(removeFolders);

describe("the tarball", () => {
  test("has at most 1 MB, and its install at most 30 MB, because it depends on nothing", () => {
    console.log(`${packed.bytes} bytes packed, ${packed.unpackedBytes} installed, ${packed.files.length} files`);
    expect(packed.bytes).toBeLessThanOrEqual(1e6);
    expect(packed.unpackedBytes).toBeLessThanOrEqual(30e6);
    const { dependencies, optionalDependencies, peerDependenciesMeta, peerDependencies } = JSON.parse(
      readFileSync(path.join(folder, "node_modules/mixdq-web/package.json"), "utf8"),
    );
    expect({ dependencies, optionalDependencies }).toEqual({});
    for (const name of Object.keys(peerDependencies)) expect(peerDependenciesMeta[name]).toEqual({ optional: true });
  });

  test("holds what was built and nothing else", () => {
    const known =
      /^(LICENSE|README\.md|package\.json|bin\/mixdq\.mjs|lib\/(node\/)?[\w-]+\.js|lib\/THIRD-PARTY\.md|lib\/types\/[\w/]+\.d\.ts)$/;
    expect(packed.files.filter((file) => !known.test(file))).toEqual([]);
  });

  test("has every file that package.json names", () => {
    const manifest = JSON.parse(readFileSync(path.join(ROOT, "package.json"), "utf8"));
    const { exports, main, types, unpkg, jsdelivr, bin, sideEffects } = manifest;
    const named = JSON.stringify([exports, main, types, unpkg, jsdelivr, bin, sideEffects]).match(
      /(?<=")[^"]+\.(m?js|json|d\.ts)(?=")/g,
    )!;
    const paths = named.filter((name) => name.includes("/") && !/^\.\/(worker|mixdq-web)\.js$/.test(name));
    expect(paths.length).toBeGreaterThan(10);
    expect(paths.map((name) => name.replace(/^\.\//, "")).filter((name) => !packed.files.includes(name))).toEqual([]);
  });

  test("names the licence of every package whose code is inside", () => {
    const text = readFileSync(path.join(folder, "node_modules/mixdq-web/lib/THIRD-PARTY.md"), "utf8");
    const names = [...text.matchAll(/^## (\S+) /gm)].map(([, name]) => name);
    expect(names).toEqual(expect.arrayContaining(["@huggingface/tokenizers", "comlink", "fast-png", "fflate", "yaml"]));
    expect(text).not.toContain("carries no licence text");
  });
});

test(
  "the package of the command line holds the default model and depends on what that needs",
  { timeout: NEVER_MS },
  async () => {
    const whole = await pack(path.join(ROOT, "packages/mixdq"));
    console.log(`${whole.bytes} bytes packed, ${whole.unpackedBytes} installed without its dependencies`);
    expect(whole.bytes).toBeLessThanOrEqual(20e6);
    const [ours, theirs] = ["package.json", "packages/mixdq/package.json"].map((file) =>
      JSON.parse(readFileSync(path.join(ROOT, file), "utf8")),
    );
    expect(theirs.version).toBe(ours.version);
    const { react: _, ...peers } = ours.peerDependencies;
    expect(theirs.dependencies).toEqual({ "mixdq-web": ours.version, ...peers });

    const where = await consumer(packed);
    const target = path.join(where, "node_modules/mixdq");
    await run("mkdir", ["-p", target], where);
    await run("tar", ["xzf", whole.file, "--strip-components=1", "-C", target], where);
    // Either package's command finds the model, whichever of the two npm links.
    for (const script of ["mixdq/bin/mixdq.mjs", "mixdq-web/bin/mixdq.mjs"]) {
      const args = [path.join(where, "node_modules", script), "plan", "--json", path.join(where, "plan.json")];
      expect(await run(process.execPath, args, where)).toMatchObject({ code: 0, stderr: "" });
      expect(JSON.parse(readFileSync(path.join(where, "plan.json"), "utf8")).peakBytes).toBeGreaterThan(1e6);
    }
  },
);

describe("types", () => {
  /** What a consumer may write; nothing else has to be installed for it, React's and WebGPU's types neither. */
  const SOURCE = `
import { checkSupport, createEngine, GeneratedImage, MixdqError, type Engine, type EngineOptions } from "mixdq-web";
import { defineMixdqImage } from "mixdq-web/element";
import { createEngine as createNodeEngine } from "mixdq-web/node";
import { useMixdq, type Mixdq } from "mixdq-web/react";
import * as single from "mixdq-web/mixdq-web.js";
const options: EngineOptions = { model: "m", precision: "w4a8", onProgress: ({ progress }) => void progress.toFixed() };
const engine: Engine = await createEngine(options);
const image: GeneratedImage = await engine.generate({ prompt: "x", signal: AbortSignal.timeout(5) });
for await (const event of engine.stream({ prompt: "x" })) if (event.type === "image") event.image.toBlob();
const mixdq: Mixdq = useMixdq({ model: "m" });
const single_: typeof createEngine = single.createEngine;
const { reasons } = await checkSupport({ model: "m" });
export const used = [image, mixdq, single_, reasons, MixdqError, defineMixdqImage, single.defineMixdqImage];
export const node: Engine = await createNodeEngine({ model: "m", adapter: "auto" });
// @ts-expect-error: a model is needed
await createEngine({ precision: "fp16" });
// @ts-expect-error: there is no such precision
await createEngine({ model: "m", precision: "w1a1" });
// @ts-expect-error: Node's engine has no worker
await createNodeEngine({ model: "m", worker: false });
`;

  test.each(["bundler", "node16", "nodenext"])(
    "pass tsc --strict with resolution %s and library checks",
    { timeout: NEVER_MS },
    async (moduleResolution) => {
      const module = moduleResolution === "bundler" ? "esnext" : moduleResolution;
      const compilerOptions = {
        ...{ module, moduleResolution, target: "es2023", lib: ["es2023", "dom", "dom.asynciterable"], types: [] },
        ...{
          strict: true,
          exactOptionalPropertyTypes: true,
          noUncheckedIndexedAccess: true,
          skipLibCheck: false,
          noEmit: true,
        },
      };
      writeFileSync(path.join(folder, "consumer.ts"), SOURCE);
      writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["consumer.ts"] }));
      const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
      expect(await run(process.execPath, [tsc, "-p", folder], folder)).toEqual({ code: 0, stdout: "", stderr: "" });
    },
  );
});

describe("in Node", () => {
  const node = (script: string, ...args: string[]) =>
    run(process.execPath, ["--input-type=module", "-e", script, ...args], folder);

  test("importing any face does nothing, so a server-side render may, and Node ends", async () => {
    const script = `
      const before = Object.getOwnPropertyNames(globalThis).join();
      const faces = {};
      for (const name of ["", "/element", "/node", "/mixdq-web.js"]) faces[name] = Object.keys(await import("mixdq-web" + name)).sort();
      console.log(JSON.stringify([faces, Object.getOwnPropertyNames(globalThis).join() === before]));`;
    const { stdout, stderr, code } = await node(script);
    expect({ stderr, code }).toEqual({ stderr: "", code: 0 });
    const face = ["GeneratedImage", "MixdqError", "checkSupport", "createEngine"];
    expect(JSON.parse(stdout)).toEqual([
      {
        "": face,
        "/element": ["defineMixdqImage"],
        "/node": ["GeneratedImage", "MixdqError", "createEngine"],
        "/mixdq-web.js": [...face, "defineMixdqImage"].sort(),
      },
      true,
    ]);
  });

  test("what is not installed is named with the command that installs it", async () => {
    const script = `
      import { createEngine } from "mixdq-web/node";
      for (const backend of ["webgpu", "ort-wasm"])
        await createEngine({ model: process.argv[1], backend }).catch(({ code, message }) => console.log(code, message));`;
    const { stdout } = await node(script, MODEL);
    expect(stdout.split("\n")).toEqual([
      expect.stringMatching(/^unsupported .*package webgpu cannot be loaded.*Run npm install webgpu\.$/),
      expect.stringMatching(
        /^unsupported .*ort-wasm.*package onnxruntime-web cannot be loaded.*Run npm install onnxruntime-web, or/,
      ),
      "",
    ]);
  });

  test(
    "npx mixdq: help, what is missing for a picture, and a picture like the example's",
    { timeout: NEVER_MS },
    async () => {
      const mixdq = (...args: string[]) => run("npx", ["mixdq", ...args], folder);
      expect(await mixdq("help")).toMatchObject({ code: 0, stdout: expect.stringMatching(/^usage: mixdq COMMAND/) });

      const flags = ["generate", "--prompt", PROMPT, "--seed", String(SEED), "--out", "npx.png"];
      const noModel = await mixdq(...flags);
      expect(noModel).toMatchObject({ code: 1, stdout: "" });
      expect(noModel.stderr).toMatch(/^mixdq generate: invalid-input: --model is missing.* npm install mixdq,.*\n$/);
      const noGpu = await mixdq(...flags, "--model", MODEL);
      expect(noGpu.stderr).toMatch(/^mixdq generate: unsupported: .* Run npm install webgpu\.\n$/);

      const where = await consumer(packed, "node");
      link(where, "webgpu");
      const made = await run("npx", ["mixdq", ...flags, "--model", MODEL, "--adapter", "swiftshader"], where);
      expect({ code: made.code, stderr: made.code === 0 ? "" : made.stderr }).toEqual({ code: 0, stderr: "" });
      const example = await run(process.execPath, ["generate.js", MODEL, PROMPT, "example.png"], where);
      expect(example).toMatchObject({ code: 0, stdout: expect.stringMatching(/^example\.png: \d+x\d+ on /) });
      const [ours, theirs] = ["npx.png", "example.png"].map((file) => readPng(readFileSync(path.join(where, file))));
      // The example takes the best adapter that there is.
      expect(psnr(ours!, theirs!)).toBeGreaterThanOrEqual(LEAST_DB);
    },
  );
});

describe("in a page", () => {
  let browser: Browser;
  const sites: Site[] = [];

  beforeAll(async () => {
    browser = await launchBrowser("swiftshader");
  });
  afterAll(async () => {
    await browser?.close();
    for (const site of sites) await site.close();
  });

  async function open(where: string, options?: Parameters<typeof serveSite>[2]): Promise<{ page: Page; site: Site }> {
    const site = await serveSite(where, MODEL, options);
    sites.push(site);
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(NEVER_MS);
    await page.goto(site.url);
    return { page, site };
  }

  test("plain HTML: one file, its element draws, its worker is a file", { timeout: NEVER_MS }, async () => {
    const { page, site } = await open(await consumer(packed, "html"));
    expect(await likeness(await drawn(page))).toBeGreaterThanOrEqual(LEAST_DB);
    expect(page.workers().map((worker) => worker.url())).toEqual([`${site.url}node_modules/mixdq-web/lib/worker.js`]);
    await page.context().close();
  });

  test("React and Vite of this repository: the hook draws, its worker is a file", { timeout: NEVER_MS }, async () => {
    const where = await consumer(packed, "react");
    link(where, "react", "react-dom", "vite");
    const vite = ["node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"];
    const built = await run(process.execPath, vite, where, { NODE_ENV: "production" });
    expect(built).toMatchObject({ code: 0, stderr: expect.not.stringContaining("mixdq-web") }); // warns of nothing of ours
    const { page, site } = await open(path.join(where, "dist"));
    expect(await likeness(await drawn(page))).toBeGreaterThanOrEqual(LEAST_DB);
    expect(page.workers().map((worker) => worker.url())).toEqual([
      expect.stringMatching(/\/assets\/worker-[\w-]+\.js$/),
    ]);
    expect(site.missing).toEqual([]);
    await page.context().close();
  });

  test("offline after the first picture", { timeout: NEVER_MS }, async () => {
    const where = await consumer(packed, "offline");
    const { page, site } = await open(where);
    await page.waitForFunction(() => document.querySelector("output")?.textContent === "ready");
    const first = await drawn(page);
    await site.close();
    sites.pop();
    await page.reload();
    await page.waitForFunction(() => document.querySelector("output")?.textContent === "ready");
    expect(await drawn(page)).toEqual(first);
    await page.context().close();
  });

  /** Where the model is none, the error comes from the worker: it runs. */
  const ASK = `
    import { createEngine } from "SOURCE";
    createEngine({ model: "models/nothing", ...OPTIONS }).catch((error) => (document.title = error.code + ": " + error.message));`;

  async function answerOf(
    source: string,
    engineOptions: object = {},
    { headers, where = folder }: { headers?: Record<string, string>; where?: string } = {},
  ): Promise<{ title: string; workers: string[]; site: Site }> {
    const text = ASK.replace("SOURCE", source).replace("OPTIONS", JSON.stringify(engineOptions));
    writeFileSync(path.join(where, "ask.js"), text);
    writeFileSync(
      path.join(where, "index.html"),
      '<!doctype html><title></title><script type="module" src="ask.js"></script>',
    );
    const site = await serveSite(where, MODEL, headers ? { headers } : {});
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(NEVER_MS);
    const workers: string[] = [];
    page.on("worker", (worker) => workers.push(worker.url()));
    try {
      await page.goto(site.url);
      await page.waitForFunction(() => document.title !== "");
      return { title: await page.title(), workers, site };
    } finally {
      await page.context().close();
      await site.close();
    }
  }

  const NO_MODEL = /^invalid-model: .*models\/nothing/;
  const SINGLE = "./node_modules/mixdq-web/lib/mixdq-web.js";

  test("from another origin, as from a CDN: the worker starts from its text", async () => {
    const cdn = await serveSite(path.join(folder, "node_modules/mixdq-web/lib"), MODEL, {
      headers: { "Access-Control-Allow-Origin": "*" },
    });
    for (const file of ["mixdq-web.js", "index.js"]) {
      const { title, workers } = await answerOf(`${cdn.url}${file}`);
      expect(title).toMatch(NO_MODEL);
      expect(workers).toEqual([expect.stringMatching(/^blob:/)]);
    }
    await cdn.close();
  });

  test("where a bundler leaves the worker behind, it starts from its text", async () => {
    const where = await consumer(packed);
    writeFileSync(path.join(where, "main.js"), ASK.replace("SOURCE", "mixdq-web").replace("...OPTIONS", ""));
    const rolldown = path.join(ROOT, "node_modules/rolldown/bin/cli.mjs");
    expect(await run(process.execPath, [rolldown, "main.js", "-d", "dist"], where)).toMatchObject({ code: 0 });
    writeFileSync(
      path.join(where, "index.html"),
      '<!doctype html><title></title><script type="module" src="dist/main.js"></script>',
    );
    const { page, site } = await open(where);
    await page.waitForFunction(() => document.title !== "");
    expect(await page.title()).toMatch(NO_MODEL);
    expect(site.missing.filter((name) => !name.startsWith("/models/") && name !== "/favicon.ico")).toEqual([
      "/dist/worker.js",
    ]);
    await page.context().close();
  });

  test("workerUrl: that file, and no other where it is missing", async () => {
    const good = await answerOf(SINGLE, { workerUrl: "/node_modules/mixdq-web/lib/worker.js?copy" });
    expect(good.title).toMatch(NO_MODEL);
    expect(good.workers).toEqual([`${good.site.url}node_modules/mixdq-web/lib/worker.js?copy`]);
    const bad = await answerOf(SINGLE, { workerUrl: "worker.js" });
    expect(bad.title).toMatch(/^unsupported: .*\/worker\.js could not be started/);
    expect(bad.site.missing).toContain("/worker.js");
  });

  test("a Content-Security-Policy with worker-src 'self' is enough; without it the error says so", async () => {
    const policy = (workers: string) => ({
      headers: { "Content-Security-Policy": `script-src 'self'; worker-src ${workers}` },
    });
    expect((await answerOf(SINGLE, {}, policy("'self'"))).title).toMatch(NO_MODEL);
    expect((await answerOf(SINGLE, {}, policy("'none'"))).title).toMatch(/^unsupported: .*worker-src 'self'/);
  });

  test("onnxruntime-web comes from ortUrl, and is asked for where that is missing", async () => {
    link(folder, "onnxruntime-web");
    const none = await answerOf(SINGLE, { backend: "ort-wasm", model: "models/postcard" });
    expect(none.title).toMatch(/^unsupported: .*Run npm install onnxruntime-web, or .*ortUrl/);
    const wrong = await answerOf(SINGLE, { backend: "ort-wasm", model: "models/postcard", ortUrl: "nowhere/" });
    expect(wrong.title).toMatch(/^network: ortUrl: .*nowhere\/ort\.wasm\.bundle\.min\.mjs could not be loaded/);
  });
});
