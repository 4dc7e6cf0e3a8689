import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { elementCount } from "../graph/ops.ts";
import { describeSdxlTurbo } from "../model/known/sdxlTurbo.ts";
import { ModelGraphs } from "../model/graphs.ts";
import { DEFAULT_HOST, hubAddress } from "../weights/address.ts";
import { KNOWN_MODELS } from "./knownModels.ts";

const bytesOf = (id: string): number => KNOWN_MODELS.find((model) => model.id === id)!.downloadBytes;

test("every known model has a name that leads somewhere, once, and a base that is known", () => {
  const ids = KNOWN_MODELS.map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  for (const { id, base, needs, licence } of KNOWN_MODELS) {
    const address = hubAddress(id, { host: DEFAULT_HOST, token: undefined });
    expect(address === undefined, id).toBe(id.startsWith("models/"));
    expect(needs.includes("base"), id).toBe(base !== undefined);
    if (base !== undefined) expect(ids).toContain(base);
    expect(licence.url).toMatch(/^https:\/\//);
  }
});

test("the bytes are those of the default model's files and of SDXL's parameters", () => {
  const folder = path.resolve(import.meta.dirname, "../../models/postcard");
  const sizes = ["unet", "vae", "text_encoder", "text_encoder_2"].flatMap((part) =>
    readdirSync(path.join(folder, part))
      .filter((file) => file.endsWith(".safetensors"))
      .map((file) => statSync(path.join(folder, part, file)).size),
  );
  const total = sizes.reduce((sum, size) => sum + size, 0);
  expect(Math.abs(bytesOf("models/postcard") / total - 1)).toBeLessThan(0.005);

  const graphs = new ModelGraphs(describeSdxlTurbo(), "fp16", undefined).components();
  const parameters = graphs.flatMap((component) => component.graphs[0].build().weights);
  const count = parameters.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  // The graphs have the VAE's decoder only; its encoder has 34 million parameters (1 %), the folder has both.
  expect(bytesOf("stabilityai/sdxl-turbo") / (2 * count)).toBeGreaterThan(1);
  expect(bytesOf("stabilityai/sdxl-turbo") / (2 * count)).toBeLessThan(1.012);
});
