import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { readModel } from "../model/description.ts";
import type { ModelFiles } from "../weights/files.ts";
import { findComponent } from "../weights/folder.ts";
import { parseSafetensors, writeSafetensors, type TensorToWrite } from "../weights/safetensors.ts";
import { toFloat32 } from "../weights/convert.ts";
import { checkpointFiles } from "./files.ts";
import { memoryFiles } from "./memory.testing.ts";
import { openPlaces } from "./open.ts";

const GOLDEN = path.join(import.meta.dirname, "golden");
const bytesOf = (name: string): Uint8Array => readFileSync(path.join(GOLDEN, name));

/** The golden's folder: diffusers' configs, without weights. */
const configsOf = (name: string): ModelFiles => ({
  location: name,
  text: async (file) => {
    try {
      return readFileSync(path.join(GOLDEN, name, file), "utf8");
    } catch {
      return undefined;
    }
  },
  open: async () => undefined,
});

const placeOf = (bytes: Uint8Array) => ({ files: memoryFiles({ "m.safetensors": bytes }), path: "m.safetensors" });

async function* tensorsOf(files: ModelFiles, component: string) {
  yield* (await findComponent(files, component, { precision: "fp32" })).tensors();
}

describe.each(["sd1", "sd2", "sdxl"])("%s, as diffusers' own script writes it", (name) => {
  const expected = JSON.parse(gunzipSync(bytesOf(`${name}/tensors.json.gz`)).toString()) as Record<
    string,
    [number[], string]
  >;

  test("gives diffusers' tensors, bit for bit", async () => {
    const files = await checkpointFiles(placeOf(bytesOf(`${name}/model.safetensors`)));
    expect(files.notes).toEqual([]);
    const got: Record<string, [string, string]> = {};
    for (const component of new Set(Object.keys(expected).map((key) => key.split("/")[0])))
      for await (const tensor of tensorsOf(files, component)) {
        const digest = createHash("sha256").update(tensor.bytes).digest("hex").slice(0, 16);
        got[`${component}/${tensor.name}`] = [tensor.shape.join().replace(/(,1)+$/, ""), digest];
      }
    const wanted = Object.entries(expected).map(([key, [shape, digest]]) => [
      key,
      [shape.join().replace(/(,1)+$/, ""), digest],
    ]);
    expect(got).toEqual(Object.fromEntries(wanted));
  });

  test("is a model with the configs of a folder", async () => {
    const place = placeOf(bytesOf(`${name}/model.safetensors`));
    const files = await openPlaces(place, { configFrom: configsOf(name) });
    const model = await readModel(files);
    expect(model.textEncoders).toHaveLength(name === "sdxl" ? 2 : 1);
    expect(model.unet.blockOutChannels).toEqual(name === "sdxl" ? [8, 8, 16] : [8, 8, 8, 8]);
  });
});

test("only the bytes of the part that is asked for are read", async () => {
  const bytes = bytesOf("sd1/model.safetensors");
  const place = placeOf(bytes);
  const files = await checkpointFiles(place);
  const before = place.files.read.get("m.safetensors")!;
  let read = 0;
  for await (const tensor of tensorsOf(files, "vae")) read += tensor.bytes.length;
  const fetched = place.files.read.get("m.safetensors")! - before;
  expect(fetched).toBeLessThan(read + 300_000);
});

test("where the source gives no parts, the same tensors come", async () => {
  const { range: _, ...whole } = memoryFiles({ "m.safetensors": bytesOf("sd1/model.safetensors") });
  const names = async (files: ModelFiles) => {
    const found = [];
    for await (const tensor of tensorsOf(files, "unet")) found.push([tensor.name, tensor.bytes.join()]);
    return found;
  };
  const [some, all] = await Promise.all([
    checkpointFiles({ files: whole, path: "m.safetensors" }).then(names),
    checkpointFiles(placeOf(bytesOf("sd1/model.safetensors"))).then(names),
  ]);
  expect(some).toEqual(all);
});

describe("8-bit floats", () => {
  /** The golden with its UNet's matrices in 8 bits; `scale`: each with a scale beside it. */
  function narrowed(scale?: number): Uint8Array {
    const tensors: Record<string, TensorToWrite> = {};
    for (const [name, { dtype, shape, bytes }] of parseSafetensors(bytesOf("sd1/model.safetensors"))) {
      const isMatrix = name.startsWith("model.diffusion_model.") && shape.length === 2;
      // 0x38 is 1, 0xb0 is -0.5.
      const codes = Uint8Array.from({ length: bytes.length / 2 }, (_, i) => (i % 2 === 0 ? 0x38 : 0xb0));
      tensors[name] = isMatrix ? { dtype: "F8_E4M3", shape, data: codes } : { dtype, shape, data: bytes.slice() };
      if (isMatrix && scale !== undefined)
        tensors[name.replace(/\.weight$/, ".scale_weight")] = {
          dtype: "F32",
          shape: [],
          data: Float32Array.of(scale),
        };
    }
    if (scale !== undefined)
      tensors["model.diffusion_model.scaled_fp8"] = { dtype: "F8_E4M3", shape: [0], data: new Uint8Array(0) };
    return writeSafetensors(tensors);
  }

  test.each([undefined, 0.3])("are widened, times a scale of %s", async (scale) => {
    const files = await checkpointFiles(placeOf(narrowed(scale)));
    expect(files.notes).toEqual([]);
    const factor = scale === undefined ? 1 : Math.fround(scale);
    for await (const { name, dtype, bytes } of tensorsOf(files, "unet"))
      if (name === "time_embedding.linear_1.weight") {
        expect(dtype).toBe(scale === undefined ? "F16" : "F32");
        expect([...toFloat32(bytes, dtype).subarray(0, 2)]).toEqual([factor, Math.fround(-0.5 * factor)]);
      }
  });
});
