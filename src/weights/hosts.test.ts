/** A model's folder on hosts that say in their own ways that a file is not there, and what is fetched from them. */
import type { ServerResponse } from "node:http";
import { describe, expect, test } from "vitest";
import { findComponent, readJson } from "./folder.ts";
import type { ModelFiles } from "./files.ts";
import { httpFiles } from "./http.ts";
import { openModel } from "./pack.ts";
import { writeFileList } from "./fileList.ts";
import { writeSafetensors } from "./safetensors.ts";
import { bytesOf, serveFiles, type ServerOptions } from "./server.testing.ts";

const says = (status: number, body: string, type?: string) => (response: ServerResponse) =>
  void response.writeHead(status, type === undefined ? {} : { "content-type": type }).end(body);

const HOSTS: [string, (response: ServerResponse) => void][] = [
  ["404", says(404, "Entry not found")],
  ["410", says(410, "Gone")],
  ["400", says(400, "bad")],
  ["401, a hub's", says(401, "Invalid username or password.")],
  ["403, a bucket that may not be listed", says(403, "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")],
  ["451", says(451, "no")],
  ["405", says(405, "no")],
  ["204", says(204, "")],
  ["a page", says(200, "<!doctype html><title>app</title>", "text/html; charset=utf-8")],
  ["a page without a type", says(200, "\n <html><body>Hello</body></html>")],
  ["a page as text", says(200, "<!-- nothing -->", "text/plain")],
  ["an XML page", says(200, "<?xml version='1.0'?><Error/>", "application/xml")],
  ["JSON", says(200, '{"error":"Entry not found"}', "application/json")],
  ["FastAPI's JSON", says(200, '{"detail": "Not Found"}', "application/json")],
  ["a problem", says(200, '{"type":"about:blank","title":"Not Found","status":404}', "application/problem+json")],
  ["JSON null", says(200, "null", "application/json")],
  ["text", says(200, "Not found", "text/plain")],
  ["text without a type", says(200, "The file does not exist.\n")],
];

const tensor = (...names: string[]): Uint8Array =>
  writeSafetensors(
    Object.fromEntries(names.map((name) => [name, { dtype: "F32", shape: [1], data: Float32Array.of(1) }])),
  );

const MODEL = {
  "model_index.json": '{"_class_name": "X"}',
  "unet/diffusion_pytorch_model.safetensors": tensor("a"),
  "vae/diffusion_pytorch_model.safetensors.index.json": JSON.stringify({ weight_map: { b: "s.safetensors" } }),
  "vae/s.safetensors": tensor("b"),
  "tokenizer/vocab.json": '{"a": 0}',
  "tokenizer/merges.txt": "#version: 0.2\na b\n",
};

async function names(files: ModelFiles, component: string): Promise<string[]> {
  const found = [];
  const weights = await findComponent(files, component, { precision: "fp16" });
  for await (const { name } of weights.tensors()) found.push(name);
  return found;
}

const filesOf = async (contents: Record<string, Uint8Array | string>, options: ServerOptions = {}) => {
  const server = await serveFiles(contents, options);
  return { server, files: httpFiles(server.url, { retryMs: 1 }) };
};

describe.each(HOSTS)("a host that says %s of a file that is not there", (what, missing) => {
  test("has all optional files missing, and the others found", async () => {
    const { files } = await filesOf(MODEL, { missing });
    const opened = await openModel(files);
    expect(opened).toEqual({ files, pack: undefined });
    expect(await readJson(files, "model_index.json")).toEqual({ _class_name: "X" });
    expect(await names(files, "unet")).toEqual(["a"]);
    expect(await names(files, "vae")).toEqual(["b"]);
    const optional = [
      "tokenizer/tokenizer.json",
      "tokenizer/special_tokens_map.json",
      "mixdq.w4a8.json",
      "a/merges.txt",
    ];
    for (const path of optional) expect(await files.text(path), path).toBeUndefined();
    expect(await files.text("tokenizer/vocab.json")).toBe(MODEL["tokenizer/vocab.json"]);
    expect(await files.text("tokenizer/merges.txt")).toBe(MODEL["tokenizer/merges.txt"]);
  });

  test("has a required file named, with its status where that refuses it", async () => {
    const status = Number(/^\d\d\d/.exec(what)?.[0] ?? 404);
    const isRefused = status !== 404 && status !== 410;
    const { server, files } = await filesOf({}, { missing });
    const got = isRefused ? `got status ${status}` : "no such file";
    const code = isRefused ? "network" : "invalid-model";
    await expect(readJson(files, "unet/config.json")).rejects.toThrow(`${server.url}/unet/config.json: ${got}`);
    await expect(readJson(files, "unet/config.json")).rejects.toMatchObject({ code });
    await expect(names(files, "unet")).rejects.toMatchObject({ code });
    await expect(names(files, "unet")).rejects.toThrow(/diffusion_pytorch_model\.fp16\.safetensors/);
    if (isRefused) await expect(names(files, "unet")).rejects.toThrow(`status ${status}`);
  });
});

