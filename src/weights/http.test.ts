import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { afterEach, describe, expect, test, vi } from "vitest";
import { httpFiles, UnreachableError } from "./http.ts";
import { breakOff, fallSilent, noise, serveFiles, type TestServer } from "./server.testing.ts";

afterEach(() => vi.unstubAllGlobals());

/** Retries without delay. */
const QUICK = { retryMs: 1 };

async function refusal(promise: Promise<unknown>): Promise<any> {
  return promise.then(
    () => expect.fail("it went well, expected an error"),
    (error: unknown) => error,
  );
}

async function read(url: string, path: string, options = {}): Promise<Uint8Array> {
  const stream = await httpFiles(url, { ...QUICK, ...options }).open(path);
  return new Uint8Array(await new Response(stream!.body).arrayBuffer());
}

/** Much faster than toEqual for large arrays. */
function expectSame(got: Uint8Array, expected: Uint8Array): void {
  expect(got.length).toBe(expected.length);
  expect(Buffer.compare(got, expected)).toBe(0);
}

describe("an address", () => {
  test.each([
    ["https://host/models/m", "https://host/models/m/unet/config.json"],
    ["https://host/models/m/?token=1#x", "https://host/models/m/unet/config.json?token=1"],
    ["https://host/models/m?a=1&b=%2F", "https://host/models/m/unet/config.json?a=1&b=%2F"],
  ])("%s is that of a folder, with or without its last slash, and keeps its query", async (base, expected) => {
    const asked: string[] = [];
    vi.stubGlobal("fetch", async (url: string) => {
      asked.push(url);
      return new Response("{}");
    });
    const files = httpFiles(base);
    expect(await files.text("unet/config.json")).toBe("{}");
    expect(asked).toEqual([expected]);
    expect(files.location).toBe("https://host/models/m");
  });

  test.each(["models/m", "ftp://host/m", "", "https://user:se?cret@host/m", "https://user:se cret@host:x/m"])(
    "%s is refused, without its password",
    (base) => {
      expect(() => httpFiles(base)).toThrow(expect.objectContaining({ code: "invalid-input" }));
      expect(() => httpFiles(base)).not.toThrow(/cret/);
    },
  );

  test("with a name and password logs in; neither they nor a token are ever shown", async () => {
    const headers: unknown[] = [];
    const { url } = await serveFiles(
      {},
      {
        special: (path, request, response) => {
          headers.push(request.headers.authorization, request.url);
          const status = { "refused.json": 401, "broken.json": 500 }[path];
          if (status) response.writeHead(status).end();
          else breakOff(response, noise(10), 100);
          return true;
        },
      },
    );
    const secret = `${url.replace("//", "//k%C3%A4thi:s%40cret@")}/?token=hidden#part`;
    const files = httpFiles(secret, QUICK);
    expect(files.location).toBe(url);
    const stream = await files.open("cut.bin");
    const errors = [
      await refusal(files.text("broken.json")),
      await refusal(new Response(stream!.body).arrayBuffer()),
      await refusal(
        httpFiles(`${url.replace(/:\d+/, ":1").replace("//", "//käthi:s@cret@")}?token=hidden`, QUICK).text("a"),
      ),
    ];
    expect(await files.text("refused.json")).toBeUndefined();
    expect(files.refusalOf!("refused.json")).toBe("status 401 Unauthorized");
    expect(headers[0]).toBe(`Basic ${Buffer.from("käthi:s@cret").toString("base64")}`);
    expect(headers[1]).toBe("/m/cut.bin?token=hidden");
    for (const error of errors) {
      expect(error.code).toBe("network");
      expect(error.message).toContain("http://127.0.0.1:");
      const all = [error.message, error.stack, String(error.cause), error.cause?.stack, String(error.cause?.cause)];
      expect(all.join(" ")).not.toMatch(/cret|hidden|thi:/);
    }
  });
});

