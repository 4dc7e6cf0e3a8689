import { describe, expect, test } from "vitest";
import { MixdqError } from "../base/errors.ts";
import type { ModelFiles } from "./files.ts";
import { openPack } from "./pack.ts";
import { piecesOf, readManifest, writeManifest, type PackFormat } from "./packManifest.ts";
import { PackWriter } from "./packWriter.ts";
import { sha256 } from "./sha256.ts";

type Stored = Map<string, Uint8Array<ArrayBuffer>>;

interface Made {
  readonly name: string;
  readonly format: PackFormat;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Bytes that stay together. */
  readonly unit?: number;
}

const counting = (length: number, from = 0): Uint8Array<ArrayBuffer> =>
  Uint8Array.from({ length }, (_, i) => (from + 7 * i) % 251);

const floats = (name: string, ...shape: number[]): Made => {
  const bytes = shape.reduce((product, size) => product * size, 4);
  return { name, format: "F32", shape, bytes: counting(bytes, name.length), unit: 4 * (bytes / shape[0]) };
};

const codes = (path: string, rows: number, channels: number): Made[] => [
  { name: `${path}.weight`, format: "U4", shape: [rows, channels], bytes: counting((rows * channels) / 2) },
  { name: `${path}.parameters`, format: "U32", shape: [1, rows, 4], bytes: counting(rows * 16, 3) },
];

const UNET = [
  floats("conv_in.weight", 12, 5),
  floats("conv_in.bias", 3),
  ...codes("mid", 8, 32),
  floats("out.bias", 1),
];
const VAE = [floats("decoder.weight", 40, 3)];

async function made(shardBytes = 1024, unet: readonly Made[] = UNET): Promise<Stored> {
  const stored: Stored = new Map();
  const writer = new PackWriter({ write: async (path, bytes) => void stored.set(path, bytes.slice()) }, shardBytes);
  await writer.file("unet/config.json", '{"größe": 1}');
  await writer.file("mixdq.json", "{}");
  for (const [component, tensors] of [["unet", unet] as const, ["vae", VAE] as const]) {
    await writer.component(component);
    for (const { bytes, unit, ...tensor } of tensors) await writer.tensor(tensor, bytes, unit);
  }
  await writer.finish({ model: "made up", config: "mixdq.json", licence: null, bos: [Float32Array.of(0.1, -2)] });
  return stored;
}

/** `chunk` is how many bytes arrive at a time; sizes are known where `isSized`. */
function filesOf(stored: Stored, chunk = 100, isSized = true): ModelFiles {
  return {
    location: "here",
    async text(path) {
      const bytes = stored.get(path);
      return bytes && new TextDecoder().decode(bytes);
    },
    async open(path) {
      const bytes = stored.get(path);
      let at = 0;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          if (at >= bytes!.length) return controller.close();
          controller.enqueue(bytes!.slice(at, (at += chunk)));
        },
      });
      return bytes && { bytes: isSized ? bytes.length : 0, body };
    },
  };
}

async function read(files: ModelFiles, component: string): Promise<Map<string, Uint8Array>> {
  const pack = (await openPack(files))!;
  const whole = new Map<string, Uint8Array>();
  for await (const { tensor, from, bytes } of pack.component(component).parts()) {
    const into = whole.get(tensor.name) ?? new Uint8Array(tensor.bytes);
    into.set(bytes, from);
    whole.set(tensor.name, into);
  }
  return whole;
}

const refusal = async (promise: Promise<unknown>): Promise<MixdqError> => {
  const error = await promise.then(
    () => new Error("nothing was refused"),
    (e: unknown) => e,
  );
  if (!(error instanceof MixdqError)) throw error;
  expect(error.message).toMatch(/^[^\n]+\.$/);
  return error;
};

