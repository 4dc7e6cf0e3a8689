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
    mode: "compare",
    precision: "w8a8",
    model: "https://host/name/resolve/main?token=1",
    config: "https://host/mixed.json",
    backend: "ort-wasm",
    amplify: 12,
    split: 0,
    scheduler: "TCDScheduler",
    timesteps: "999,500",
    eta: 0.3,
    rescale: 0.7,
    debug: 2,
  } as const;
  expect(readSettings(writeSettings(settings))).toEqual(settings);
  expect(writeSettings(settings)).toContain("w=256&h=128");
});

test("a seed that no number holds exactly survives the query, also a negative one", () => {
  for (const seed of [2n ** 64n - 1n, -(2n ** 63n), -5]) {
    expect(readSettings(writeSettings({ ...DEFAULTS, seed })).seed).toBe(seed);
  }
  expect(readSettings("?seed=18446744073709551616").seed).toBeUndefined();
});

test("nonsense in the query falls back to the default", () => {
  const settings = readSettings("?precision=int3&backend=cuda&steps=many&model=");
  expect(settings).toMatchObject({ precision: "fp16", backend: "webgpu", steps: undefined, model: DEFAULTS.model });
  expect(readSettings("?mode=both&split=half&amplify=")).toMatchObject({ mode: "picture", split: 50, amplify: 8 });
  expect(readSettings("?split=-3&amplify=1e9")).toMatchObject({ split: 0, amplify: 32 });
});

test("fp16 is never compared with itself or with fp32", () => {
  for (const precision of ["fp16", "fp32", "int3"])
    expect(readSettings(`?mode=compare&precision=${precision}`).precision).toBe("w4a8");
  expect(readSettings("?mode=compare&precision=w8a8").precision).toBe("w8a8");
  expect(readSettings("?precision=w8a8")).toMatchObject({ mode: "picture", precision: "w8a8" });
});
