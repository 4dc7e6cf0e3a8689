import { expect, test } from "vitest";
import { adapterName, isSoftware } from "./adapter.ts";

test("an adapter's name says each word once, and something where the browser tells nothing", () => {
  const info = { vendor: "google", architecture: "swiftshader", device: "", description: "" };
  expect(adapterName(info)).toBe("google swiftshader");
  expect(adapterName({ ...info, device: "google", description: "SwiftShader Device" })).toBe(
    "google swiftshader SwiftShader Device",
  );
  expect(adapterName({ vendor: "", architecture: "", device: "", description: "" })).toBe("unnamed adapter");
});

test("software adapters are told from GPUs", () => {
  const names = ["Google swiftshader", "llvmpipe (LLVM 15, 256 bits)", "Microsoft Basic Render Driver"];
  expect(names.map(isSoftware)).toEqual([true, true, true]);
  expect(["NVIDIA GeForce RTX 3060", "apple metal-3", "Intel Warpath Graphics"].map(isSoftware)).toEqual([
    false,
    false,
    false,
  ]);
});
