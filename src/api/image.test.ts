import { decode } from "fast-png";
import { expect, test } from "vitest";
import { GeneratedImage, encodePng } from "./image.ts";
import type { RawImage } from "../base/types.ts";

function raw(prompt: string, more: Record<string, string> = {}): RawImage {
  return {
    width: 3,
    height: 2,
    data: Uint8ClampedArray.from({ length: 24 }, (_, i) => (i % 4 === 3 ? 255 : i * 10)),
    seed: 42,
    stats: { encodeMs: 1, unetMs: 2, decodeMs: 3, totalMs: 6, steps: 1, weightBytes: 0, activationBytes: 0 },
    warnings: [],
    parameters: { prompt, scheduler: "EulerAncestralDiscreteScheduler", model: "postcard", ...more },
  };
}

/** The texts of a PNG's tEXt and iTXt chunks; Node's own CRC check is done by fast-png on the whole file. */
function texts(png: Uint8Array): Record<string, string> {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const found: Record<string, string> = {};
  for (let at = 8; at < png.length;) {
    const length = view.getUint32(at);
    const type = new TextDecoder("latin1").decode(png.subarray(at + 4, at + 8));
    const body = png.subarray(at + 8, at + 8 + length);
    const end = body.indexOf(0);
    const key = new TextDecoder("latin1").decode(body.subarray(0, end));
    if (type === "tEXt") found[key] = new TextDecoder("latin1").decode(body.subarray(end + 1));
    if (type === "iTXt") found[key] = new TextDecoder().decode(body.subarray(end + 5));
    at += 12 + length;
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

test("toBlob is that PNG", async () => {
  const blob = new GeneratedImage(raw("a house")).toBlob();
  expect(blob.type).toBe("image/png");
  expect(new Uint8Array(await blob.arrayBuffer())).toEqual(encodePng(raw("a house")));
});