describe("a file", () => {
  test("opens with its size, unless it comes compressed", async () => {
    const answers = [
      new Response("abcd", { headers: { "content-length": "4" } }),
      new Response("abcd", { headers: { "content-length": "2", "content-encoding": "br" } }),
    ];
    vi.stubGlobal("fetch", async () => answers.shift());
    const files = httpFiles("https://host/m");
    const stream = await files.open("x");
    expect(stream?.bytes).toBe(4);
    expect(await new Response(stream!.body).text()).toBe("abcd");
    expect((await files.open("x"))?.bytes).toBe(0);
  });

  test("tells its size without being read", async () => {
    const server = await serveFiles({ "a.safetensors": noise(5000) });
    expect(await httpFiles(server.url).size!("a.safetensors")).toBe(5000);
    expect(server.asked).toEqual([{ method: "HEAD", path: "a.safetensors", range: undefined }]);
    expect(server.sent.size).toBe(0);
  });

  test.each<[string, (response: ServerResponse) => unknown]>([
    ["400", (response) => response.writeHead(400).end()],
    ["403", (response) => response.writeHead(403).end()],
    ["405", (response) => response.writeHead(405).end()],
    ["500", (response) => response.writeHead(500).end()],
    ["501", (response) => response.writeHead(501).end()],
    ["a break", (response) => response.socket!.destroy()],
    ["silence", () => undefined],
  ])("tells its size although the server answers HEAD with %s", async (_, answer) => {
    const content = noise(5000);
    const server = await serveFiles(
      { a: content },
      {
        special: (_path, { method }, response) => {
          if (method === "HEAD") answer(response);
          return method === "HEAD";
        },
      },
    );
    expect(await httpFiles(server.url, { stallMs: 400 }).size!("a")).toBe(5000);
    expect(server.sent.get("a")).toBe(64);
  });

  test("of text has a limit, whether its server says how long it is or not", async () => {
    const spaces = Buffer.alloc(2 ** 20, " ");
    const { url } = await serveFiles(
      {},
      {
        special: (path, _, response) => {
          if (path === "long.json") response.setHeader("content-length", 2 ** 40);
          const more = (): void => {
            while (!response.destroyed && response.write(spaces));
          };
          response.on("drain", more);
          more();
          return true;
        },
      },
    );
    for (const path of ["long.json", "endless.json"]) {
      const error = await refusal(httpFiles(url).text(path));
      expect(error).toMatchObject({ code: "invalid-model" });
      expect(error.message).toMatch(`${url}/${path}: got`);
      expect(error.message).toMatch("expected a text of at most 67108864");
    }
  });

  test("is not asked for once the signal has fired", async () => {
    const server = await serveFiles({ a: "ok" });
    const signal = AbortSignal.abort();
    expect(await refusal(httpFiles(server.url).text("a", signal))).toMatchObject({ code: "aborted" });
    expect(server.asked).toEqual([]);
  });

  test("that waits for its next try is given up at once with the signal", async () => {
    const controller = new AbortController();
    const { url } = await serveFiles(
      {},
      {
        special: (_path, _request, response) => {
          response.writeHead(503, { "retry-after": "25" }).end();
          setTimeout(() => controller.abort(), 20);
          return true;
        },
      },
    );
    expect(await refusal(httpFiles(url).text("a", controller.signal))).toMatchObject({ code: "aborted" });
  });
});

