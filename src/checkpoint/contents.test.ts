import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { Config } from "../base/config.ts";
import { readUNetConfig } from "../diffusion/unet.ts";
import { buildUNet } from "../diffusion/unet.ts";
import { buildVaeDecoder, readVaeConfig } from "../diffusion/vae.ts";
import { nameMap } from "../graph/names.ts";
import type { Graph } from "../graph/ops.ts";
import { buildTextEncoder } from "../text/encoder.ts";
import type { TensorEntry } from "../weights/header.ts";
import { shapeOf, textConfig, unetConfig, vaeConfig } from "./configs.ts";
import { readContents, UNET_PREFIX, type Component } from "./contents.ts";

type Names = Readonly<Record<string, readonly number[]>>;
/** Whole checkpoints at full size, with what diffusers makes of them (golden/make_golden.py). */
const CHECKPOINTS = JSON.parse(
  gunzipSync(readFileSync(new URL("golden/keys.json.gz", import.meta.url))).toString(),
) as Readonly<Record<string, { readonly keys: Names; readonly parts: Readonly<Record<string, Names>> }>>;

const entriesOf = (keys: Names): TensorEntry[] =>
  Object.entries(keys).map(([name, shape]) => ({ name, dtype: "F16", shape, begin: 0, end: 0 }));

const read = (name: string) => readContents(entriesOf(CHECKPOINTS[name].keys), UNET_PREFIX, "file");

/** A 1x1 convolution is as good as a linear layer. */
const trimmed = (shape: readonly number[]): string => shape.join(",").replace(/(,1)+$/, "");

test.each(Object.keys(CHECKPOINTS))("%s: every tensor is diffusers', none is left over", (name) => {
  const contents = read(name);
  expect(contents.unknown).toEqual([]);
  for (const [part, names] of Object.entries(CHECKPOINTS[name].parts)) {
    const got = contents.components.get(part as Component)!.map((tensor) => [tensor.name, trimmed(shapeOf(tensor))]);
    const expected = Object.entries(names).map(([tensor, shape]) => [tensor, trimmed(shape)]);
    expect(got.sort(), part).toEqual(expected.sort());
  }
});

test.each(Object.keys(CHECKPOINTS))("%s: the configs describe what is there", (name) => {
  const contents = read(name);
  const facts = { prediction: "epsilon", isZeroSnr: false } as const;
  const { components, family } = contents;
  const unet = readUNetConfig(new Config("unet", unetConfig(contents, facts, "file")));
  const shape = { batch: 1, height: 16, width: 16, tokens: 77 };
  wantsAll(buildUNet(unet, shape, "unet", "f16"), CHECKPOINTS[name].parts["unet"], () => true);
  const vae = readVaeConfig(new Config("vae", vaeConfig(family, components.get("vae")!, "file")));
  wantsAll(buildVaeDecoder(vae, shape, "f16"), CHECKPOINTS[name].parts["vae"], (tensor) =>
    /^(decoder|post)/.test(tensor),
  );
  for (const part of ["text_encoder", "text_encoder_2"] as const) {
    const tensors = components.get(part);
    if (!tensors) continue;
    const config = new Config(part, textConfig(tensors, family === "sd2" || part === "text_encoder_2", "file"));
    const state = family === "sdxl" ? ("penultimate" as const) : ("last" as const);
    const graph = buildTextEncoder(config, { batch: 1, state, projects: part === "text_encoder_2" }, "f16");
    const isRead = (tensor: string): boolean =>
      part === "text_encoder_2" || family !== "sdxl" || !/final_layer_norm|layers\.11\./.test(tensor);
    wantsAll(graph, CHECKPOINTS[name].parts[part], isRead);
  }
});

/** The graph reads every tensor, in its own shape. */
function wantsAll(graph: Graph, names: Names, isRead: (name: string) => boolean): void {
  const wanted = nameMap(graph.weights.filter(({ derivedFrom }) => derivedFrom === undefined));
  for (const [tensor, shape] of Object.entries(names)) {
    if (!isRead(tensor)) continue;
    const weight = wanted.get(tensor);
    expect(weight, tensor).toBeDefined();
    expect(trimmed(weight!.shape), tensor).toBe(trimmed(shape));
  }
}

test("the pruned relatives are told apart by their blocks", () => {
  const middle = (name: string) => [read(name).layout.middle, read(name).layout.down.map(({ depths }) => depths)];
  expect(middle("ssd1b")).toEqual([
    "resnet",
    [
      [undefined, undefined],
      [2, 2],
      [4, 4],
    ],
  ]);
  expect(middle("koala")).toEqual(["none", [[undefined], [2], [5]]]);
});

test("a layer that the family does not have is refused by name, a stranger is told of", () => {
  const { keys } = CHECKPOINTS["sd15"];
  const withKey = (name: string) => readContents(entriesOf({ ...keys, [name]: [4] }), UNET_PREFIX, "file");
  expect(() => withKey(`${UNET_PREFIX}input_blocks.1.1.adapter.weight`)).toThrow(/input_blocks\.1\.1\.adapter/);
  expect(withKey("something.else").unknown).toEqual(["something.else"]);
});
