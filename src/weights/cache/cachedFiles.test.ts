import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import type { MixdqError } from "../../base/errors.ts";
import { hubAddress, remoteFiles } from "../address.ts";
import type { Expected, ModelFiles } from "../files.ts";
import { sha256Of, startHub } from "../hub.testing.ts";
import { httpFiles } from "../http.ts";
import { breakOff, bytesOf, noise, serveFiles, type ServerOptions, type TestServer } from "../server.testing.ts";
import { cachedFiles } from "./cachedFiles.ts";
import { blockBytes } from "./journal.ts";
import { deleteModel, keptBytes, keptFiles, keptModel, listModels, type KeptModel } from "./models.ts";
import { hold } from "./locks.ts";
import { memoryStorage, type Storage } from "./storage.ts";

const BIG = noise(200_000);
const CONTENTS = { "model_index.json": '{"a": 1}', "unet/x.safetensors": BIG };
const PATH = "unet/x.safetensors";
const BLOCK = blockBytes(BIG.length);
const QUICK = { retryMs: 1, stallMs: 5000 };

let storage: Storage;
beforeEach(() => {
  storage = memoryStorage();
});

interface Visit {
  readonly files: ModelFiles;
  readonly model: KeptModel;
}

/** A page that is opened (again): nothing but the storage has stayed. */
async function visit(server: TestServer, { mustKeep = false, on = storage } = {}): Promise<Visit> {
  const source = httpFiles(server.url, QUICK);
  const model = await keptModel(on, source.location, source.location);
  return { files: cachedFiles(source, { model, mustKeep }), model };
}

async function read(files: ModelFiles, path = PATH, expected?: Expected): Promise<Uint8Array | undefined> {
  const stream = await files.open(path, undefined, expected);
  return stream && new Uint8Array(await new Response(stream.body).arrayBuffer());
}

/** Reads so many bytes, then goes away as a tab does that is closed: without a word. */
async function readPart(files: ModelFiles, bytes: number): Promise<void> {
  const reader = (await files.open(PATH))!.body.getReader();
  for (let got = 0; got < bytes;) got += (await reader.read()).value!.length;
  await reader.cancel();
}

const same = (got: Uint8Array | undefined, expected: Uint8Array): void =>
  expect(got && Buffer.compare(got, expected) === 0 && got.length === expected.length).toBe(true);

/** Requests that brought a body. */
const bodies = (server: TestServer): string[] =>
  server.asked.filter(({ method }) => method === "GET").map(({ path, range }) => `${path} ${range ?? ""}`.trim());

async function serve(contents: Record<string, Uint8Array | string> = CONTENTS, options: ServerOptions = {}) {
  return serveFiles(contents, options);
}

const refusal = (work: Promise<unknown>): Promise<MixdqError> =>
  work.then(
    () => expect.fail("it went well, expected an error"),
    (error: MixdqError) => error,
  );