describe("a request that fails", () => {
  const failing = (times: number, status: number): Promise<TestServer> =>
    serveFiles(
      { a: "ok" },
      {
        special: (_path, _request, response, count) => {
          if (count >= times) return false;
          if (status === 0) response.socket!.destroy();
          else response.writeHead(status).end("later");
          return true;
        },
      },
    );

  test.each([0, 408, 425, 429, 500, 502, 503])("with %s is made again, up to three times", async (status) => {
    const server = await failing(3, status);
    expect(await httpFiles(server.url, QUICK).text("a")).toBe("ok");
    expect(server.asked).toHaveLength(4);
  });

  test("again and again is reported with the file and the status", async () => {
    const server = await failing(99, 503);
    const error = await refusal(httpFiles(server.url, QUICK).text("a"));
    expect(error).toMatchObject({ code: "network" });
    expect(error.message).toMatch(`${server.url}/a: got status 503 Service Unavailable, expected 200.`);
    expect(server.asked).toHaveLength(4);
  });

  test("because nothing listens there says so", async () => {
    const server = await serveFiles({});
    server.close();
    const error = await refusal(httpFiles(server.url, QUICK).text("a"));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error.message).toMatch(`${server.url}/a: no answer (TypeError: fetch failed: connect ECONNREFUSED`);
    expect(error.message).toMatch("is this device offline?");
  });

  test("without a network says that, and is not repeated", async () => {
    let asked = 0;
    vi.stubGlobal("navigator", { onLine: false });
    vi.stubGlobal("fetch", async () => {
      asked++;
      throw new TypeError("Failed to fetch");
    });
    const error = await refusal(httpFiles("https://host/m").text("a"));
    expect(error).toBeInstanceOf(UnreachableError);
    expect(error).toMatchObject({
      code: "network",
      message: "https://host/m/a: this device is offline. Connect it and try again.",
    });
    expect(asked).toBe(1);
  });

  test("because the other site does not let the page read says CORS, not offline", async () => {
    vi.stubGlobal("location", new URL("https://page/"));
    vi.stubGlobal("fetch", async (_: string, { mode }: RequestInit) => {
      if (mode === "no-cors") return Response.error();
      throw new TypeError("Failed to fetch");
    });
    const error = await refusal(httpFiles("https://host/m", QUICK).text("a"));
    expect(error).toMatchObject({ code: "network", message: expect.stringMatching("does not let this page read") });
    expect(error).not.toBeInstanceOf(UnreachableError);
  });
});

describe("silence", () => {
  const LIMIT = { stallMs: 200 };

  test.each(["headers", "body"])("in place of the %s ends after the limit, asked for twice", async (what) => {
    const server = await serveFiles(
      { a: noise(100) },
      { special: (_path, _request, response) => what === "headers" || fallSilent(response, noise(10), 100) },
    );
    const error = await refusal(read(server.url, "a", LIMIT));
    expect(error).toMatchObject({ code: "network" });
    expect(error.message).toMatch(`${server.url}/a: the server sent nothing for 0.2 s`);
    expect(server.asked).toHaveLength(2);
  });

  test("of a size, a sniffed beginning and a text ends, too", async () => {
    const silent = await serveFiles({}, { special: () => true });
    const files = httpFiles(silent.url, LIMIT);
    for (const asking of [files.size!("a.safetensors"), files.text("a.json")])
      expect((await refusal(asking)).message).toMatch("the server sent nothing for 0.2 s");
    const sniffed = await serveFiles(
      { a: noise(100) },
      {
        type: "text/html",
        special: (_p, { method }, response) => method === "GET" && fallSilent(response, noise(3), 64),
      },
    );
    expect((await refusal(httpFiles(sniffed.url, LIMIT).size!("a"))).message).toMatch("sent nothing for 0.2 s");
  });

  test("of one connection is healed by another, which goes on where the first stopped", async () => {
    const content = noise(3000);
    const server = await serveFiles(
      { a: content },
      {
        special: (_path, { headers }, response) => {
          response.setHeader("etag", '"one"');
          return headers.range === undefined && fallSilent(response, content.subarray(0, 1000), 3000);
        },
        etag: () => '"one"',
      },
    );
    expectSame(await read(server.url, "a", LIMIT), content);
    expect(server.asked.map(({ range }) => range)).toEqual([undefined, "bytes=1000-"]);
  });

  test("does not count while nobody reads", async () => {
    const content = noise(2000);
    const server = await serveFiles({ a: content });
    const { body } = (await httpFiles(server.url, LIMIT).open("a"))!;
    await new Promise((resolve) => setTimeout(resolve, 400));
    expect(new Uint8Array(await new Response(body).arrayBuffer())).toEqual(content);
    expect(server.asked).toHaveLength(1);
  });
});

