import { afterEach, expect, test, vi } from "vitest";
import { httpFiles } from "./http.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** Answers requests in turn; an Error is a connection that fails. Returns the addresses asked for. */
function serve(...answers: (Response | Error)[]): string[] {
  const asked: string[] = [];
  vi.stubGlobal("fetch", async (url: string) => {
    asked.push(url);
    const answer = answers.shift()!;
    if (answer instanceof Error) throw answer;
    return answer;
  });
  vi.useFakeTimers({ shouldAdvanceTime: true, advanceTimeDelta: 1000 });
  return asked;
}

test("files lie below the address, with or without its last slash, and keep its query", async () => {
  for (const [base, expected] of [
    ["https://host/models/m", "https://host/models/m/unet/config.json"],
    ["https://host/models/m/?token=1", "https://host/models/m/unet/config.json?token=1"],
  ]) {
    const asked = serve(new Response("{}"));
    const files = httpFiles(base);
    expect(await files.text("unet/config.json")).toBe("{}");
    expect(asked).toEqual([expected]);
    expect(files.location).toBe("https://host/models/m");
  }
});

test("a 404 and a page in the file's place both mean that there is no file", async () => {
  const page = () => new Response("<html>", { headers: { "content-type": "text/html; charset=utf-8" } });
  serve(new Response("no", { status: 404 }), page(), page());
  const files = httpFiles("https://host/m");
  expect(await files.text("a.json")).toBeUndefined();
  expect(await files.text("a.json")).toBeUndefined();
  expect(await files.open("a.safetensors")).toBeUndefined();
});

test("a file opens with its size, unless it comes compressed", async () => {
  serve(
    new Response("abcd", { headers: { "content-length": "4" } }),
    new Response("abcd", { headers: { "content-length": "2", "content-encoding": "br" } }),
  );
  const files = httpFiles("https://host/m");
  const stream = await files.open("x");
  expect(stream?.bytes).toBe(4);
  expect(await new Response(stream!.body).text()).toBe("abcd");
  expect((await files.open("x"))?.bytes).toBe(0);
});

test("a failed request is tried once more, then reported with its address", async () => {
  const asked = serve(new TypeError("fetch failed"), new Response("ok"));
  expect(await httpFiles("https://host/m").text("a")).toBe("ok");
  expect(asked.length).toBe(2);

  serve(new TypeError("fetch failed"), new TypeError("fetch failed"));
  const failing = httpFiles("https://host/m").text("a");
  await expect(failing).rejects.toMatchObject({
    code: "network",
    message: expect.stringMatching("https://host/m/a: "),
  });

  serve(new Response("", { status: 503 }), new Response("", { status: 503, statusText: "Busy" }));
  await expect(httpFiles("https://host/m").text("a")).rejects.toThrow(
    "https://host/m/a: got status 503 Busy, expected 200.",
  );

  serve(new Response("", { status: 403 }));
  await expect(httpFiles("https://host/m").open("a")).rejects.toThrow("needs a login or a licence");
});

test("a cancelled request is aborted, not a network error", async () => {
  const asked = serve(new Response("ok"));
  const signal = AbortSignal.abort();
  await expect(httpFiles("https://host/m").text("a", signal)).rejects.toMatchObject({ code: "aborted" });
  expect(asked).toEqual([]);
});

test("an address that is none is refused", () => {
  for (const base of ["models/m", "ftp://host/m", ""]) {
    expect(() => httpFiles(base)).toThrow(expect.objectContaining({ code: "invalid-input" }));
  }
});
