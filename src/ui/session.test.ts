/** Which engines are loaded beside which, with engines that only count. */
import { beforeEach, expect, test, vi } from "vitest";
import { MixdqError, type ErrorCode } from "../base/errors.ts";
import type { EngineOptions } from "../base/types.ts";
import { Session } from "./session.ts";
import { DEFAULTS, type Settings } from "./settings.ts";

const machine = vi.hoisted(() => ({ log: [] as string[], weightBytes: 0, loaded: 0, fits: Infinity, fault: "" }));

vi.mock("../index.ts", () => ({
  createEngine: async ({ precision, config }: EngineOptions) => {
    const name = [precision, config].filter(Boolean).join(" ");
    machine.log.push(`load ${name}`);
    if (machine.loaded >= machine.fits) throw new MixdqError("out-of-memory", `${name} does not fit.`);
    machine.loaded++;
    return {
      info: { weightBytes: machine.weightBytes },
      generate: async () => {
        if (machine.fault) throw new MixdqError(machine.fault as ErrorCode, "The picture failed.");
        return { stats: { weightBytes: machine.weightBytes, activationBytes: 1000 } };
      },
      dispose: async () => {
        machine.loaded--;
        machine.log.push(`dispose ${name}`);
      },
    };
  },
}));

const FLOAT: Settings = { ...DEFAULTS, precision: "fp16" };
const INTEGER: Settings = { ...DEFAULTS, precision: "w4a8" };
const HOOKS = { signal: new AbortController().signal, onProgress: () => {}, onReady: () => {}, onStep: () => {} };

/** Both sides, with two seeds: what was loaded and disposed. */
async function compareTwice(): Promise<string[]> {
  const session = new Session();
  for (const seed of [1, 2]) {
    await session.picture({ ...FLOAT, seed }, HOOKS, INTEGER);
    await session.picture({ ...INTEGER, seed }, HOOKS, FLOAT);
  }
  return machine.log;
}

beforeEach(() => void Object.assign(machine, { log: [], weightBytes: 1e6, loaded: 0, fits: Infinity, fault: "" }));

test("two small engines stay loaded side by side", async () => {
  expect(await compareTwice()).toEqual(["load fp16", "load w4a8"]);
});

test("large ones take turns, and are never loaded together", async () => {
  machine.weightBytes = 1e9; // with its working memory just above
  machine.fits = 1;
  expect(await compareTwice()).toEqual([
    "load fp16",
    "dispose fp16",
    "load w4a8",
    "dispose w4a8",
    "load fp16",
    "dispose fp16",
    "load w4a8",
  ]);
});

test("where a second one does not fit it is tried alone, and from then on one at a time", async () => {
  machine.fits = 1;
  expect(await compareTwice()).toEqual([
    "load fp16",
    "load w4a8",
    "dispose fp16",
    "load w4a8",
    "dispose w4a8",
    "load fp16",
    "dispose fp16",
    "load w4a8",
  ]);
});

test("one that does not fit alone is an error, tried once", async () => {
  machine.fits = 0;
  await expect(new Session().picture(INTEGER, HOOKS, FLOAT)).rejects.toMatchObject({ code: "out-of-memory" });
  expect(machine.log).toEqual(["load w4a8"]);
});

test("after a lost device the next picture loads anew; after another failure it does not", async () => {
  const session = new Session();
  for (const fault of ["invalid-output", "device-lost"]) {
    machine.fault = fault;
    await expect(session.picture(FLOAT, HOOKS)).rejects.toMatchObject({ code: fault });
  }
  machine.fault = "";
  await session.picture(FLOAT, HOOKS);
  expect(machine.log).toEqual(["load fp16", "dispose fp16", "load fp16"]);
});

test("a single picture disposes the engine of another precision, and a configuration is for integers only", async () => {
  const session = new Session();
  const config = "https://host/mixed.json";
  await session.picture({ ...FLOAT, config }, HOOKS);
  await session.picture(FLOAT, HOOKS);
  await session.picture({ ...INTEGER, config }, HOOKS);
  expect(session.has({ ...INTEGER, config })).toBe(true);
  expect(session.has(INTEGER)).toBe(false);
  expect(machine.log).toEqual(["load fp16", "dispose fp16", `load w4a8 ${config}`]);
});
