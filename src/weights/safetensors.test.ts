import { expect, test } from "vitest";
import { MixdqError } from "../base/errors.ts";
import type { FileStream } from "./files.ts";
import { readFloats } from "./convert.ts";
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
  expect([...header.metadata]).toEqual([["format", "pt"]]);
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

const T = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}';
const entry = (dtype: unknown, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

test.each([
  ["not JSON", "{nope", "got something that is not JSON"],
  ["no object", "[1]", "a header that does not begin with {"],
  ["an entry that is none", { t: 3 }, 'got "t" 3, expected a JSON object'],
  ["a dtype that is none", { t: entry(8, [1], [0, 1]) }, 't: got "dtype" 8, expected the name'],
  ["a foreign dtype of other bytes", { t: entry("F8_E4M3", [3], [0, 8]) }, "got 8 bytes, expected 3 for F8_E4M3 [3]"],
  ["half a byte at its end", { t: entry("F4", [3], [0, 2]) }, "got 2 bytes, expected 1.5 for F4 [3]"],
  ["a gap before a dtype that nobody knows", { t: entry("I3", [5], [1, 3]) }, "data from byte 1, expected byte 0"],
  ["a dtype that nobody knows upside down", { t: entry("I3", [5], [3, 1]) }, '"data_offsets" [3,1], expected'],
  ["a negative size", { t: entry("F32", [-1], [0, 4]) }, 'got "shape[0]" -1'],
  ["a fractional size", { t: entry("F32", [0.5], [0, 2]) }, 'got "shape[0]" 0.5'],
  ["too many dimensions", { t: entry("U8", Array(9).fill(1), [0, 1]) }, "shape: got 9 items, expected at most 8"],
  ["offsets the wrong way", { t: entry("F32", [1], [4, 0]) }, 'got "data_offsets" [4,0]'],
  ["bytes that do not fit the shape", { t: entry("F32", [3], [0, 8]) }, "got 8 bytes, expected 12 for F32 [3]"],
  ["an absurd shape", { t: entry("F32", [2 ** 40, 2 ** 40], [0, 8]) }, "got 8 bytes, expected 4.8"],
  ["a gap", { t: entry("F32", [1], [4, 8]) }, "data from byte 4, expected byte 0"],
  ["an overlap", { a: entry("F32", [2], [0, 8]), b: entry("F32", [1], [4, 8]) }, "b: got data from byte 4, expected"],
  ["a long name", { ["n".repeat(2000)]: entry("F32", [1], [0, 4]) }, "a tensor name of 2000 characters"],
  ["odd metadata", { __metadata__: { a: 1 } }, '__metadata__: got "a" 1, expected a string'],
  ["white space before it", ' {"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "does not begin with {"],
  ["a byte order mark", '\ufeff{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "does not begin with {"],
  ["a tensor twice", `{"t":${T},"t":${T}}`, 'the key "t" twice'],
  ["a key of a tensor twice", `{"t":${T.replace("{", '{"dtype":"F32",')}}`, 'the key "dtype" twice'],
  ["metadata in a list", { __metadata__: [] }, 'got "__metadata__" [], expected a JSON object'],
])("a header with %s is refused", (_what, header, message) => {
  const file = withHeader(header, 8);
  expect(() => parseSafetensors(file, "x")).toThrow(MixdqError);
  expect(() => parseSafetensors(file, "x")).toThrow(message);
});

test("metadata that is null is none", () => {
  expect(parseSafetensors(withHeader(`{"__metadata__":null,"t":${T}}  `, 8)).get("t")!.shape).toEqual([2]);
});

test("a tensor may be called anything, in what is read and in what is written", () => {
  const names = ["__proto__", "constructor", "toString", "7"];
  const written = writeSafetensors(
    Object.fromEntries(names.map((name, i) => [name, { dtype: "U8", shape: [1], data: Uint8Array.of(i) }])),
  );
  const read = parseSafetensors(written);
  expect([...read].map(([name, { bytes }]) => [name, bytes[0]]).sort()).toEqual(
    names.map((name, i) => [name, i]).sort(),
  );
});

/** A weight in F32 behind one of another dtype. */
function beside(dtype: string, bytes: number, shape: readonly number[]): Uint8Array {
  const file = withHeader(
    { scaled_fp8: entry(dtype, shape, [0, bytes]), "a.weight": entry("F32", [1], [bytes, bytes + 4]) },
    bytes + 4,
  );
  file.set(new Uint8Array(Float32Array.of(1.5).buffer), file.length - 4);
  return file;
}

test.each([
  ["F8_E4M3", 2, [2]],
  ["F8_E5M2", 2, [2]],
  ["F8_E8M0", 0, [0]],
  ["F6_E3M2", 3, [4]],
  ["F4", 1, [2]],
  ["C64", 8, [1]],
  ["U64", 8, []],
  ["I4", 1, [2]],
  ["a dtype of the future", 5, [3, 3]],
  ["constructor", 3, [3]],
])(
  "%s is passed over where nothing reads it, and refused by name where something does",
  async (dtype, bytes, shape) => {
    const file = beside(dtype, bytes, shape);
    const tensors = await collect(file, { wanted: (name) => name === "a.weight" }, 3);
    expect(tensors.map(({ name, bytes }) => [name, new Float32Array(bytes.buffer)[0]])).toEqual([["a.weight", 1.5]]);
    expect(parseSafetensors(file).get("a.weight")!.bytes.length).toBe(4);
    await expect(collect(file)).rejects.toThrow(
      `unet/x.safetensors: scaled_fp8: got dtype ${dtype}, expected weights in F32, F16 or BF16. Save the model in one`,
    );
    expect(() => readFloats(parseSafetensors(file).get("scaled_fp8")!, "scaled_fp8")).toThrow(`got dtype ${dtype}`);
  },
);

test("a tensor that is wanted must fit into one buffer", async () => {
  const file = withHeader({ t: entry("F32", [2 ** 31], [0, 2 ** 33]) });
  const reading = async () => {
    for await (const _ of streamTensors({ ...streamOf(file), bytes: 0 }, "x")) void _;
  };
  await expect(reading()).rejects.toThrow("x: t: got 8589934592 bytes, expected at most 4294967296 in one tensor");
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
