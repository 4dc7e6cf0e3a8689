import { describe, expect, onTestFinished, test } from "vitest";
import { checkSupport } from "../api/support.ts";
import { env } from "../api/env.ts";
import { hubAddress, nameOfModel, remoteFiles } from "./address.ts";
import { startHub, type HubRepo, type TestHub } from "./hub.testing.ts";
import { findComponent } from "./folder.ts";
import { openModel } from "./pack.ts";
import { writeSafetensors } from "./safetensors.ts";
import { bytesOf } from "./server.testing.ts";

const HOST = "https://huggingface.co";
const settings = { host: `${HOST}/`, token: undefined };

describe("a model's name", () => {
  test.each([
    ["stabilityai/sdxl-turbo", "stabilityai/sdxl-turbo", "main", ""],
    ["hf://models/sdxl-turbo", "models/sdxl-turbo", "main", ""],
    ["a/b@v1.0", "a/b", "v1.0", ""],
    ["a/b@refs/pr/1#sub/folder/", "a/b", "refs/pr/1", "sub/folder"],
    ["a/b#unet-fp16", "a/b", "main", "unet-fp16"],
    [`${HOST}/a/b`, "a/b", "main", ""],
    [`${HOST}/a/b/tree/refs%2Fpr%2F1/sub`, "a/b", "refs/pr/1", "sub"],
  ])("%s is a hub's", (text, id, revision, folder) => {
    const address = hubAddress(text, settings);
    expect(address).toEqual({ kind: "hub", host: HOST, id, revision, folder, token: undefined });
    if (!id.startsWith("models/")) expect(hubAddress(nameOfModel(address!), settings)).toEqual(address);
  });

  test.each([
    "models/postcard",
    "./name/name",
    "/name/name",
    "name",
    "a/b/c",
    "../a/b",
    "a/b.safetensors",
    "a/b?token=1",
    "https://host/a/b",
    `${HOST}/a/b/resolve/main`,
    "",
  ])("%s is an address like any other", (text) => {
    expect(hubAddress(text, settings)).toBeUndefined();
  });

  test.each(["hf://a", "a/b@../x", "a/b#..", "a/b#c//d", "hf://a/b/c"])("%s is refused", (text) => {
    expect(() => hubAddress(text, settings)).toThrow(expect.objectContaining({ code: "invalid-input" }));
  });

  test("needs a hub's address that is one", () => {
    for (const host of ["", "huggingface.co", "ftp://user:secret@host"])
      expect(() => hubAddress("a/b", { host, token: undefined })).toThrow(/^(?!.*secret).*expected http/);
  });
});

const unet = writeSafetensors({ a: { dtype: "F32", shape: [4], data: new Float32Array(4) } });
const MODEL = {
  "model_index.json": '{"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]}',
  "unet/diffusion_pytorch_model.fp16.safetensors": unet,
  "unet/diffusion_pytorch_model.safetensors": new Uint8Array(2 * unet.length),
  "unet/config.json": "{}",
};

async function hubOf(repos: Parameters<typeof startHub>[0], options?: { pageSize: number }): Promise<TestHub> {
  const hub = await startHub(repos, options);
  onTestFinished(() => hub.close());
  return hub;
}

const filesOf = (hub: TestHub, name: string, token?: string) =>
  remoteFiles(hubAddress(name, { host: hub.url, token })!, { retryMs: 1 });

const within = (folder: string, token?: string): HubRepo => ({
  files: new Map(Object.entries(MODEL).map(([path, content]) => [folder + path, bytesOf(content)])),
  ...(token !== undefined && { token }),
});

