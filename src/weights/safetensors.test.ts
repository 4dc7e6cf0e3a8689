import { expect, test } from "vitest";
import { MixdqError } from "../base/errors.ts";
import type { FileStream } from "./files.ts";
import { parseSafetensors, readSafetensorsHeader, streamTensors, writeSafetensors } from "./safetensors.ts";
import type { StreamOptions } from "./safetensors.ts";

const FILE = writeSafetensors(
  {
    "a.weight": { dtype: "F32", shape: [2, 2], data: Float32Array.of(1, 2, 3, 4) },
    "b.weight": { dtype: "F16", shape: [3], data: Uint16Array.of(0x3c00, 0x4000, 0x4200) },
    position_ids: { dtype: "I64", shape: [1, 2], data: BigInt64Array.of(7n, 8n) },
    "c.bias": { dtype: "BF16", shape: [], data: Uint16Array.of(0x3f80) },
    nothing: { dtype: "F32", shape: [0, 5], data: new Float32Array() },
  },
  { format: "pt" },
);

function streamOf(file: Uint8Array, chunkBytes = file.length): FileStream {
  let offset = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (offset >= file.length) return controller.close();
      controller.enqueue(file.slice(offset, offset + chunkBytes));
      offset += chunkBytes;
    },
  });
  return { bytes: file.length, body };
}

function withHeader(header: unknown, dataBytes = 0): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + dataBytes);
  new DataView(file.buffer).setUint32(0, json.length, true);
  file.set(json, 8);
  return file;
}

async function collect(file: Uint8Array, options: StreamOptions = {}, chunkBytes?: number) {
  const tensors = [];
  for await (const tensor of streamTensors(streamOf(file, chunkBytes), "unet/x.safetensors", options)) {
    tensors.push(tensor);
  }
  return tensors;
}

const isWeight = (name: string) => name !== "position_ids";

test("a file that was written is read back, in chunks of any size", async () => {
  for (const chunkBytes of [1, 3, 7, 64, FILE.length]) {
    const tensors = await collect(FILE, { wanted: isWeight }, chunkBytes);
    expect(tensors.map(({ name, dtype, shape }) => [name, dtype, shape])).toEqual([
      ["a.weight", "F32", [2, 2]],
      ["nothing", "F32", [0, 5]],
      ["b.weight", "F16", [3]],
      ["c.bias", "BF16", []],
    ]);
    expect(new Float32Array(tensors[0].bytes.buffer)).toEqual(Float32Array.of(1, 2, 3, 4));
    expect(new Uint16Array(tensors[2].bytes.buffer)).toEqual(Uint16Array.of(0x3c00, 0x4000, 0x4200));
  }
});

test("a small file is parsed whole, integers included", () => {
  const tensors = parseSafetensors(FILE);
  expect([...tensors.keys()]).toEqual(["position_ids", "a.weight", "nothing", "b.weight", "c.bias"]);
  const { dtype, shape, bytes } = tensors.get("position_ids")!;
  expect([dtype, shape]).toEqual(["I64", [1, 2]]);
  expect(new BigInt64Array(bytes.slice().buffer)).toEqual(BigInt64Array.of(7n, 8n));
});

test("every tensor of a written file is aligned to its element", () => {
  for (const { dtype, bytes } of parseSafetensors(FILE).values()) {
    expect(bytes.byteOffset % { F32: 4, I64: 8, F16: 2, BF16: 2 }[dtype as "F32"]).toBe(0);
  }
});

test("unwanted tensors are passed over without being kept", async () => {
  const tensors = await collect(FILE, { wanted: (name) => name === "c.bias" }, 5);
  expect(tensors.map(({ name }) => name)).toEqual(["c.bias"]);
});

test("every byte is reported as it arrives", async () => {
  let bytes = 0;
  await collect(FILE, { wanted: isWeight, onBytes: (count) => (bytes += count) }, 10);
  expect(bytes).toBe(FILE.length);
});

test("the header alone says what a file holds", async () => {
  const header = await readSafetensorsHeader(streamOf(FILE), "x");
  expect(header.metadata).toEqual({ format: "pt" });
  expect(header.tensors.length).toBe(5);
});

test("ending the loop early closes the stream", async () => {
  let isCancelled = false;
  const [first, second] = [FILE.slice(0, FILE.length - 4), FILE.slice(FILE.length - 4)];
  const chunks = [first, second];
  const body = new ReadableStream<Uint8Array>(
    { pull: (c) => c.enqueue(chunks.shift()!), cancel: () => void (isCancelled = true) },
    { highWaterMark: 0 },
  );
  for await (const tensor of streamTensors({ bytes: 0, body }, "x", { wanted: isWeight })) {
    expect(tensor.name).toBe("a.weight");
    break;
  }
  expect(isCancelled).toBe(true);
});

test("a wanted tensor that is no float is refused", async () => {
  await expect(collect(FILE)).rejects.toThrow(
    "unet/x.safetensors: position_ids: got dtype I64, expected weights in F32, F16 or BF16.",
  );
});