describe("a pack", () => {
  test.each([128, 160, 256, 1024, 2 ** 20])("in shards of %i bytes gives back what was written", async (shardBytes) => {
    const stored = await made(shardBytes);
    for (const [component, tensors] of [["unet", UNET] as const, ["vae", VAE] as const])
      for (const isSized of [true, false]) {
        const got = await read(filesOf(stored, 33, isSized), component);
        expect([...got.keys()]).toEqual(tensors.map(({ name }) => name));
        for (const { name, bytes } of tensors) expect(got.get(name), name).toEqual(bytes);
      }
    for (const [name, bytes] of stored) if (name.endsWith(".bin")) expect(bytes.length).toBeLessThanOrEqual(shardBytes);
  });

  test("has every tensor at a multiple of 16 bytes, every component in shards of its own", async () => {
    const { components, shards } = readManifest(new TextDecoder().decode((await made()).get("manifest.json")), "m")!;
    const [unet, vae] = [components.get("unet")!, components.get("vae")!];
    for (const { offset } of [...unet, ...vae]) expect(offset % 16).toBe(0);
    expect(unet.map(({ shard, offset }) => [shard, offset])).toEqual([
      [0, 0],
      [0, 240],
      [0, 256],
      [0, 384],
      [0, 512],
    ]);
    expect(vae[0]).toMatchObject({ shard: 1, offset: 0 });
    expect(shards.map(({ bytes }) => bytes)).toEqual([516, 480]);
  });

  test("cuts a tensor between whole units only", async () => {
    const { components, shards } = readManifest(new TextDecoder().decode((await made(128)).get("manifest.json")), "m")!;
    const sizes = shards.map(({ bytes }) => bytes);
    // 12 rows of 20 bytes, four of which stay together.
    expect(piecesOf(components.get("unet")![0], sizes)).toEqual([
      { shard: 0, offset: 0, from: 0, bytes: 80 },
      { shard: 1, offset: 0, from: 80, bytes: 80 },
      { shard: 2, offset: 0, from: 160, bytes: 80 },
    ]);
  });

  test("is the same every time it is written, whatever lay in the buffer before", async () => {
    expect(await made(256)).toEqual(await made(256));
    const tensors = [floats("full.weight", 4, 64), floats("a.bias", 1), floats("b.weight", 8, 7)];
    const behind = (await made(1024, tensors)).get("shard-00002.bin")!;
    expect([...behind.subarray(4, 16)]).toEqual(Array(12).fill(0));
  });

  test("writes its manifest as it reads it", async () => {
    const text = new TextDecoder().decode((await made()).get("manifest.json"));
    const manifest = readManifest(text, "manifest.json")!;
    expect(manifest).toMatchObject({ model: "made up", config: "mixdq.json", licence: null });
    expect(manifest.bos).toEqual([Float32Array.of(0.1, -2)]);
    expect(writeManifest(manifest)).toBe(text);
  });

  test("reports every byte once", async () => {
    const pack = (await openPack(filesOf(await made(256))))!;
    const unet = pack.component("unet");
    let [bytes, files] = [0, new Set<string>()];
    const onBytes = (count: number, file: string): void => {
      bytes += count;
      files.add(file);
    };
    for await (const _ of unet.parts({ onBytes })) void _;
    expect(bytes).toBe(unet.bytes);
    expect(files.size).toBe(
      new Set(
        pack.manifest.components.get("unet")!.flatMap((t) =>
          piecesOf(
            t,
            pack.manifest.shards.map((s) => s.bytes),
          ).map(({ shard }) => shard),
        ),
      ).size,
    );
  });

  test("gives only files that it names, as they were", async () => {
    const stored = await made();
    stored.set("other.json", counting(3));
    const { files } = (await openPack(filesOf(stored)))!;
    expect(await files.text("unet/config.json")).toBe('{"größe": 1}');
    expect(await files.text("other.json")).toBeUndefined();
    expect(await files.open("other.json")).toBeUndefined();
    stored.set("unet/config.json", new TextEncoder().encode('{"größe": 2}'));
    expect(await refusal(files.text("unet/config.json"))).toMatchObject({ code: "integrity" });
  });

  test("is none where there is no manifest, or a page in its place", async () => {
    const stored: Stored = new Map();
    expect(await openPack(filesOf(stored))).toBeUndefined();
    for (const other of [
      "\n<!doctype html>",
      '{"name": "app", "icons": []}',
      '{"error": "Entry not found"}',
      "Not found",
    ]) {
      stored.set("manifest.json", new TextEncoder().encode(other));
      expect(await openPack(filesOf(stored))).toBeUndefined();
    }
  });

  test("names a Git LFS pointer in the place of a shard, and the cure", async () => {
    const stored = await made(256);
    const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 256\n";
    for (const name of stored.keys()) if (name.endsWith(".bin")) stored.set(name, new TextEncoder().encode(pointer));
    for (const isSized of [true, false])
      expect(await refusal(read(filesOf(stored, 33, isSized), "unet"))).toMatchObject({
        code: "invalid-model",
        message: expect.stringMatching("got a Git LFS pointer, expected the file itself. Run `git lfs pull`"),
      });
  });

  test("yields nothing of a shard that is damaged", async () => {
    const stored = await made(256);
    const [, second] = [...stored.keys()].filter((name) => name.endsWith(".bin"));
    const bytes = stored.get(second!)!;
    bytes[bytes.length - 1] ^= 128;
    const seen: number[] = [];
    const error = await refusal(
      (async () => {
        for await (const { tensor } of (await openPack(filesOf(stored)))!.component("unet").parts())
          seen.push(tensor.shard);
      })(),
    );
    expect(error).toMatchObject({ code: "integrity" });
    expect(error.message).toContain(second);
    expect(seen.every((shard) => shard === 0)).toBe(true);
  });

  test("stops when it is told to", async () => {
    const parts = (await openPack(filesOf(await made(256))))!.component("unet").parts({ signal: AbortSignal.abort() });
    expect(await refusal(parts.next())).toMatchObject({ code: "aborted" });
  });

  test("needs SHA-256", async () => {
    const { crypto } = globalThis;
    Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
    try {
      expect(await refusal(sha256(counting(3)))).toMatchObject({ code: "unsupported" });
    } finally {
      Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
    }
    expect(await sha256(new TextEncoder().encode("abc"))).toMatch(/^ba7816bf8f01cfea414140de5dae2223/);
  });
});

