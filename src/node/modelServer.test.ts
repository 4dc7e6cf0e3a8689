import { mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { createServer, request as httpRequest, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { listFiles, serveModels } from "./modelServer.ts";
import { readFileList } from "../weights/fileList.ts";

const CONTENT = "0123456789";
let folder: string;
let server: Server;
let port: number;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "mixdq-models-"));
  const root = path.join(folder, "models");
  const files: Record<string, string> = {
    "m/model_index.json": "{}",
    "m/unet/a b.safetensors": CONTENT,
    "m/empty.bin": "",
    "m/.hidden/x": "x",
    "pack/manifest.json": '{"format": "mixdq-pack"}',
    "pack/model_index.json": "{}",
    "loose/x.json": "{}",
    "../secret.txt": "secret",
  };
  for (const [name, content] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(root, name)), { recursive: true });
    await writeFile(path.join(root, name), content);
  }
  await symlink(path.join(folder, "secret.txt"), path.join(root, "m/out.json"));
  await symlink(folder, path.join(root, "m/outside"));
  await symlink(path.join(root, "m"), path.join(root, "m/round"));
  await symlink(path.join(root, "m/unet/a b.safetensors"), path.join(root, "m/in.safetensors"));
  server = createServer(serveModels(root));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(async () => {
  server.close();
  await rm(folder, { recursive: true });
});

interface Reply {
  readonly status: number;
  readonly headers: Record<string, string | undefined>;
  readonly body: string;
}

/** fetch would tidy the path. */
function ask(pathname: string, headers: Record<string, string> = {}, method = "GET"): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = httpRequest({ port, host: "127.0.0.1", path: pathname, headers, method }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.on("end", () => resolve({ status: response.statusCode!, headers: response.headers as never, body }));
    });
    sent.on("error", reject).end();
  });
}

const FILE = "/m/unet/a%20b.safetensors";

describe("a file", () => {
  test("comes whole, with its type, its length and what it can be asked by", async () => {
    const { status, headers, body } = await ask(`${FILE}?x=1`);
    expect([status, body]).toEqual([200, CONTENT]);
    expect(headers).toMatchObject({
      "content-type": "application/octet-stream",
      "content-length": "10",
      "accept-ranges": "bytes",
      "cache-control": "no-cache",
      etag: expect.stringMatching(/^"[\w-]+"$/),
      "last-modified": expect.stringMatching(/GMT$/),
    });
    expect((await ask("/m/model_index.json")).headers["content-type"]).toBe("application/json");
    expect(await ask("/m/empty.bin")).toMatchObject({ status: 200, body: "", headers: { "content-length": "0" } });
    expect(await ask("/m/in.safetensors")).toMatchObject({ status: 200, body: CONTENT });
  });

  test("is described by HEAD, whatever range it names", async () => {
    const { headers } = await ask(FILE);
    const head = await ask(FILE, { range: "bytes=2-3" }, "HEAD");
    expect(head).toMatchObject({ status: 200, body: "" });
    expect(head.headers).toMatchObject({ "content-length": "10", etag: headers.etag });
  });

  test("is not sent again to somebody who has it, and is once it has changed", async () => {
    const { etag, "last-modified": modified } = (await ask(FILE)).headers as Record<string, string>;
    const known: Record<string, string>[] = [
      { "if-none-match": etag },
      { "if-none-match": `"other", W/${etag}` },
      { "if-none-match": "*" },
      { "if-modified-since": modified },
    ];
    for (const headers of known)
      for (const method of ["GET", "HEAD"]) {
        const reply = await ask(FILE, headers, method);
        expect(reply).toMatchObject({ status: 304, body: "" });
        expect(reply.headers.etag).toBe(etag);
      }
    const other = { "if-none-match": '"other"', "if-modified-since": modified! };
    expect(await ask(FILE, other)).toMatchObject({ status: 200, body: CONTENT });

    const file = path.join(folder, "models/m/model_index.json");
    const before = (await ask("/m/model_index.json")).headers.etag!;
    await writeFile(file, "[]");
    await utimes(file, new Date(), new Date(Date.now() + 5000));
    expect(await ask("/m/model_index.json", { "if-none-match": before })).toMatchObject({ status: 200, body: "[]" });
  });

  test.each([
    ["bytes=0-0", "0", "0-0"],
    ["bytes=2-5", "2345", "2-5"],
    ["bytes=7-", "789", "7-9"],
    ["bytes=7-99", "789", "7-9"],
    ["bytes=-3", "789", "7-9"],
    ["bytes=-99", CONTENT, "0-9"],
  ])("comes in part for Range: %s", async (range, part, where) => {
    const reply = await ask(FILE, { range });
    expect(reply).toMatchObject({ status: 206, body: part });
    expect(reply.headers).toMatchObject({
      "content-range": `bytes ${where}/10`,
      "content-length": String(part.length),
    });
  });

  test.each(["bytes=10-", "bytes=99-100", "bytes=-0"])("has no bytes for Range: %s", async (range) => {
    const reply = await ask(FILE, { range });
    expect(reply.status).toBe(416);
    expect(reply.headers["content-range"]).toBe("bytes */10");
    expect((await ask("/m/empty.bin", { range })).status).toBe(416);
  });

  test.each(["bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=a-b", "0-1"])(
    "comes whole for Range: %s",
    async (range) => expect(await ask(FILE, { range })).toMatchObject({ status: 200, body: CONTENT }),
  );

  test("comes in part only of the version that If-Range names", async () => {
    const { etag, "last-modified": modified } = (await ask(FILE)).headers as Record<string, string>;
    const range = "bytes=7-";
    for (const same of [etag!, modified!]) expect((await ask(FILE, { range, "if-range": same })).body).toBe("789");
    for (const other of ['"other"', `W/${etag}`, new Date(0).toUTCString(), "nonsense"])
      expect(await ask(FILE, { range, "if-range": other })).toMatchObject({ status: 200, body: CONTENT });
  });

  test("is only read", async () => {
    const reply = await ask(FILE, {}, "POST");
    expect(reply).toMatchObject({ status: 405, headers: { allow: "GET, HEAD" } });
  });
});