describe("a body that breaks off", () => {
  const content = noise(300_000);
  const WEEK_AGO = new Date(Date.now() - 7e8).toUTCString();
  /** The first `times` bodies break 100,000 bytes on. */
  const breaking = (times: number, options: Parameters<typeof serveFiles>[1] = {}): Promise<TestServer> => {
    const { etag = () => '"one"', lastModified } = options;
    let broken = 0;
    return serveFiles(
      { a: content },
      {
        ...options,
        etag,
        special: (path, request, response, count) => {
          if (options.special?.(path, request, response, count)) return true;
          if (broken++ >= times) return false;
          const first = Number(/\d+/.exec(request.headers.range ?? "0")![0]);
          const ranged = first > 0 && options.ranges !== false;
          const from = ranged ? first : 0;
          if (etag) response.setHeader("etag", etag(content));
          if (lastModified) response.setHeader("last-modified", lastModified);
          if (ranged) {
            response.statusCode = 206;
            response.setHeader("content-range", `bytes ${first}-${content.length - 1}/${content.length}`);
          }
          return breakOff(response, content.subarray(from, from + 100_000), ranged ? undefined : content.length);
        },
      },
    );
  };

  test("goes on by Range, nothing fetched twice", async () => {
    const server = await breaking(2);
    expectSame(await read(server.url, "a"), content);
    const ranges = server.asked.map(({ range }) => Number(/\d+/.exec(range ?? "0")![0]));
    expect(ranges).toEqual([0, 100_000, 200_000]);
    expect(server.sent.get("a")).toBe(content.length);
  });

  test("goes on by the date of change where there is no ETag", async () => {
    const server = await breaking(1, { etag: null, lastModified: WEEK_AGO });
    expectSame(await read(server.url, "a"), content);
    expect(server.asked.map(({ range }) => range)).toEqual([undefined, "bytes=100000-"]);
  });

  test("goes on where another site hides all headers but the length and the date of change", async () => {
    const server = await breaking(1, { etag: null, lastModified: WEEK_AGO });
    const real = fetch;
    vi.stubGlobal("fetch", async (url: string, init: RequestInit) => {
      const response = await real(url, init);
      return new Response(response.body, {
        status: response.status,
        headers: [...response.headers].filter(([name]) => ["content-length", "last-modified"].includes(name)),
      });
    });
    expectSame(await read(server.url, "a"), content);
    expect(server.asked.map(({ range }) => range)).toEqual([undefined, "bytes=100000-"]);
  });

  test.each<[string, Parameters<typeof serveFiles>[1]]>([
    ["a server without ranges", { ranges: false }],
    ["no validator", { etag: null }],
    ["a weak ETag", { etag: () => 'W/"one"' }],
    ["a date of change that is too new", { etag: null, lastModified: new Date(Date.now() + 3.6e6).toUTCString() }],
    ["no validator and no ranges", { etag: null, ranges: false }],
  ])("is read anew once with %s, every byte given out once", async (_, options) => {
    expectSame(await read((await breaking(1, options)).url, "a"), content);
    const error = await refusal(read((await breaking(99, options)).url, "a"));
    expect(error).toMatchObject({ code: "network" });
    expect(error.message).toMatch(/\/a: the stream broke off after \d+ bytes/);
  });

  test.each<[string, number, Record<string, string>]>([
    ["other bytes than those asked for", 206, { "content-range": `bytes 0-199999/${content.length}` }],
    ["another file's bytes", 206, { "content-range": `bytes 100000-299999/${content.length}`, etag: '"two"' }],
    ["a file of another length", 206, { "content-range": `bytes 100000-299999/300001` }],
    ["a range that cannot be", 416, { "content-range": `bytes */${content.length}` }],
    ["compressed bytes", 206, { "content-range": `bytes 100000-299999/${content.length}`, "content-encoding": "gzip" }],
  ])("never goes on with %s", async (_, status, headers) => {
    const server = await breaking(1, {
      special: (_path, request, response) => {
        if (request.headers.range === undefined) return false;
        response.writeHead(status, { etag: '"one"', ...headers }).end(noise(200_000, 9));
        return true;
      },
    });
    expectSame(await read(server.url, "a"), content);
  });

  test.each<[string, boolean]>([
    ["with validators", true],
    ["without", false],
  ])("of a file that has changed meanwhile is damaged, %s", async (_, hasEtag) => {
    const server: TestServer = await breaking(1, {
      etag: hasEtag ? (bytes) => `"${bytes[5]}"` : null,
      special: (_path, _request, _response, count) => {
        if (count > 0) server.files.set("a", noise(content.length, 2));
        return false;
      },
    });
    const error = await refusal(read(server.url, "a"));
    expect(error).toMatchObject({ code: "integrity" });
    expect(error.message).toMatch(`${server.url}/a: the file changed on the server while it was read`);
  });

  test("before its first byte is just asked for again", async () => {
    const server = await serveFiles(
      { a: content },
      {
        special: (_path, _request, response, count) => {
          if (count > 0) return false;
          response.setHeader("content-length", content.length).flushHeaders();
          setTimeout(() => response.socket!.destroy(), 20);
          return true;
        },
      },
    );
    expectSame(await read(server.url, "a"), content);
  });

  test("again and again goes on as long as there is progress, else ends", async () => {
    const big = noise(9 * 2 ** 20);
    const STEP = 2 ** 20 + 7;
    const server = await serveFiles(
      { a: big },
      {
        special: (path, { headers }, response) => {
          const first = Number(/\d+/.exec(headers.range ?? "0")![0]);
          response.setHeader("etag", '"one"');
          if (headers.range)
            response.writeHead(206, { "content-range": `bytes ${first}-${big.length - 1}/${big.length}` });
          return breakOff(
            response,
            big.subarray(first, first + (path === "a" ? STEP : 10)),
            headers.range ? undefined : big.length,
          );
        },
      },
    );
    expectSame(await read(server.url, "a"), big);
    const error = await refusal(read(server.url, "b"));
    expect(error).toMatchObject({ code: "network" });
    expect(error.message).toMatch(/the stream broke off after \d+ bytes/);
    expect(server.asked.filter(({ path }) => path === "b")).toHaveLength(4);
  });

  test("is a text as well", async () => {
    const text = JSON.stringify({ a: "ü".repeat(50_000) });
    const server = await serveFiles(
      { "a.json": text },
      {
        special: (_path, _request, response, count) => {
          response.setHeader("etag", '"one"');
          // In the middle of a letter.
          return count === 0 && breakOff(response, Buffer.from(text).subarray(0, 1000), Buffer.byteLength(text));
        },
        etag: () => '"one"',
      },
    );
    expect(await httpFiles(server.url, QUICK).text("a.json")).toBe(text);
  });
});

describe("a part of a file", () => {
  const content = noise(100_000);
  const span = { begin: 20_000, end: 60_000 };

  test("is asked for as one, and carried on as one where it breaks off", async () => {
    const server = await serveFiles(
      { "unet.bin": content },
      {
        special(_, __, response, count) {
          if (count > 0) return false;
          response.writeHead(206, {
            etag: `"${createHash("sha256").update(content).digest("hex")}"`,
            "content-range": `bytes 20000-59999/${content.length}`,
            "content-length": 40_000,
          });
          return breakOff(response, content.subarray(20_000, 25_000));
        },
      },
    );
    const part = await httpFiles(server.url, QUICK).range!("unet.bin", span);
    expectSame(new Uint8Array(await new Response(part!.body).arrayBuffer()), content.subarray(20_000, 60_000));
    expect(server.asked.map(({ range }) => range)).toEqual(["bytes=20000-59999", "bytes=25000-59999"]);
  });

  test("is none where a server sends the whole", async () => {
    const { url } = await serveFiles({ "unet.bin": content }, { ranges: false });
    expect(await httpFiles(url, QUICK).range!("unet.bin", span)).toBeUndefined();
  });
});
