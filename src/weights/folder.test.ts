import { expect, test } from "vitest";
import type { ModelFiles } from "./files.ts";
import { findComponent, readJson } from "./folder.ts";
import type { FindOptions, TensorOptions } from "./folder.ts";
import { writeSafetensors } from "./safetensors.ts";
import { bytesOf } from "./server.testing.ts";

/** A folder in memory. */
function folder(contents: Record<string, Uint8Array | string>) {
  const opened: string[] = [];
  const find = (path: string) => contents[path];
  const files: ModelFiles = {
    location: "models/m",
    text: async (path) => {
      const found = find(path);
      return typeof found === "object" ? new TextDecoder().decode(found) : found;
    },
    open: async (path) => {
      const found = find(path);
      if (found === undefined) return undefined;
      opened.push(path);
      const bytes = bytesOf(found);
      return { bytes: bytes.length, body: new Blob([bytes as Uint8Array<ArrayBuffer>]).stream() };
    },
    size: async (path) => (find(path) === undefined ? undefined : bytesOf(find(path)!).length),
  };
  return { files, opened };
}

function weights(...names: string[]): Uint8Array {
  const tensors = names.map((name, i) => [name, { dtype: "F32", shape: [1], data: Float32Array.of(i) }] as const);
  return writeSafetensors(Object.fromEntries(tensors));
}

async function names(
  files: ModelFiles,
  component: string,
  options: FindOptions & TensorOptions = { precision: "fp16" },
) {
  const found = [];
  for await (const { name } of (await findComponent(files, component, options)).tensors(options)) found.push(name);
  return found;
}

const index = (map: Record<string, string>) => JSON.stringify({ metadata: {}, weight_map: map });

test("a component is found in each of its layouts", async () => {
  const shards = { "unet/s1.safetensors": weights("a"), "unet/s2.safetensors": weights("b") };
  const map = index({ a: "s1.safetensors", b: "s2.safetensors" });
  const layouts: [string, Record<string, Uint8Array | string>][] = [
    ["unet", { "unet/diffusion_pytorch_model.safetensors": weights("a", "b") }],
    ["unet", { "unet/diffusion_pytorch_model.fp16.safetensors": weights("a", "b") }],
    ["text_encoder_2", { "text_encoder_2/model.safetensors": weights("a", "b") }],
    ["unet", { ...shards, "unet/diffusion_pytorch_model.safetensors.index.json": map }],
    ["unet", { ...shards, "unet/diffusion_pytorch_model.safetensors.index.fp16.json": map }],
    ["unet", { ...shards, "unet/diffusion_pytorch_model.fp16.safetensors.index.json": map }],
  ];
  for (const [component, contents] of layouts) {
    for (const precision of ["fp16", "fp32"] as const) {
      expect(await names(folder(contents).files, component, { precision })).toEqual(["a", "b"]);
    }
  }
});

test("the variant follows the precision where both are there", async () => {
  const { files } = folder({
    "vae/diffusion_pytorch_model.safetensors": weights("plain"),
    "vae/diffusion_pytorch_model.fp16.safetensors": weights("half"),
  });
  expect(await names(files, "vae", { precision: "fp16" })).toEqual(["half"]);
  expect(await names(files, "vae", { precision: "fp32" })).toEqual(["plain"]);
});

test("fp32 takes plain shards before a single file of halves", async () => {
  const { files } = folder({
    "unet/diffusion_pytorch_model.safetensors.index.json": index({ plain: "s1.safetensors" }),
    "unet/s1.safetensors": weights("plain"),
    "unet/diffusion_pytorch_model.fp16.safetensors": weights("half"),
  });
  expect(await names(files, "unet", { precision: "fp32" })).toEqual(["plain"]);
  expect(await names(files, "unet", { precision: "fp16" })).toEqual(["half"]);
});

