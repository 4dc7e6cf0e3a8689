/** Networks that fail, runs that collide and runs that are cancelled: nothing half-loaded, and the next one works. */
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { expectError, refusal, TEXT, UNET } from "./broken.ts";
import { requestNodeGpu } from "../src/node/adapter.ts";
import { diskFiles } from "../src/node/diskFiles.ts";
import { loadPipeline, type Pipeline, type PipelineOptions } from "../src/pipeline.ts";
import type { RawImage } from "../src/base/types.ts";
import { httpFiles } from "../src/weights/http.ts";

const MODEL = path.join(import.meta.dirname, "golden/sd21-turbo");

let gpu: GPU;
/** Every device that was made since the test began. */
const devices: GPUDevice[] = [];
beforeAll(async () => {
  gpu = watched(await requestNodeGpu("auto"));
});
beforeEach(() => void devices.splice(0));

function watched(real: GPU): GPU {
  const requestAdapter: GPU["requestAdapter"] = async (options) => {
    const adapter = await real.requestAdapter(options);
    const requestDevice = adapter!.requestDevice.bind(adapter);
    adapter!.requestDevice = async (descriptor) => {
      const device = await requestDevice(descriptor);
      devices.push(device);
      return device;
    };
    return adapter;
  };
  return { requestAdapter } as unknown as GPU;
}

/** No device that a failed load has made is still there. */
async function expectNothingLeft(count: number): Promise<void> {
  expect(devices).toHaveLength(count);
  for (const device of devices) expect((await device.lost).reason).toBe("destroyed");
}