test.each([null, "text/html; charset=utf-8", "text/plain", "application/octet-stream", "application/xml"])(
  "what is served as %s is taken for what it is",
  async (type) => {
    const { files } = await filesOf(MODEL, { type, missing: says(200, "<html>", "text/html") });
    expect(await readJson(files, "model_index.json")).toEqual({ _class_name: "X" });
    expect(await names(files, "unet")).toEqual(["a"]);
    expect(await names(files, "vae")).toEqual(["b"]);
  },
);

/** A safetensors file whose header has exactly `length` bytes. */
function withHeader(length: number): Uint8Array {
  const json = JSON.stringify({ a: { dtype: "F32", shape: [1], data_offsets: [0, 4] } });
  const file = new Uint8Array(8 + length + 4);
  new DataView(file.buffer).setUint32(0, length, true);
  file.fill(0x20, 8, 8 + length);
  file.set(bytesOf(json), 8);
  return file;
}

test.each([
  0x3c20, 0x13c20, 0x3c09, 0x3c0a, 0x3c0d, 0x3c2020, 0x213c0a, 0x203c, 0x683c, 0x74683c, 0x227b, 0x205b, 0x6576,
])("weights whose header has %i bytes, which look like a page, are weights", async (length) => {
  for (const type of ["application/octet-stream", "text/html", null]) {
    const content = { "unet/diffusion_pytorch_model.safetensors": withHeader(length) };
    const { files } = await filesOf(content, { type });
    expect(await names(files, "unet")).toEqual(["a"]);
  }
});

test("a Git LFS pointer in a file's place is named, with the cure", async () => {
  const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
  for (const type of ["text/plain", "application/octet-stream"]) {
    const contents = { "unet/diffusion_pytorch_model.safetensors": pointer, "unet/config.json": pointer };
    const { server, files } = await filesOf(contents, { type });
    for (const reading of [readJson(files, "unet/config.json"), names(files, "unet")])
      await expect(reading).rejects.toMatchObject({
        code: "invalid-model",
        message: expect.stringMatching(`^${server.url}/unet/.* Git LFS pointer.*git lfs pull`),
      });
  }
});

describe("a model is fetched", () => {
  const weigh = (contents: Record<string, Uint8Array | string>, sent: ReadonlyMap<string, number>): void => {
    for (const [path, bytes] of sent) expect(bytes, path).toBe(bytesOf(contents[path]).length);
  };

  test.each<[string, ServerOptions]>([
    ["that knows ranges", {}],
    ["that does not", { ranges: false, etag: null }],
  ])("once, no byte of its weights twice, from a server %s", async (_, options) => {
    const { server, files } = await filesOf(MODEL, options);
    await openModel(files);
    for (const component of ["unet", "vae"]) {
      const weights = await findComponent(files, component, { precision: "fp16" });
      for await (const _ of weights.tensors()) void _;
    }
    weigh(MODEL, new Map([...server.sent].filter(([path]) => path in MODEL)));
    const got = server.asked.filter(({ method, path }) => method === "GET" && path in MODEL).map(({ path }) => path);
    expect(got).toEqual([...new Set(got)]);
  });

  test("without asking for anything that its list does not name", async () => {
    const list = new Map(Object.entries(MODEL).map(([path, content]) => [path, bytesOf(content).length]));
    const { server, files: source } = await filesOf({ ...MODEL, "manifest.json": writeFileList(list) });
    const { files } = await openModel(source);
    expect(await names(files, "unet")).toEqual(["a"]);
    expect(await names(files, "vae")).toEqual(["b"]);
    expect(await files.text("tokenizer/tokenizer.json")).toBeUndefined();
    expect(await files.open("tokenizer/tokenizer.json")).toBeUndefined();
    await expect(names(files, "text_encoder")).rejects.toThrow("text_encoder: no weights; looked for model.fp16");
    expect(server.asked.map(({ method, path }) => `${method} ${path}`)).toEqual([
      "GET manifest.json",
      "GET unet/diffusion_pytorch_model.safetensors",
      "GET vae/diffusion_pytorch_model.safetensors.index.json",
      "GET vae/s.safetensors",
    ]);
  });

  test.each([
    ['"version": 2, "files": {}', 'got "version" 2, expected 1'],
    ['"version": 1', 'got "files" nothing, expected a JSON object'],
    ['"version": 1, "files": {"a": 3}', 'files: got "a" 3, expected a JSON object'],
    ['"version": 1, "files": {"a": {"bytes": -1}}', 'files: a: got "bytes" -1, expected a whole number'],
  ])("by no list that is wrong: %s", async (rest, message) => {
    const { files } = await filesOf({ "manifest.json": `{"format": "mixdq-files", ${rest}}` });
    await expect(openModel(files)).rejects.toMatchObject({
      code: "invalid-model",
      message: expect.stringMatching(message),
    });
  });
});