describe("a model on a hub", () => {
  test("is listed page by page and never asked for what is not there", async () => {
    const hub = await hubOf({ "a/b": MODEL }, { pageSize: 2 });
    const { files, pack } = await openModel(filesOf(hub, "a/b"));
    expect(pack).toBeUndefined();
    expect(await files.text("model_index.json")).toBe(MODEL["model_index.json"]);
    expect(await files.text("tokenizer/vocab.json")).toBeUndefined();
    const found = await findComponent(files, "unet", { precision: "fp16" });
    expect(found.bytes).toBe(unet.length);
    const names = [];
    for await (const tensor of found.tensors()) names.push(tensor.name);
    expect(names).toEqual(["a"]);
    await expect(findComponent(files, "vae", { precision: "fp16" })).rejects.toMatchObject({ code: "invalid-model" });
    expect([...hub.asked, ...hub.askedCdn].map(({ status }) => status)).toEqual([200, 200, 200, 200, 302, 200]);
  });

  test("may lie in a folder of another revision", async () => {
    const repo = { ...within("sub/one/"), revisions: ["refs/pr/1"] };
    const hub = await hubOf({ "a/b": repo });
    const files = filesOf(hub, "a/b@refs/pr/1#sub/one");
    expect(await files.text("unet/config.json")).toBe("{}");
    expect(await files.size!("unet/diffusion_pytorch_model.safetensors")).toBe(2 * unet.length);
    await expect(filesOf(hub, "a/b").text("unet/config.json")).rejects.toThrow(
      `${hub.url}/a/b: got status 404 Not Found, expected the list of its files. The model has no revision main.`,
    );
  });

  test("goes on after a break at a new signed address, from where it was", async () => {
    const hub = await hubOf({ "a/b": { ...MODEL, "big.bin": new Uint8Array(100_000).fill(7) } });
    let breaks = 0;
    hub.fault = (path, content, { headers }, response) => {
      if (path !== "big.bin" || breaks++ > 0) return false;
      expect(headers.range).toBeUndefined();
      response.setHeader("content-length", content.length);
      response.write(content.subarray(0, 40_000), () => setTimeout(() => response.socket?.destroy(), 20));
      return true;
    };
    const stream = await filesOf(hub, "a/b").open("big.bin");
    expect((await new Response(stream!.body).arrayBuffer()).byteLength).toBe(100_000);
    expect(hub.askedCdn.map(({ range }) => range)).toEqual([undefined, "bytes=40000-"]);
    expect(hub.askedCdn[0].path).not.toBe(hub.askedCdn[1].path);
  });

  test("gets the token, and nobody else does; no message shows it", async () => {
    const hub = await hubOf({
      "a/b": within("", "hf_secret"),
      "a/gated": { ...within("", "hf_secret"), isGated: true },
    });
    const files = filesOf(hub, "a/b", "hf_secret");
    const stream = await files.open("unet/diffusion_pytorch_model.fp16.safetensors");
    await new Response(stream!.body).arrayBuffer();
    expect(hub.asked.map(({ authorization }) => authorization)).toEqual(["Bearer hf_secret", "Bearer hf_secret"]);
    expect(hub.askedCdn.map(({ authorization }) => authorization)).toEqual([undefined]);

    const licence = new RegExp(`accept its licence at ${hub.url}/a/`);
    for (const [name, token] of [
      ["a/b", undefined],
      ["a/b", "hf_wrong"],
      ["a/gated", undefined],
      ["a/gated", "hf_wrong"],
      ["a/none", undefined],
    ] as const) {
      const error: any = await filesOf(hub, name, token)
        .text("model_index.json")
        .catch((error: unknown) => error);
      expect(error).toMatchObject({ code: "network", message: expect.stringMatching(licence) });
      expect(error.message).toMatch(token === undefined ? /HF_TOKEN/ : /access token that was given/);
      expect(error.message).not.toMatch(/hf_/);
    }
  });

  test("whose list goes on at another host is not followed there", async () => {
    const hub = await hubOf({ "a/b": MODEL }, { pageSize: 2 });
    const other = await hubOf({ "a/b": MODEL });
    hub.listOrigin = other.url;
    expect(await filesOf(hub, "a/b", "hf_secret").text("unet/config.json")).toBeUndefined();
    expect(other.asked).toEqual([]);
  });

  test("that gives a pointer of Git LFS in a file's place says so", async () => {
    const hub = await hubOf({ "a/b": MODEL });
    hub.fault = (path, _, __, response) => {
      if (!path.endsWith(".safetensors")) return false;
      const pointer = bytesOf("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
      response.setHeader("content-length", pointer.length).end(pointer);
      return true;
    };
    await expect(filesOf(hub, "a/b").open("unet/diffusion_pytorch_model.safetensors")).rejects.toMatchObject({
      code: "integrity",
      message: expect.stringMatching(/got 70 bytes, expected \d+ as the hub lists\. It is a Git LFS pointer/),
    });
  });

  test("is looked at before any download: checkSupport by id", async () => {
    const hub = await hubOf({ "a/b": MODEL, "a/gated": within("", "hf_secret") });
    const before = { ...env };
    onTestFinished(() => void Object.assign(env, before));
    Object.assign(env, { remoteHost: hub.url });
    expect((await checkSupport({ model: "a/b" })).modelBytes).toBe(unet.length);
    expect(hub.askedCdn).toEqual([]);
    expect((await checkSupport({ model: "a/gated" })).reasons).toContainEqual({
      code: "network",
      message: expect.stringMatching(/licence.*token/),
    });
    env.accessToken = "hf_secret";
    expect((await checkSupport({ model: "a/gated" })).modelBytes).toBe(unet.length);
  });
});