test("a file cut short anywhere is an integrity error, and so is one with more", async () => {
  for (const bytes of [20, FILE.length - 30, FILE.length - 1]) {
    const cut = FILE.slice(0, bytes);
    await expect(collect(cut, { wanted: isWeight })).rejects.toMatchObject({ code: "integrity" });
    expect(() => parseSafetensors(cut)).toThrow(expect.objectContaining({ code: "integrity" }));
  }
  const longer = new Uint8Array([...FILE, 0]);
  await expect(collect(longer, { wanted: isWeight })).rejects.toMatchObject({ code: "integrity" });
  expect(() => parseSafetensors(longer)).toThrow("got bytes after the last tensor, expected the file's end");
});

test.each([
  ["<!DOCTYPE html><html>", "an HTML or XML page"],
  ["\n  <html>", "an HTML or XML page"],
  ["version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"],
  ["PK\x03\x04abcdefgh", "a ZIP or PyTorch .bin file"],
  ['{"weight_map":{}}', "a JSON file"],
  ["abc", "a file of 3 bytes"],
  ["", "a file of 0 bytes"],
  ["\xff\xff\xff\xff\x00\x00\x00\x00", "a header of 4294967295 bytes"],
])("%j is recognised as no safetensors file", async (text, guess) => {
  const file = Uint8Array.from(text, (c) => c.charCodeAt(0));
  await expect(collect(file)).rejects.toMatchObject({ code: "invalid-model" });
  await expect(collect(file)).rejects.toThrow(guess);
  expect(() => parseSafetensors(file)).toThrow(guess);
});

const entry = (dtype: unknown, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

test.each([
  ["not JSON", "{nope", "a header that is not JSON"],
  ["no object", "[1]", "a header that is not an object"],
  ["an entry that is none", { t: 3 }, "t: got 3, expected an object"],
  ["an unknown dtype", { t: entry("F8_E4M3", [1], [0, 1]) }, 't: got dtype "F8_E4M3"'],
  ["a dtype that objects have", { t: entry("constructor", [1], [0, 1]) }, 't: got dtype "constructor"'],
  ["a negative size", { t: entry("F32", [-1], [0, 4]) }, "shape [-1]"],
  ["a fractional size", { t: entry("F32", [0.5], [0, 2]) }, "shape [0.5]"],
  ["too many dimensions", { t: entry("U8", Array(9).fill(1), [0, 1]) }, "at most 8 sizes"],
  ["offsets the wrong way", { t: entry("F32", [1], [4, 0]) }, "data_offsets [4,0]"],
  ["bytes that do not fit the shape", { t: entry("F32", [3], [0, 8]) }, "got 8 bytes, expected 12 for F32 [3]"],
  ["an absurd shape", { t: entry("F32", [2 ** 40, 2 ** 40], [0, 8]) }, "got 8 bytes, expected 4.8"],
  ["a gap", { t: entry("F32", [1], [4, 8]) }, "data from byte 4, expected byte 0"],
  ["an overlap", { a: entry("F32", [2], [0, 8]), b: entry("F32", [1], [4, 8]) }, "b: got data from byte 4, expected"],
  ["a huge tensor", { t: entry("F32", [2 ** 31], [0, 2 ** 33]) }, "at most 4294967296 in one tensor"],
  ["a long name", { ["n".repeat(2000)]: entry("F32", [1], [0, 4]) }, "a tensor name of 2000 characters"],
  ["odd metadata", { __metadata__: { a: 1 } }, "__metadata__ that is not all strings"],
])("a header with %s is refused", (_what, header, message) => {
  const file = withHeader(header, 8);
  expect(() => parseSafetensors(file, "x")).toThrow(MixdqError);
  expect(() => parseSafetensors(file, "x")).toThrow(message);
});

test("data that does not fit its shape is not written", () => {
  const tensors = { t: { dtype: "F32", shape: [3], data: new Float32Array(2) } } as const;
  expect(() => writeSafetensors(tensors)).toThrow("t: got 8 bytes, expected 12 for F32 [3]");
});

test("an aborted signal stops the stream with its own code", async () => {
  const controller = new AbortController();
  const reading = (async () => {
    for await (const _ of streamTensors(streamOf(FILE, 16), "x", { wanted: isWeight, signal: controller.signal })) {
      controller.abort();
    }
  })();
  await expect(reading).rejects.toMatchObject({ code: "aborted" });
});

test("a connection that breaks is a network error that names the file", async () => {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(FILE.slice(0, 50)),
    pull: (controller) => controller.error(new TypeError("terminated")),
  });
  const reading = (async () => {
    for await (const _ of streamTensors({ bytes: 0, body }, "host/x.safetensors")) void _;
  })();
  await expect(reading).rejects.toMatchObject({
    code: "network",
    message: expect.stringMatching(/^host\/x.safetensors/),
  });
});