describe("a second visit", () => {
  test.each<[string, ServerOptions]>([
    ["a strong ETag", {}],
    ["a weak ETag", { etag: (content) => `W/"${content.length}"` }],
    ["a date", { etag: null, lastModified: "Mon, 05 Oct 2015 10:00:00 GMT" }],
  ])("fetches nothing that its server has not changed, by %s", async (_, options) => {
    const server = await serve(CONTENTS, options);
    const first = await visit(server);
    expect(await first.files.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
    expect(await first.files.text("none.json")).toBeUndefined();
    same(await read(first.files), BIG);
    const before = bodies(server).length;
    const { files } = await visit(server);
    expect(await files.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
    expect(await files.size!(PATH)).toBe(BIG.length);
    same(await read(files), BIG);
    expect(bodies(server).length).toBe(before);
  });

  test("fetches what has changed, and only that", async () => {
    const server = await serve();
    const first = await visit(server);
    await first.files.text("model_index.json");
    same(await read(first.files), BIG);
    const other = noise(150_000, 7);
    server.files.set(PATH, other);
    const { files, model } = await visit(server);
    same(await read(files), other);
    expect(await files.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
    expect(bodies(server)).toEqual(["model_index.json", PATH, PATH]);
    same(await read(keptFiles(model)), other);
  });

  test("from a server that says nothing of versions fetches again", async () => {
    const server = await serve(CONTENTS, { etag: null });
    await read((await visit(server)).files);
    same(await read((await visit(server)).files), BIG);
    expect(bodies(server)).toEqual([PATH, PATH]);
  });

  test("works without a network, also for what was not there, and says so where something is missing", async () => {
    const server = await serve();
    const first = await visit(server);
    await first.files.text("model_index.json");
    await first.files.text("tokenizer/tokenizer.json");
    expect(await first.files.size!("unet/none.safetensors")).toBeUndefined();
    await read(first.files);
    server.close();
    const { files } = await visit(server);
    expect(await files.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
    expect(await files.text("tokenizer/tokenizer.json")).toBeUndefined();
    expect(await files.size!("unet/none.safetensors")).toBeUndefined();
    same(await read(files), BIG);
    expect(await refusal(files.text("vae/config.json"))).toMatchObject({
      code: "network",
      message: expect.stringMatching(/vae\/config\.json: no answer/),
    });
  });

  test("of a server in trouble takes what is kept", async () => {
    let isBroken = false;
    const special: ServerOptions["special"] = (_, __, response) => {
      if (isBroken) response.writeHead(500).end();
      return isBroken;
    };
    const server = await serve(CONTENTS, { special });
    await read((await visit(server)).files);
    isBroken = true;
    same(await read((await visit(server)).files), BIG);
  });

  test("finds what a hub's list says is the same without asking for a file", async () => {
    const hub = await startHub({ "a/b": CONTENTS });
    onTestFinished(() => hub.close());
    const open = async (): Promise<ModelFiles> => {
      const address = hubAddress("a/b", { host: hub.url, token: undefined })!;
      const source = remoteFiles(address, QUICK);
      return cachedFiles(source, { model: await keptModel(storage, source.location, "a/b"), mustKeep: false });
    };
    const first = await open();
    await first.text("model_index.json");
    same(await read(first), BIG);
    hub.asked.length = hub.askedCdn.length = 0;
    const second = await open();
    expect(await second.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
    same(await read(second), BIG);
    expect(hub.asked.map(({ path }) => path)).toEqual(["/api/models/a/b/tree/main?recursive=1"]);
    expect(hub.askedCdn).toEqual([]);
    hub.close();
    const offline = await open();
    expect(await offline.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
    same(await read(offline), BIG);
  });

  test("of a pack's file that is known by its SHA-256 asks for nothing at all", async () => {
    const server = await serve();
    const expected = { bytes: BIG.length, sha256: sha256Of(BIG) };
    same(await read((await visit(server)).files, PATH, expected), BIG);
    server.asked.length = 0;
    same(await read((await visit(server)).files, PATH, expected), BIG);
    expect(server.asked).toEqual([]);
    const other = { ...expected, sha256: "0".repeat(64) };
    await read((await visit(server)).files, PATH, other);
    expect(bodies(server)).toEqual([PATH]);
  });
});

describe("a load that is broken", () => {
  test("goes on with the block that it was in", async () => {
    const server = await serve();
    await readPart((await visit(server)).files, 100_000);
    const { files, model } = await visit(server);
    const kept = await keptBytes(model);
    expect(kept).toBeGreaterThan(100_000 - BLOCK);
    expect(kept % BLOCK).toBe(0);
    same(await read(files), BIG);
    expect(bodies(server)).toEqual([PATH, `${PATH} bytes=${kept}-${BIG.length - 1}`]);
  });

  test("at 20 moments reads at most 1.05 times the bytes from the network in all", async () => {
    const content = noise(4_000_000);
    const server = await serve({ [PATH]: content });
    let seed = 5;
    const chance = (): number => (seed = (seed * 16807) % 2147483647) / 2147483647;
    let total = content.length;
    for (let i = 0; i < 20; i++) {
      const { files, model } = await visit(server);
      const before = await keptBytes(model);
      const moment = Math.floor(before + 1 + chance() * 190_000);
      await readPart(files, moment);
      // What was read of a block that is not whole will be read again.
      const after = await keptBytes(model);
      expect(after).toBeGreaterThan(moment - BLOCK);
      total += Math.max(0, moment - after);
    }
    same(await read((await visit(server)).files), content);
    const begins = server.asked
      .filter(({ method }) => method === "GET")
      .map(({ range }) => Number(/\d+/.exec(range ?? "0")![0]));
    expect(begins).toEqual(begins.toSorted((a, b) => a - b));
    expect(total / content.length).toBeLessThan(1.05);
  });

  test("between any two writes leaves nothing that is wrong", async () => {
    const server = await serve();
    for (let writes = 0; ; writes++) {
      const kept = memoryStorage();
      let left = writes;
      // A tab that is killed: what was written before is there, the write itself is cut off, and no later one arrives.
      const dying: Storage = {
        ...kept,
        async write(name, at, bytes) {
          if (left-- > 0) return kept.write(name, at, bytes);
          if (left === -1) await kept.write(name, at, bytes.slice(0, bytes.length / 2));
          throw new Error("killed");
        },
      };
      same(await read((await visit(server, { on: dying })).files), BIG);
      const isOver = left > 0;
      same(await read((await visit(server, { on: kept })).files), BIG);
      const { model } = await visit(server, { on: kept });
      same(await read(keptFiles(model)), BIG);
      if (isOver) break;
      expect(writes).toBeLessThan(100);
    }
  });

  test("is not gone on with where the file has changed, or its server proves nothing", async () => {
    for (const options of [{ etag: null }, { etag: () => 'W/"a"' }] satisfies ServerOptions[]) {
      storage = memoryStorage();
      const server = await serve(CONTENTS, options);
      await readPart((await visit(server)).files, 100_000);
      same(await read((await visit(server)).files), BIG);
      expect(bodies(server)).toEqual([PATH, PATH]);
    }
    storage = memoryStorage();
    const server = await serve();
    await readPart((await visit(server)).files, 100_000);
    const other = noise(BIG.length, 9);
    server.files.set(PATH, other);
    same(await read((await visit(server)).files), other);
  });

  test("by the network goes on by itself, and is kept as one", async () => {
    let isFirst = true;
    const special: ServerOptions["special"] = (path, { method }, response) => {
      if (path !== PATH || method === "HEAD" || !isFirst) return false;
      isFirst = false;
      response.setHeader("etag", `"${sha256Of(BIG)}"`);
      return breakOff(response, BIG.subarray(0, 70_001), BIG.length);
    };
    const server = await serve(CONTENTS, { special });
    const { files, model } = await visit(server);
    same(await read(files), BIG);
    same(await read(keptFiles(model)), BIG);
    expect(bodies(server)).toEqual([PATH, expect.stringMatching(/ bytes=[67]\d{4}-$/)]);
  });
});

describe("what is kept and damaged", () => {
  const damage = async (
    model: KeptModel,
    change: (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>,
    ending: string,
  ) => {
    for (const { name } of await storage.list(model.key)) {
      if (!name.endsWith(ending)) continue;
      const bytes = await storage.read(`${model.key}/${name}`, 0, 1e9);
      await storage.remove(`${model.key}/${name}`);
      await storage.write(`${model.key}/${name}`, 0, change(bytes));
    }
  };
  const flip = (at: number) => (bytes: Uint8Array<ArrayBuffer>) => {
    bytes[at] ^= 1;
    return bytes;
  };

  test("by a bit is found, and its block fetched again", async () => {
    const server = await serve();
    const { model, files } = await visit(server);
    await read(files);
    await damage(model, flip(3 * BLOCK + 5), ".data");
    same(await read((await visit(server)).files), BIG);
    expect(bodies(server)).toEqual([PATH, `${PATH} bytes=${3 * BLOCK}-${4 * BLOCK - 1}`]);
    same(await read((await visit(server)).files), BIG);
    expect(bodies(server)).toHaveLength(2);
  });

  test.each([
    ["cut short", (bytes: Uint8Array<ArrayBuffer>) => bytes.slice(0, BIG.length - 10), ".data"],
    ["emptied", () => new Uint8Array(1), ".data"],
    ["without its journal's end", (bytes: Uint8Array<ArrayBuffer>) => bytes.slice(0, -20), ".kept"],
    ["without its journal", () => new Uint8Array(1), ".kept"],
    ["with a journal of noise", () => noise(5000), ".kept"],
  ])("%s is mended", async (_, change, ending) => {
    const server = await serve();
    const { model, files } = await visit(server);
    await read(files);
    await damage(model, change, ending);
    same(await read((await visit(server)).files), BIG);
    same(await read(keptFiles(model)), BIG);
  });

  test("in any bit of its journal gives the same bytes", async () => {
    const server = await serve();
    const { model, files } = await visit(server);
    await read(files);
    const [{ bytes }] = (await storage.list(model.key)).filter(({ name }) => name.endsWith(".kept"));
    for (let at = 0; at < bytes; at += 7) {
      await damage(model, flip(at), ".kept");
      same(await read((await visit(server)).files), BIG);
    }
  });

  test("says so without a network", async () => {
    const server = await serve();
    const { model, files } = await visit(server);
    await read(files);
    await damage(model, flip(10), ".data");
    server.close();
    expect(await refusal(read((await visit(server)).files))).toMatchObject({
      code: "integrity",
      message: expect.stringMatching(/the copy on this device is damaged at byte 0, and its source cannot be reached/),
    });
  });

  test("is not kept once its reader has said so", async () => {
    const server = await serve();
    const { files } = await visit(server);
    await read(files);
    await files.forget!(PATH);
    same(await read((await visit(server)).files), BIG);
    expect(bodies(server)).toEqual([PATH, PATH]);
  });
});

describe("want of room", () => {
  test("deletes the model that was not used for longest, else reads without keeping", async () => {
    storage = memoryStorage(520_000);
    const servers = [await serve(), await serve(), await serve()];
    for (const server of servers.slice(0, 2)) {
      await read((await visit(server)).files);
      await new Promise((resolve) => setTimeout(resolve, 5)); // another millisecond of use
    }
    await read((await visit(servers[0])).files);
    const { files } = await visit(servers[2]);
    await files.reserve!(BIG.length);
    same(await read(files), BIG);
    expect((await listModels(storage)).map(({ name }) => name)).toEqual([servers[2].url, servers[0].url]);

    storage = memoryStorage(100_000);
    const small = await visit(servers[0]);
    await small.files.reserve!(BIG.length);
    same(await read(small.files), BIG);
  });

  test("is an error with both numbers where the model must be kept, before anything is fetched or in the middle", async () => {
    storage = memoryStorage(100_000);
    const server = await serve();
    const { files } = await visit(server, { mustKeep: true });
    const error = await refusal(files.reserve!(50e6));
    expect(error).toMatchObject({
      code: "quota",
      message: expect.stringMatching(/50 MB are to be kept.* 1 MB free of 1 MB/),
    });
    expect(bodies(server)).toEqual([]);
    expect(await refusal(read(files))).toMatchObject({ code: "quota" });
  });

  test("never deletes what is being read", async () => {
    storage = memoryStorage(300_000);
    const [one, two] = [await serve(), await serve()];
    const { files, model } = await visit(one);
    await read(files);
    const stream = (await files.open(PATH))!;
    expect(await deleteModel(model)).toBe(false);
    same(await read((await visit(two)).files), BIG);
    same(new Uint8Array(await new Response(stream.body).arrayBuffer()), BIG);
    expect(await deleteModel(model)).toBe(true);
    expect(await keptBytes(model)).toBe(0);
  });
});

test("two tabs fetch a file once: the second waits for what the first keeps", async () => {
  const server = await serve();
  const [a, b] = [await visit(server), await visit(server)];
  const [one, two] = await Promise.all([read(a.files), read(b.files)]);
  same(one, BIG);
  same(two, BIG);
  expect(bodies(server)).toEqual([PATH]);
});

test("a tab that waits for another can be told not to", async () => {
  const server = await serve();
  const { files, model } = await visit(server);
  const release = await hold(`${model.key}/${PATH}`, "exclusive");
  const controller = new AbortController();
  const waiting = refusal(files.open(PATH, controller.signal));
  controller.abort();
  release();
  expect(await waiting).toMatchObject({ code: "aborted" });
});

test("a storage that fails is no reason not to load", async () => {
  const server = await serve();
  const broken: Storage = {
    ...storage,
    read: () => Promise.reject(new Error("gone")),
    write: () => Promise.reject(new Error("gone")),
  };
  const { files } = await visit(server, { on: broken });
  expect(await files.text("model_index.json")).toBe(CONTENTS["model_index.json"]);
  same(await read(files), BIG);
});

test("files of an unknown length are kept, too", async () => {
  const special: ServerOptions["special"] = (path, { method }, response) => {
    if (path !== "a.bin" || method === "HEAD") return false;
    response.setHeader("etag", '"x"').write(BIG);
    response.end();
    return true;
  };
  const server = await serve({ "a.bin": BIG, "empty.bin": bytesOf("") }, { special, etag: () => '"x"' });
  for (const path of ["a.bin", "empty.bin"]) {
    same(await read((await visit(server)).files, path), server.files.get(path)!);
    same(await read((await visit(server)).files, path), server.files.get(path)!);
  }
  expect(bodies(server)).toEqual(["a.bin", "empty.bin"]);
});