describe("a manifest", () => {
  test.each<[string, (manifest: any) => unknown, string]>([
    ["without shards", (m) => delete m.shards, "expected a list"],
    ["without components", (m) => (m.components = {}), "0 components"],
    ["of a component without tensors", (m) => (m.components.vae.tensors = []), "tensors: got 0 items"],
    ["whose tensor has no name", (m) => delete m.components.vae.tensors[0].name, 'got "name" nothing'],
    ["whose tensor has a path for a name", (m) => (m.components.vae.tensors[0].name = "../a"), "as in a checkpoint"],
    ["whose floats are too many bytes", (m) => (m.components.vae.tensors[0].bytes += 4), "484 bytes"],
    ["whose codes are too few bytes", (m) => (m.components.unet.tensors[2].bytes = 64), "expected 128 or more"],
    ["with a gap", (m) => (m.components.unet.tensors[1].offset += 16), "expected shard 0, offset 240"],
    ["with an overlap", (m) => (m.components.unet.tensors[1].offset -= 16), "expected shard 0, offset 240"],
    [
      "whose component begins in a shard of another",
      (m) => (m.components.vae.tensors[0].shard = 0),
      "expected shard 1",
    ],
    ["with unread bytes at a shard's end", (m) => (m.shards[0].bytes += 16), "tensors up to its end"],
    ["with a shard cut short", (m) => (m.shards[0].bytes -= 1), "tensors up to its end"],
    ["with two shards in one file", (m) => (m.shards[1].file = m.shards[0].file), "two shards of one name"],
    ["with a shard elsewhere", (m) => (m.shards[0].file = "../shard.bin"), "a file name"],
    ["with parameters alone", (m) => (m.components.unet.tensors[2].format = "F16"), "bytes"],
    ["with a licence that is not there", (m) => (m.licence = "LICENSE"), "one of its files"],
    ["with a configuration that is not there", (m) => (m.config = "a.json"), "one of its files"],
    ["that names itself", (m) => (m.files["manifest.json"] = m.files["mixdq.json"]), "within the pack"],
    ["with a file without end", (m) => (m.files["mixdq.json"].bytes = 2 ** 33), "from 0 to"],
    ["with words for a BOS state", (m) => (m.bos = [["a"]]), "a finite number"],
    ["with two BOS states", (m) => m.bos.push([1]), "at most 1"],
  ])("%s is refused", async (_, edit, says) => {
    const manifest = JSON.parse(new TextDecoder().decode((await made()).get("manifest.json")));
    edit(manifest);
    const error = await refusal((async () => readManifest(JSON.stringify(manifest), "manifest.json"))());
    expect(error.code).toBe("invalid-model");
    expect(error.message).toContain(says);
  });
});
