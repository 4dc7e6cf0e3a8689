import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { buildUNet, readUNetConfig } from "../diffusion/unet.ts";
import { Config } from "../base/config.ts";
import { buildTextEncoder } from "../text/encoder.ts";
import { readFloats, toFloat32 } from "../weights/convert.ts";
import { findComponent } from "../weights/folder.ts";
import { diskFiles } from "../node/diskFiles.ts";
import { parseSafetensors } from "../weights/safetensors.ts";
import type { AdaptedComponent } from "./layers.ts";
import { withLoras } from "./merge.ts";
import { readLora, type Lora } from "./read.ts";

const GOLDEN = path.join(import.meta.dirname, "golden");
const MODEL = path.join(import.meta.dirname, "../../e2e/golden/sdxl-euler-cfg");
const config = (file: string): Config => new Config(file, JSON.parse(readFileSync(path.join(MODEL, file), "utf8")));

const COMPONENTS: readonly AdaptedComponent[] = [
  {
    component: "unet",
    weights: buildUNet(
      readUNetConfig(config("unet/config.json")),
      { batch: 1, height: 16, width: 16, tokens: 77 },
      "unet",
      "f32",
    ).weights,
  },
  ...["text_encoder", "text_encoder_2"].map((component, i) => {
    const shape = { batch: 1, state: "penultimate", projects: i === 1 } as const;
    return { component, weights: buildTextEncoder(config(`${component}/config.json`), shape, "f32").weights };
  }),
];

const golden = (name: string) => parseSafetensors(readFileSync(path.join(GOLDEN, `${name}.safetensors`)), name);

async function goldenLora(name: string, scale: number): Promise<Lora> {
  return readLora({ files: await diskFiles(GOLDEN), path: `${name}.safetensors`, scale }, COMPONENTS);
}

/** All weights of the model after merging, and whether merging changed them, by "component/name" without `text_model.`. */
async function merge(loras: readonly Lora[], isExact = false) {
  const merged = new Map<string, { values: Float32Array; isChanged: boolean }>();
  const files = await diskFiles(MODEL);
  for (const adapted of COMPONENTS) {
    const { component } = adapted;
    const plain = await findComponent(files, component, { precision: "fp32" });
    const before = new Map<string, Float32Array>();
    for await (const { name, bytes, dtype } of plain.tensors()) before.set(name, toFloat32(bytes, dtype).slice());
    for await (const { name, bytes, dtype } of withLoras(plain, adapted, loras, { isExact }).tensors()) {
      const values = toFloat32(bytes, dtype);
      const isChanged = values.some((value, i) => value !== before.get(name)![i]);
      merged.set(`${component}/${name.replace("text_model.", "")}`, { values, isChanged });
    }
  }
  return merged;
}

/** Rounding of sums in another order: a few units in the last place of the largest number of a tensor. */
const TOLERANCE = 1e-6;

/** Every tensor that PyTorch changed is as it has it, and no other was changed. */
async function expectMerged(loras: readonly Lora[], name: string): Promise<void> {
  const expected = new Map([...golden(name)].map(([key, tensor]) => [key.replace("text_model.", ""), tensor]));
  const merged = await merge(loras);
  const changed = [...merged].filter(([, { isChanged }]) => isChanged).map(([key]) => key);
  expect(changed.sort()).toEqual([...expected.keys()].sort());
  for (const [key, tensor] of expected) {
    const wanted = readFloats(tensor, key);
    const { values } = merged.get(key)!;
    const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - values[i])), 0);
    expect(worst / largest, key).toBeLessThan(TOLERANCE);
  }
}

test.each(["diffusers", "old", "kohya", "sgm"])(
  "in the spelling %s, a LoRA merges as diffusers fuses it",
  async (spelling) => {
    await expectMerged([await goldenLora(`attention.${spelling}`, 0.7)], "attention.merged");
  },
);

test("LoCon, LoHa, LoKr, DoRA, whole differences and norms merge as LyCORIS does it", async () => {
  await expectMerged([await goldenLora("kinds", 1)], "kinds.merged");
});

test.each(["rslora", "dora"])("%s merges as PEFT does it, with the settings in the file's metadata", async (name) => {
  await expectMerged([await goldenLora(`peft.${name}`, 0.6)], `peft.${name}.merged`);
});

test("several add up, and a negative scale takes away", async () => {
  const loras = [await goldenLora("attention.kohya", 1.2), await goldenLora("attention.sgm", -0.5)];
  await expectMerged(loras, "attention.merged");
});

test("exact storage gets every tensor of a changed component in F32", async () => {
  const plain = await findComponent(await diskFiles(MODEL), "unet", { precision: "fp32" });
  const lora = await goldenLora("kinds", 1);
  const dtypes = async (isExact: boolean): Promise<Set<string>> => {
    const found = new Set<string>();
    for await (const { dtype } of withLoras(plain, COMPONENTS[0], [lora], { isExact }).tensors()) found.add(dtype);
    return found;
  };
  expect([...(await dtypes(true))]).toEqual(["F32"]);
  expect((await dtypes(false)).size).toBe(2);
  expect(withLoras(plain, COMPONENTS[1], [lora], { isExact: true })).toBe(plain);
});