test.each([
  ["/%ff", 400],
  ["/m/%", 400],
  ["/m/%zz", 400],
  ["/m/model_index.json%00", 400],
  ["/m/%00", 400],
  ["/../secret.txt", 400],
  ["/m/../../secret.txt", 400],
  ["/m/%2e%2e/%2e%2e/secret.txt", 400],
  ["/m%2f..%2f..%2fsecret.txt", 400],
  ["/m%2Fmodel_index.json", 400],
  ["/m/..%5c..%5csecret.txt", 400],
  ["/m/out.json", 404],
  ["/m/outside/secret.txt", 404],
  ["/m", 404],
  ["/m/", 404],
  ["/", 404],
  ["/m/model_index.json/x", 404],
  ["/m/nothing.json", 404],
  [`/${"x".repeat(5000)}`, 404],
])("%s is refused with %i, without a path of this machine", async (pathname, status) => {
  const reply = await ask(pathname);
  expect(reply.status).toBe(status);
  expect(reply.body).not.toContain(folder);
  expect(reply.body).not.toMatch(/[/\\]|secret/);
});

describe("the list of a model's files", () => {
  const FILES = [
    ["empty.bin", 0],
    ["in.safetensors", 10],
    ["model_index.json", 2],
    ["unet/a b.safetensors", 10],
  ];

  test("stands where it has no manifest, and names what is served", async () => {
    const { status, headers, body } = await ask("/m/manifest.json");
    expect(status).toBe(200);
    expect([...readFileList(body, "manifest.json")!]).toEqual(FILES);
    expect((await ask("/m/manifest.json", { "if-none-match": headers.etag! })).status).toBe(304);
  });

  test("never stands in a manifest's place, nor where there is no model", async () => {
    expect((await ask("/pack/manifest.json")).body).toContain("mixdq-pack");
    expect((await ask("/loose/manifest.json")).status).toBe(404);
    expect((await ask("/manifest.json")).status).toBe(404);
  });

  test("leaves out what is not wanted", async () => {
    const list = await listFiles(path.join(folder, "models/m"), [], (name) => name !== "unet");
    expect([...list.keys()]).toEqual(["empty.bin", "in.safetensors", "model_index.json"]);
  });
});
