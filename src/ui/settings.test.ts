import { expect, test } from "vitest";
import { DEFAULTS, readSettings, writeSettings } from "./settings.ts";

test("defaults leave no trace in the query", () => {
  expect(writeSettings(DEFAULTS)).toBe("");
  expect(readSettings("")).toEqual(DEFAULTS);
});

test("every setting survives the query", () => {
  const settings = {
    prompt: "a boat & a balloon? 100% ☀",
    negative: "fog",
    seed: undefined,
    steps: 4,
    width: 256,
    height: 128,
    guidance: 1.5,
    precision: "fp32",
    model: "https://host/name/resolve/main?token=1",
    backend: "ort-wasm",
    debug: 2,
  } as const;
  expect(readSettings(writeSettings(settings))).toEqual(settings);
  expect(writeSettings(settings)).toContain("w=256&h=128");
});

test("nonsense in the query falls back to the default", () => {
  const settings = readSettings("?precision=int3&backend=cuda&steps=many&model=");
  expect(settings).toMatchObject({ precision: "fp16", backend: "webgpu", steps: undefined, model: DEFAULTS.model });
});