test("a component's bytes are the single file's, or what the index of its shards says", async () => {
  const single = weights("a");
  const { files } = folder({
    "vae/diffusion_pytorch_model.safetensors": single,
    "unet/diffusion_pytorch_model.safetensors.index.json": JSON.stringify({
      metadata: { total_size: 1234 },
      weight_map: {},
    }),
    "text_encoder/model.safetensors.index.json": index({}),
  });
  expect((await findComponent(files, "vae", { precision: "fp16" })).bytes).toBe(single.length);
  expect((await findComponent(files, "unet", { precision: "fp16" })).bytes).toBe(1234);
  expect((await findComponent(files, "text_encoder", { precision: "fp16" })).bytes).toBe(0);
  await expect(findComponent(files, "text_encoder_2", { precision: "fp16" })).rejects.toThrow("no weights");
});

test("shards without a wanted tensor are not opened, and every byte of the others is reported", async () => {
  const { files, opened } = folder({
    "unet/diffusion_pytorch_model.safetensors.index.json": index({ a: "s1.safetensors", b: "s2.safetensors" }),
    "unet/s1.safetensors": weights("a"),
    "unet/s2.safetensors": weights("b"),
  });
  const reports: Record<string, number> = {};
  const found = await names(files, "unet", {
    precision: "fp32",
    wanted: (name) => name === "b",
    onBytes: (count, file, fileBytes) => {
      expect(fileBytes).toBe(weights("b").length);
      reports[file] = (reports[file] ?? 0) + count;
    },
  });
  expect(found).toEqual(["b"]);
  expect(opened).toEqual(["unet/s2.safetensors"]);
  expect(reports).toEqual({ "unet/s2.safetensors": weights("b").length });
});

test("a missing component says what was looked for, a pickled one how to save it", async () => {
  await expect(names(folder({}).files, "unet")).rejects.toThrow(
    "models/m/unet: no weights; looked for diffusion_pytorch_model.fp16.safetensors, " +
      "diffusion_pytorch_model.safetensors, diffusion_pytorch_model.safetensors.index.fp16.json, " +
      "diffusion_pytorch_model.fp16.safetensors.index.json, diffusion_pytorch_model.safetensors.index.json.",
  );
  const pickled = folder({ "text_encoder/pytorch_model.bin": "PK" });
  await expect(names(pickled.files, "text_encoder")).rejects.toThrow(
    "models/m/text_encoder: got pytorch_model.bin, expected safetensors",
  );
  await expect(names(pickled.files, "text_encoder")).rejects.toMatchObject({ code: "invalid-model" });
});

test.each([
  ["lacks a tensor", { a: "s.safetensors", b: "s.safetensors" }, "the shard lacks b, but"],
  ["holds another tensor", {}, "the shard holds"],
  ["is missing", { a: "gone.safetensors" }, "models/m/unet/gone.safetensors: no such file"],
  ["lies elsewhere", { a: "../other/s.safetensors" }, 'weight_map: got "a" "../other/s.safetensors", expected'],
  ["has no name", { a: 3 as unknown as string }, 'weight_map: got "a" 3, expected'],
])("an index whose shard %s is refused", async (_what, map, message) => {
  const shard = message === "the shard holds" ? weights("a", "stray") : weights("a");
  const full = message === "the shard holds" ? { a: "s.safetensors" } : map;
  const { files } = folder({
    "unet/diffusion_pytorch_model.safetensors.index.json": index(full),
    "unet/s.safetensors": shard,
  });
  await expect(names(files, "unet")).rejects.toMatchObject({ code: "invalid-model" });
  await expect(names(files, "unet")).rejects.toThrow(message);
});

test("JSON is read, and its absence or damage reported with the file's name", async () => {
  const { files } = folder({ "a.json": '{"x":1}', "b.json": "{" });
  expect(await readJson(files, "a.json")).toEqual({ x: 1 });
  await expect(readJson(files, "b.json")).rejects.toThrow("models/m/b.json: got something that is not JSON");
  await expect(readJson(files, "c.json")).rejects.toThrow("models/m/c.json: no such file, expected a JSON file.");
  await expect(readJson(files, "d.json")).rejects.toMatchObject({ code: "invalid-model" });
});
