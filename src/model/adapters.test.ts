import { expect, test } from "vitest";
import type { Lora } from "../lora/read.ts";
import type { PackedComponent } from "../weights/pack.ts";
import { mergeLoras } from "./adapters.ts";
import type { ComponentGraphs } from "./graphs.ts";

test("a pack's weights are integers, and take no LoRA", () => {
  const pack = { bytes: 1, parts: () => undefined } as unknown as PackedComponent;
  const component: ComponentGraphs = { component: "unet", storage: "f16", graphs: [] };
  const lora: Lora = { address: "loras/ink.safetensors", scale: 1, deltas: new Map() };
  expect(mergeLoras(pack, component, [])).toBe(pack);
  expect(() => mergeLoras(pack, component, [lora])).toThrow(
    expect.objectContaining({
      code: "unsupported",
      message: expect.stringContaining("loras/ink.safetensors: got a LoRA"),
    }),
  );
});
