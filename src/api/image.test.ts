import { decode } from "fast-png";
import { expect, test } from "vitest";
import { GeneratedImage, encodePixels, encodePng } from "./image.ts";
import type { RawImage } from "../base/types.ts";

function raw(prompt: string, more: Record<string, string> = {}): RawImage {
  return {
    width: 3,
    height: 2,
    data: Uint8ClampedArray.from({ length: 24 }, (_, i) => (i % 4 === 3 ? 255 : i * 10)),
    seed: 42,
    stats: {
      compileMs: 0,
      encodeMs: 1,
      unetMs: 2,
      decodeMs: 3,
      totalMs: 6,
      steps: 1,
      weightBytes: 0,
      activationBytes: 0,
    },
    warnings: [],
    parameters: { prompt, scheduler: "EulerAncestralDiscreteScheduler", model: "postcard", ...more },
  };
}

interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

function chunksOf(png: Uint8Array): Chunk[] {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const found: Chunk[] = [];
  for (let at = 8; at < png.length;) {
    const length = view.getUint32(at);
    const type = new TextDecoder("latin1").decode(png.subarray(at + 4, at + 8));
    found.push({ type, data: png.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return found;
}

/** The texts of a PNG's tEXt and iTXt chunks as a reader sees them that stops at the first pixels. */
function texts(png: Uint8Array): Record<string, string> {
  const chunks = chunksOf(png);
  const found: Record<string, string> = {};
  for (const { type, data } of chunks.slice(
    0,
    chunks.findIndex(({ type }) => type === "IDAT"),
  )) {
    const end = data.indexOf(0);
    const key = new TextDecoder("latin1").decode(data.subarray(0, end));
    if (type === "tEXt") found[key] = Array.from(data.subarray(end + 1), (code) => String.fromCharCode(code)).join("");
    if (type === "iTXt") found[key] = new TextDecoder().decode(data.subarray(end + 5));
  }
  return found;
}

test("a PNG holds the same pixels, without alpha", () => {
  const image = raw("a house");
  const png = decode(encodePng(image), { checkCrc: true });
  expect([png.width, png.height, png.channels, png.depth]).toEqual([3, 2, 3, 8]);
  expect([...png.data]).toEqual([...image.data].filter((_, i) => i % 4 !== 3));
});

test("a PNG carries its generation parameters, in the web UI's form and one by one", () => {
  const found = texts(encodePng(raw("a house", { negativePrompt: "fog", guidanceScale: "2" })));
  expect(found.parameters).toBe(
    "a house\nNegative prompt: fog\n" +
      "Steps: 1, Sampler: EulerAncestralDiscreteScheduler, CFG scale: 2, Seed: 42, Size: 3x2, Model: postcard, " +
      "Version: mixdq-web",
  );
  expect(found["mixdq:prompt"]).toBe("a house");
  expect(found["mixdq:seed"]).toBe("42");
});

test("a prompt in any script survives, and zero bytes do not break the chunk", () => {
  const png = encodePng(raw("дом у моря 🏠\0"));
  expect(decode(png, { checkCrc: true }).width).toBe(3);
  expect(texts(png)["mixdq:prompt"]).toBe("дом у моря 🏠");
  expect(texts(png).parameters).toContain("дом у моря 🏠\nSteps: 1");
  expect(texts(png)["mixdq:model"]).toBe("postcard");
});

test("texts stand between the header and the pixels, and only there", () => {
  const types = chunksOf(encodePng(raw("дом у моря"))).map(({ type }) => type);
  const first = types.indexOf("IDAT");
  expect(types[0]).toBe("IHDR");
  expect(types.at(-1)).toBe("IEND");
  expect(types.slice(1, first)).toEqual(expect.arrayContaining(["tEXt", "iTXt"]));
  expect(types.slice(first).filter((type) => /T[eEX]Xt$/i.test(type))).toEqual([]);
});

test.each([
  ["lines", "a house\r\nby the sea\rat noon\nin winter", "a house\nby the sea\nat noon\nin winter", "iTXt"],
  ["lines that Latin-1 has", "a house\nby the sea, café", "a house\nby the sea, café", "tEXt"],
  ["typographic quotes, which only Windows' Latin-1 has", "a “red” house", "a “red” house", "iTXt"],
  ["a control character", "a house\u0085", "a house\u0085", "iTXt"],
  ["an emoji", "🏠".repeat(3), "🏠🏠🏠", "iTXt"],
  ["half a megabyte", "a long way home ".repeat(32_768), "a long way home ".repeat(32_768), "tEXt"],
])("a prompt with %s", (_, prompt, shown, type) => {
  const png = encodePng(raw(prompt, { negativePrompt: "fog\r\nrain", guidanceScale: "2" }));
  expect(decode(png, { checkCrc: true }).width).toBe(3);
  const found = texts(png);
  expect(found["mixdq:prompt"] === prompt).toBe(true);
  expect(found.parameters!.startsWith(`${shown}\nNegative prompt: fog\nrain\nSteps: 1, Sampler: `)).toBe(true);
  const chunk = chunksOf(png).find(({ data }) => latin1(data).startsWith("mixdq:prompt\0"));
  expect(chunk!.type).toBe(type);
});

const latin1 = (bytes: Uint8Array): string => new TextDecoder("latin1").decode(bytes.subarray(0, 80));

test.each([
  ["/home/someone/models/postcard/", "postcard", "postcard"],
  ["C:\\models\\postcard", "postcard", "postcard"],
  ["https://host/models/postcard", "postcard", "https://host/models/postcard"],
  [
    "https://hub/stabilityai/sd-turbo/resolve/main",
    "stabilityai/sd-turbo",
    "https://hub/stabilityai/sd-turbo/resolve/main",
  ],
])("the model %s is called by its name, and no folder of this machine is told", (model, name, address) => {
  const found = texts(encodePng(raw("a house", { model })));
  expect(found.parameters).toContain(`, Model: ${name}, `);
  expect(found["mixdq:model"]).toBe(address);
});

test("a keyword that PNG does not allow is refused", () => {
  for (const keyword of ["", " x", "x ", "a  b", "x".repeat(80), "ключ", "a\0b"])
    expect(() => encodePixels(raw("a house"), { [keyword]: "text" }), keyword).toThrow(/^PNG keyword/);
});

test("toBlob is that PNG", async () => {
  const blob = new GeneratedImage(raw("a house")).toBlob();
  expect(blob.type).toBe("image/png");
  expect(new Uint8Array(await blob.arrayBuffer())).toEqual(encodePng(raw("a house")));
});