describe("over HTTP", () => {
  let server: Server | undefined;
  afterEach(() => {
    server?.closeAllConnections();
    server?.close();
  });

  async function serve(listener: RequestListener): Promise<string> {
    server = createServer(listener);
    await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/models/m`;
  }

  /** Serves the model, but for the files that `special` answers itself (by returning true). */
  function serveModel(special: (file: string, ...rest: Parameters<RequestListener>) => boolean): Promise<string> {
    return serve((request, response) => {
      const file = request.url!.replace("/models/m/", "");
      if (special(file, request, response)) return;
      readFile(path.join(MODEL, file)).then(
        (content) => {
          response.setHeader("content-type", "application/octet-stream");
          response.setHeader("content-length", content.length).end(content);
        },
        () => response.writeHead(404).end("nothing here"),
      );
    });
  }

  const load = (url: string, options: Partial<PipelineOptions> = {}): Promise<Pipeline> =>
    loadPipeline({ files: httpFiles(url, { retryMs: 1, stallMs: options.stallMs }), gpu, ...options });

  test("a model loads from a plain server, no file asked for twice", async () => {
    const asked: string[] = [];
    const url = await serveModel((file, { method }) => {
      if (method === "GET") asked.push(file);
      return false;
    });
    const pipeline = await load(url);
    expect(pipeline.info.weightBytes).toBeGreaterThan(500_000);
    await pipeline.dispose();
    await expectNothingLeft(1);
    expect(asked).toContain(UNET);
    expect(asked).toEqual([...new Set(asked)]);
  });

  test("a model that is not there is reported by its address", async () => {
    const url = await serve((_, response) => response.writeHead(404).end("nothing here"));
    const error = await refusal(load(url));
    expectError(error, "invalid-model", `${url}/model_index.json: no such file`, "Check the model's address");
    await expectNothingLeft(0);
  });

  test.each(["text/html", "text/plain"])("a page (%s) in the place of every file is no model", async (type) => {
    const url = await serve((_, response) => response.setHeader("content-type", type).end("<!DOCTYPE html><p>Hello"));
    expectError(await refusal(load(url)), "invalid-model", `${url}/model_index.json: no such file`);
  });

  test("a page in the place of weights is no weights", async () => {
    const url = await serveModel((file, _, response) => {
      if (!file.includes("unet/diffusion")) return false;
      response.setHeader("content-type", "text/html").end("<!DOCTYPE html><p>Hello");
      return true;
    });
    expectError(await refusal(load(url)), "invalid-model", `${url}/unet: no weights`, "Check the model's address");
    await expectNothingLeft(1);
  });

  test("a server in trouble is asked four times, then reported with its status", async () => {
    let asked = 0;
    const url = await serveModel((file, { method }, response) => {
      if (file !== UNET || method !== "GET") return false;
      asked++;
      response.writeHead(500).end("oops");
      return true;
    });
    const error = await refusal(load(url));
    expectError(error, "network", `${url}/${UNET}: got status 500 Internal Server Error, expected 200`, "try again");
    expect(asked).toBe(4);
    await expectNothingLeft(1);
  });

  test("a server that is not there is a network error", async () => {
    const url = await serve(() => {});
    await new Promise((resolve) => server!.close(resolve));
    expectError(await refusal(load(url)), "network", `${url}/manifest.json: no answer`, "Check the connection");
  });

  test("a connection that is cut in the middle of a file is a network error, and nothing stays loaded", async () => {
    const content = await readFile(path.join(MODEL, UNET));
    const url = await serveModel((file, { method }, response) => {
      if (file !== UNET || method !== "GET") return false;
      response.setHeader("content-length", content.length);
      response.write(content.subarray(0, 100_000), () => setTimeout(() => response.socket!.destroy(), 50));
      return true;
    });
    const error = await refusal(load(url));
    expectError(error, "network", `${url}/${UNET}: the stream broke off`, "Check the connection and try again");
    await expectNothingLeft(1);
  });

  test("a file that ends early, from a server that does not say how long it is, is damaged", async () => {
    const content = await readFile(path.join(MODEL, TEXT));
    const url = await serveModel((file, _, response) => {
      if (file !== TEXT) return false;
      response.end(content.subarray(0, 100_000));
      return true;
    });
    expectError(await refusal(load(url)), "integrity", `${url}/${TEXT}`, "cut short: download it again");
    await expectNothingLeft(1);
  });

  test("a server that falls silent in the middle of a file is a network error, and nothing stays loaded", async () => {
    const content = await readFile(path.join(MODEL, UNET));
    const url = await serveModel((file, { method }, response) => {
      if (file !== UNET || method !== "GET") return false;
      response.setHeader("content-length", content.length);
      response.write(content.subarray(0, 100_000));
      return true;
    });
    const error = await refusal(load(url, { stallMs: 2000 }));
    expectError(error, "network", `${url}/${UNET}: the server sent nothing for 2 s`, "try again");
    await expectNothingLeft(1);
  });

  test("a load that waits for a silent server can be cancelled", async () => {
    const controller = new AbortController();
    const url = await serveModel((file, _, response) => {
      if (file !== UNET) return false;
      response.writeHead(200, { "content-length": "1000000" }).flushHeaders();
      setTimeout(() => controller.abort(), 50);
      return true;
    });
    expectError(await refusal(load(url, { signal: controller.signal })), "aborted", "cancelled");
    await expectNothingLeft(1);
  });
});

describe("loading", () => {
  test("does not begin with a signal that has fired", async () => {
    const files = await diskFiles(MODEL);
    expectError(await refusal(loadPipeline({ files, gpu, signal: AbortSignal.abort() })), "aborted");
    await expectNothingLeft(0);
  });

  test("stops at a signal between two tensors", async () => {
    const controller = new AbortController();
    const load = loadPipeline({
      files: await diskFiles(MODEL),
      gpu,
      signal: controller.signal,
      onProgress: ({ file }) => file === UNET && controller.abort(),
    });
    expectError(await refusal(load), "aborted");
    await expectNothingLeft(1);
  });
});

describe("one pipeline", () => {
  let pipeline: Pipeline;
  beforeAll(async () => {
    pipeline = await loadPipeline({ files: await diskFiles(MODEL), gpu });
    return () => pipeline.dispose();
  });
  const request = { prompt: "a red house", seed: 7, width: 64, height: 64, numInferenceSteps: 2 };
  const make = (options: Parameters<Pipeline["generate"]>[1] = {}): Promise<RawImage> =>
    pipeline.generate(request, options);

  test("makes the same bytes from the same seed, and others from another", async () => {
    const [first, second] = [await make(), await make()];
    expect(second.data).toEqual(first.data);
    expect((await pipeline.generate({ ...request, seed: 8 })).data).not.toEqual(first.data);
  });

  test("refuses a second picture while it makes the first, which is not disturbed", async () => {
    const expected = await make();
    const first = make();
    expectError(await refusal(make()), "busy", "Wait for it, or cancel it");
    expect((await first).data).toEqual(expected.data);
  });

  test("does not begin with a signal that has fired", async () => {
    const events: string[] = [];
    const run = make({ signal: AbortSignal.abort(), onStep: ({ type }) => events.push(type) });
    expectError(await refusal(run), "aborted");
    expect(events).toEqual([]);
  });

  test.each(["encode", "step", "decode"])("stops when cancelled in %s, and makes the next picture", async (stage) => {
    const expected = await make();
    const controller = new AbortController();
    let cancelled = 0;
    const run = make({
      signal: controller.signal,
      onStep: ({ type }) => {
        if (type !== stage) return;
        setTimeout(() => {
          cancelled = performance.now();
          controller.abort();
        });
      },
    });
    expectError(await refusal(run), "aborted", "cancelled");
    expect(performance.now() - cancelled).toBeLessThan(250);
    expect((await make()).data).toEqual(expected.data);
  });

  test.each([
    ["NaN", Float32Array.from({ length: 256 }, (_, i) => (i === 3 ? Number.NaN : 0.5)), "hold NaN at 3"],
    ["too few", new Float32Array(255), "have 255 values, 64x64 pixels need [1, 4, 8, 8] = 256"],
  ])("refuses start latents that are %s", async (_, latents, says) => {
    expectError(await refusal(make({ latents })), "invalid-input", `The start latents ${says}`);
  });
});
