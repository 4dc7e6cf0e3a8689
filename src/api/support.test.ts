import { afterEach, expect, test, vi } from "vitest";
import { modelUrl } from "./env.ts";
import { checkSupport } from "./support.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const LIMITS = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16_384,
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
};

function stubGpu(limits: Partial<typeof LIMITS> | null): void {
  const info = { vendor: "acme", architecture: "rocket", device: "", description: "" };
  const adapter = limits && { info, features: new Set(["shader-f16"]), limits: { ...LIMITS, ...limits } };
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => adapter } });
}

test("without WebGPU it says so, and what works instead", async () => {
  vi.stubGlobal("navigator", {});
  const support = await checkSupport();
  expect(support).toMatchObject({ ok: false, backends: ["ort-wasm"], adapter: "" });
  expect(support.reasons[0].code).toBe("no-webgpu");
  await expect(checkSupport({ backend: "ort-wasm" })).resolves.toMatchObject({ ok: true, reasons: [] });
});

test("without an adapter it says where to look", async () => {
  stubGpu(null);
  const { reasons } = await checkSupport();
  expect(reasons).toMatchObject([{ code: "no-adapter", message: expect.stringContaining("hardware acceleration") }]);
});

test("a page that is not secure is told about https", async () => {
  vi.stubGlobal("isSecureContext", false);
  expect((await checkSupport()).reasons[0]).toMatchObject({ code: "insecure-context" });
});

test("an adapter below a needed limit is named with both numbers", async () => {
  stubGpu({ maxStorageBufferBindingSize: 1000 });
  const { ok, reasons } = await checkSupport();
  expect(ok).toBe(false);
  expect(reasons[0].message).toMatch(/acme.*maxStorageBufferBindingSize.*1000.*134217728/);
});

test("a good adapter runs every backend", async () => {
  stubGpu({});
  const support = await checkSupport();
  expect(support).toMatchObject({ ok: true, adapter: "acme rocket", features: ["shader-f16"], modelBytes: 0 });
  expect(support.backends).toEqual(["webgpu", "ort-webgpu", "ort-wasm"]);
});

test("the bytes of a model are the sizes of the weight files it would fetch", async () => {
  stubGpu({});
  const sizes: Record<string, number> = {
    "unet/diffusion_pytorch_model.fp16.safetensors": 500,
    "unet/diffusion_pytorch_model.safetensors": 1000,
    "text_encoder/model.safetensors": 30,
    "vae/diffusion_pytorch_model.safetensors": 4,
  };
  const index = {
    unet: ["diffusers", "X"],
    vae: ["diffusers", "X"],
    text_encoder: ["transformers", "X"],
    text_encoder_2: [null, null],
  };
  vi.stubGlobal("fetch", async (url: string | URL | Request) => {
    const path = String(url instanceof Request ? url.url : url).replace("https://host/model/", "");
    if (path === "model_index.json") return new Response(JSON.stringify(index));
    if (!(path in sizes)) return new Response("", { status: 404 });
    return new Response(new Uint8Array(sizes[path]), { headers: { "content-length": String(sizes[path]) } });
  });
  await expect(checkSupport({ model: "https://host/model" })).resolves.toMatchObject({ ok: true, modelBytes: 534 });
  const fp32 = await checkSupport({ model: "https://host/model", precision: "fp32" });
  expect(fp32.modelBytes).toBe(1034);
});

test("a folder without a model is a reason, not an exception", async () => {
  stubGpu({});
  vi.stubGlobal("fetch", async () => new Response("", { status: 404 }));
  const { ok, reasons } = await checkSupport({ model: "https://host/nothing" });
  expect(ok).toBe(false);
  expect(reasons).toMatchObject([{ code: "model", message: expect.stringContaining("model_index.json") }]);
});

test("a model that cannot be fetched says whether this device is offline, the host fails, or it is no model", async () => {
  stubGpu({});
  const reasonFor = async (answer: () => Response, onLine = true): Promise<unknown> => {
    vi.stubGlobal("navigator", { ...navigator, onLine });
    vi.stubGlobal("fetch", async () => answer());
    const { ok, reasons } = await checkSupport({ model: "https://u:secret@host/m?token=secret", stallMs: 50 });
    expect(ok).toBe(false);
    expect(reasons[0].message).toMatch("https://host/m");
    expect(reasons[0].message).not.toMatch("secret");
    return reasons.map(({ code }) => code);
  };
  const unreachable = (): never => {
    throw new TypeError("Failed to fetch");
  };
  // What fails is asked for again, ever later.
  vi.useFakeTimers({ shouldAdvanceTime: true, advanceTimeDelta: 1000 });
  expect(await reasonFor(unreachable, false)).toEqual(["offline"]);
  expect(await reasonFor(unreachable)).toEqual(["offline"]);
  expect(await reasonFor(() => new Response("", { status: 503 }))).toEqual(["network"]);
  expect(await reasonFor(() => new Response("", { status: 401 }))).toEqual(["network"]);
  expect(await reasonFor(() => new Response("", { status: 404 }))).toEqual(["model"]);
});

test("a model whose host is silent ends with a reason", async () => {
  stubGpu({});
  vi.stubGlobal("fetch", () => new Promise(() => {}));
  const { reasons } = await checkSupport({ model: "https://host/m", stallMs: 50 });
  expect(reasons).toMatchObject([{ code: "network", message: expect.stringMatching("sent nothing for 0.05 s") }]);
});

test("a wrong address shows neither password nor token", () => {
  for (const wrong of ["https://u:se?cret@host/m", "m/without/page?token=secret"])
    expect(() => modelUrl(wrong)).toThrow(expect.objectContaining({ message: expect.not.stringMatching("cret") }));
});

test("a model without an address is refused with an example", () => {
  expect(() => modelUrl("")).toThrow(/models\/postcard/);
  expect(() => modelUrl("relative/without/a/page")).toThrow(/expected the URL/);
});
