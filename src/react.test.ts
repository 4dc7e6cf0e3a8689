/** The hook's life, with engines that only count, in a React without a DOM: components here draw nothing. */
import { createElement, StrictMode, useEffect } from "react";
import type { Root } from "react-dom/client";
import { type MockInstance, afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ErrorCode, MixdqError } from "./base/errors.ts";
import type { EngineOptions, GenerateOptions } from "./base/types.ts";
import { type Mixdq, type UseMixdqOptions, useMixdq } from "./react.ts";

/** What engines did, and how many are there. A load waits for `gate`, a picture for `brush`. */
const machine = vi.hoisted(() => ({
  log: [] as string[],
  loaded: 0,
  mostLoaded: 0,
  gate: Promise.resolve(),
  brush: Promise.resolve(),
  fault: undefined as Error | undefined,
  onPaint: () => {},
  /** Of the last load. */
  signal: undefined as AbortSignal | undefined,
}));

vi.mock("./index.ts", () => ({
  createEngine: async ({ model, precision, signal, onProgress }: EngineOptions) => {
    if (signal?.aborted) throw new MixdqError("aborted", "The run was cancelled.");
    const name = [model, precision].filter(Boolean).join(" ");
    machine.log.push(`load ${name}`);
    machine.signal = signal;
    onProgress?.({ status: "download", loadedBytes: 1, totalBytes: 2, progress: 50 });
    await machine.gate;
    if (machine.fault) throw machine.fault;
    machine.mostLoaded = Math.max(machine.mostLoaded, ++machine.loaded);
    return {
      info: { model, precision },
      generate: async ({ prompt, signal, onStep }: GenerateOptions) => {
        machine.log.push(`paint ${prompt}`);
        machine.onPaint();
        onStep?.({ type: "encode" });
        await unlessAborted(machine.brush, signal);
        if (signal?.aborted) throw new MixdqError("aborted", "The run was cancelled.");
        if (machine.fault) throw machine.fault;
        return { prompt };
      },
      dispose: async () => {
        await Promise.resolve();
        machine.loaded--;
        machine.log.push(`dispose ${name}`);
      },
    };
  },
}));

/** As the engine does: an abort is answered at once. */
function unlessAborted(work: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    signal?.addEventListener("abort", () => resolve());
    void work.then(resolve);
  });
}

const FLOAT: UseMixdqOptions = { model: "m", precision: "fp16" };
const INTEGER: UseMixdqOptions = { model: "m", precision: "w4a8" };

let root: Root;
/** React's. */
let warnings: MockInstance;
/** What the hook returned in the last render, and everything that was rendered. */
let shown: Mixdq;
let statuses: string[];

function Picture(options: UseMixdqOptions): null {
  shown = useMixdq(options);
  if (statuses.at(-1) !== shown.status) statuses.push(shown.status);
  return null;
}

/** As much of a document as React asks about before it has an element to make. */
function emptyDocument(): { document: object; container: Element } {
  const node = { addEventListener: () => {}, removeEventListener: () => {}, textContent: "" };
  const document = { ...node, nodeType: 9, nodeName: "#document", activeElement: null };
  const container = { ...node, nodeType: 1, nodeName: "DIV", tagName: "DIV", ownerDocument: document };
  return { document, container: container as unknown as Element };
}

/** Does it, and waits for what follows of itself: React renders and runs effects in tasks of their own. */
async function act<T>(work: () => T | Promise<T>): Promise<T> {
  const result = await work();
  for (let i = 0; i < 10; i++) await new Promise((resolve) => setImmediate(resolve));
  return result;
}
const settled = (): Promise<void> => act(() => {});
const render = (...args: Parameters<Root["render"]>): Promise<void> => act(() => root.render(...args));
const show = (options: UseMixdqOptions): Promise<void> => render(createElement(Picture, options));

/** The code with which it fails. */
const codeOf = (picture: Promise<unknown>): Promise<ErrorCode | "none"> =>
  picture.then(
    () => "none",
    (error) => (error as MixdqError).code,
  );

/** Keeps loads or pictures waiting until the result is called. */
function hold(what: "gate" | "brush"): () => void {
  let open = (): void => {};
  machine[what] = new Promise((resolve) => (open = resolve));
  return open;
}

beforeEach(() => {
  Object.assign(machine, { log: [], loaded: 0, mostLoaded: 0, fault: undefined });
  Object.assign(machine, { gate: Promise.resolve(), brush: Promise.resolve() });
  statuses = [];
});

test("a server renders what is about to load, and loads nothing", async () => {
  expect(typeof document).toBe("undefined");
  const { renderToString } = await import("react-dom/server");
  const Status = (options: UseMixdqOptions): string => useMixdq(options).status;
  expect(renderToString(createElement(Status, FLOAT))).toBe("loading");
  expect(renderToString(createElement(Status, { ...FLOAT, enabled: false }))).toBe("idle");
  expect(machine.log).toEqual([]);
});

describe("in a browser", () => {
  beforeEach(async () => {
    const { document, container } = emptyDocument();
    vi.stubGlobal("window", { document, HTMLIFrameElement: class {} });
    vi.stubGlobal("document", document);
    warnings = vi.spyOn(console, "error").mockImplementation(() => {});
    const { createRoot } = await import("react-dom/client");
    root = createRoot(container);
  });
  afterEach(async () => {
    await act(() => root.unmount());
    expect(machine.loaded).toBe(0);
    expect(warnings.mock.calls).toEqual([]);
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
  });

  test("loads when mounted, makes pictures, and is gone when unmounted", async () => {
    const open = hold("gate");
    await show(FLOAT);
    expect(shown).toMatchObject({ status: "loading", engine: undefined, progress: { progress: 50 } });
    await act(open);
    expect(shown).toMatchObject({ status: "ready", engine: { info: { precision: "fp16" } } });

    const paint = hold("brush");
    let picture = shown.generate({ prompt: "a house" });
    await settled();
    expect(shown).toMatchObject({ status: "generating", stage: { type: "encode" }, image: undefined });
    await act(paint);
    expect(shown).toMatchObject({ status: "ready", stage: undefined, image: { prompt: "a house" }, error: undefined });
    expect(shown.image).toBe(await picture);

    const { generate } = shown;
    await render(null);
    expect(machine.log).toEqual(["load m fp16", "paint a house", "dispose m fp16"]);
    picture = generate({ prompt: "too late" });
    expect(await codeOf(picture)).toBe("aborted");
    expect(machine.log).toHaveLength(3);
  });

  test("StrictMode mounts twice and loads once, also for a child that asks at once", async () => {
    let mounts = 0;
    const pictures: Promise<string>[] = [];
    const Child = ({ generate }: Mixdq): null => {
      useEffect(() => {
        mounts++;
        pictures.push(codeOf(generate({ prompt: "a house" })));
      }, [generate]);
      return null;
    };
    const Parent = () => createElement(Child, (shown = useMixdq(FLOAT)));
    await render(createElement(StrictMode, null, createElement(Parent)));
    expect(mounts).toBe(2);
    expect(await Promise.all(pictures)).toEqual(["aborted", "none"]);
    expect(shown).toMatchObject({ status: "ready", image: { prompt: "a house" } });
    expect(machine.log).toEqual(["load m fp16", "paint a house"]);
  });

  test("unmounted while it loads, what arrives late is disposed of", async () => {
    const open = hold("gate");
    await show(FLOAT);
    expect(machine.signal!.aborted).toBe(false);
    await render(null);
    expect(machine.signal!.aborted).toBe(true);
    await act(open);
    expect(machine.log).toEqual(["load m fp16", "dispose m fp16"]);
  });

  test("with enabled: false the first picture loads the model, and cancelling it ends the loading", async () => {
    const open = hold("gate");
    await show({ ...FLOAT, enabled: false });
    expect(shown.status).toBe("idle");
    expect(machine.log).toEqual([]);
    const cancelled = codeOf(shown.generate({ prompt: "a house" }));
    await settled();
    expect(shown.status).toBe("loading");
    await act(() => shown.cancel());
    expect(await cancelled).toBe("aborted");
    expect(shown).toMatchObject({ status: "idle", progress: undefined, error: undefined });
    await act(open);
    expect(machine.log).toEqual(["load m fp16", "dispose m fp16"]);

    await act(() => shown.generate({ prompt: "a boat" }));
    await act(() => shown.generate({ prompt: "a tree" }));
    expect(machine.log.slice(2)).toEqual(["load m fp16", "paint a boat", "paint a tree"]);
  });

  test("a newer picture cancels the one before, and keeps the loading that both wait for", async () => {
    const open = hold("gate");
    await show({ ...FLOAT, enabled: false });
    const first = codeOf(shown.generate({ prompt: "first" }));
    await settled();
    const second = shown.generate({ prompt: "second" });
    expect(await first).toBe("aborted");
    await act(open);
    expect(shown.image).toBe(await second);

    const paint = hold("brush");
    const third = codeOf(shown.generate({ prompt: "third" }));
    await settled();
    const fourth = shown.generate({ prompt: "fourth" });
    expect(await third).toBe("aborted");
    await settled();
    expect(shown).toMatchObject({ status: "generating", error: undefined, image: { prompt: "second" } });
    await act(paint);
    expect(shown.image).toBe(await fourth);
    expect(machine.log).toEqual(["load m fp16", "paint second", "paint third", "paint fourth"]);
  });

  test("a signal and cancel end a picture and not the engine; neither is an error", async () => {
    const open = hold("gate");
    await show(FLOAT);
    const early = codeOf(shown.generate({ prompt: "early" }));
    await settled();
    await act(() => shown.cancel());
    expect(await early).toBe("aborted");
    expect(shown).toMatchObject({ status: "loading", error: undefined });
    await act(open);
    hold("brush");
    const own = new AbortController();
    const first = codeOf(shown.generate({ prompt: "first", signal: own.signal }));
    await settled();
    await act(() => own.abort());
    expect(await first).toBe("aborted");
    expect(shown).toMatchObject({ status: "ready", stage: undefined, error: undefined });
    const second = codeOf(shown.generate({ prompt: "second" }));
    await settled();
    await act(() => shown.cancel());
    expect(await second).toBe("aborted");
    expect(shown).toMatchObject({ status: "ready", stage: undefined, error: undefined });
    expect(machine.log).toEqual(["load m fp16", "paint first", "paint second"]);
  });

  test("equal options keep the engine, others replace it: first freed, then loaded, and the picture stays", async () => {
    await show(FLOAT);
    await act(() => shown.generate({ prompt: "a house" }));
    const { generate } = shown;
    await show({ ...FLOAT });
    expect(shown.generate).toBe(generate);

    hold("brush");
    const running = codeOf(shown.generate({ prompt: "a boat" }));
    await settled();
    statuses = [];
    await show(INTEGER);
    expect(await running).toBe("aborted");
    await expect.poll(() => shown.status).toBe("ready");
    expect(statuses).toEqual(["loading", "ready"]);
    expect(shown).toMatchObject({ engine: { info: { precision: "w4a8" } }, image: { prompt: "a house" } });
    expect(machine.log.slice(2)).toEqual(["paint a boat", "dispose m fp16", "load m w4a8"]);
    expect(machine.mostLoaded).toBe(1);
  });

  test.each<[unknown, string]>([
    [{}, "useMixdq: model is undefined, expected the URL of a diffusers folder"],
    [{ model: "m", dtype: "fp16" }, 'useMixdq: got an unknown option "dtype", did you mean precision?'],
    [{ model: "m", enabled: "no" }, 'useMixdq: enabled is "no", expected true or false.'],
    [{ model: "m", onProgress: () => {} }, 'useMixdq: got an unknown option "onProgress"'],
  ])("useMixdq(%j) is an error that says so, and loads nothing until it is put right", async (options, says) => {
    await show(options as never);
    expect(shown).toMatchObject({ status: "error", error: { code: "invalid-input" } });
    expect(shown.error!.message).toContain(says);
    const { error, generate } = shown;
    await show(options as never);
    expect([shown.error === error, shown.generate === generate]).toEqual([true, true]);
    expect(await codeOf(shown.generate({ prompt: "x" }))).toBe("invalid-input");
    expect(machine.log).toEqual([]);
    await show(FLOAT);
    expect(shown).toMatchObject({ status: "ready", error: undefined });
  });

  test("a picture with an unknown option is refused before the model is there", async () => {
    const open = hold("gate");
    await show(FLOAT);
    expect(await codeOf(shown.generate({ prompt: "x", steps: 4 } as never))).toBe("invalid-input");
    expect(shown.error!.message).toContain("did you mean numInferenceSteps?");
    open();
  });

  describe("several components", () => {
    const all = new Map<string, Mixdq>();
    const Named = ({ name }: { name: string }): null => {
      all.set(name, useMixdq(FLOAT));
      return null;
    };
    const showAll = (...names: string[]) => render(names.map((name) => createElement(Named, { name, key: name })));

    test("share an engine in turns, and one that takes another's place takes it over", async () => {
      const paint = hold("brush");
      await showAll("a", "b");
      void all.get("a")!.generate({ prompt: "a's" });
      const mine = all.get("b")!.generate({ prompt: "b's" });
      await settled();
      expect(machine.log).toEqual(["load m fp16", "paint a's"]);
      await showAll("c", "b");
      await act(paint);
      expect(all.get("b")!.image).toBe(await mine);
      await showAll("d");
      expect(all.get("d")!.status).toBe("ready");
      expect(machine.log).toEqual(["load m fp16", "paint a's", "paint b's"]);
    });

    test("share what replaces a lost engine", async () => {
      await showAll("a", "b");
      machine.fault = new MixdqError("device-lost", "The GPU is gone.");
      await act(() => codeOf(all.get("a")!.generate({ prompt: "first" })));
      machine.fault = undefined;
      await act(() => all.get("a")!.generate({ prompt: "second" }));
      expect(machine.log).toEqual(["load m fp16", "paint first", "load m fp16", "paint second"]);
      await showAll("a"); // b held on to the lost one
      await showAll("a", "c");
      expect(all.get("c")!.status).toBe("ready");
      expect(machine.log.slice(4)).toEqual(["dispose m fp16"]);
    });
  });

  test("after device-lost the next picture has another engine", async () => {
    await show(FLOAT);
    machine.fault = new MixdqError("device-lost", "The GPU is gone.");
    expect(await act(() => codeOf(shown.generate({ prompt: "first" })))).toBe("device-lost");
    expect(shown).toMatchObject({ status: "error", error: { code: "device-lost" }, engine: undefined });
    machine.fault = undefined;
    await act(() => shown.generate({ prompt: "second" }));
    expect(shown).toMatchObject({ status: "ready", error: undefined, image: { prompt: "second" } });
    expect(machine.log.join()).toBe("load m fp16,paint first,dispose m fp16,load m fp16,paint second");
  });

  test("after out-of-memory the same engine makes the next, smaller picture", async () => {
    await show(FLOAT);
    machine.fault = new MixdqError("out-of-memory", "Use a smaller size.");
    expect(await act(() => codeOf(shown.generate({ prompt: "first", width: 4096 })))).toBe("out-of-memory");
    expect(shown).toMatchObject({ status: "error", error: { code: "out-of-memory" } });
    machine.fault = undefined;
    await act(() => shown.generate({ prompt: "second", width: 512 }));
    expect(shown).toMatchObject({ status: "ready", error: undefined, image: { prompt: "second" } });
    expect(machine.log.join()).toBe("load m fp16,paint first,paint second");
  });

  test("typing shows pictures where they take less than a second, and always the last prompt", async () => {
    await show(FLOAT);
    vi.useFakeTimers({ toFake: ["performance", "setTimeout"] });
    try {
      for (const [pictureMs, least, most] of [
        [200, 5, 8],
        [5000, 1, 1],
      ] as const) {
        const seen = new Set<string>();
        const note = (): void => void (shown.image && seen.add((shown.image as unknown as { prompt: string }).prompt));
        const paint = (): void => {
          machine.brush = new Promise((resolve) => setTimeout(resolve, pictureMs));
        };
        machine.onPaint = paint;
        const first = shown.generate({ prompt: "the first" }); // of which the engine learns how long they take
        await act(() => vi.advanceTimersByTimeAsync(pictureMs));
        await first;
        const codes: Promise<ErrorCode | "none">[] = [];
        for (let key = 1; key <= 21; key++) {
          codes.push(codeOf(shown.generate({ prompt: `${pictureMs} ${key}` })));
          await act(() => vi.advanceTimersByTimeAsync(40));
          note();
        }
        await act(() => vi.advanceTimersByTimeAsync(2 * pictureMs));
        note();
        seen.delete("the first");
        expect([...seen].at(-1)).toBe(`${pictureMs} 21`);
        expect(seen.size).toBeGreaterThanOrEqual(least);
        expect(seen.size).toBeLessThanOrEqual(most);
        expect(new Set(await Promise.all(codes))).toEqual(new Set(["none", "aborted"]));
        expect(await codes.at(-1)).toBe("none");
        expect(shown.status).toBe("ready");
      }
    } finally {
      vi.useRealTimers();
      machine.onPaint = () => {};
    }
  });

  test("a model that does not load is an error at once, and the next picture tries again", async () => {
    machine.fault = new MixdqError("network", "The host does not answer.");
    await show(FLOAT);
    expect(shown).toMatchObject({ status: "error", error: { code: "network" }, engine: undefined });
    expect(await act(() => codeOf(shown.generate({ prompt: "first" })))).toBe("network");
    expect(shown).toMatchObject({ status: "error", error: { code: "network" } });
    machine.fault = undefined;
    await act(() => shown.generate({ prompt: "second" }));
    expect(shown).toMatchObject({ status: "ready", error: undefined, image: { prompt: "second" } });
    expect(machine.log).toEqual(["load m fp16", "load m fp16", "load m fp16", "paint second"]);
  });

  test("enabled anew after a failure, it loads anew", async () => {
    machine.fault = new MixdqError("network", "The host does not answer.");
    await show(FLOAT);
    await show({ ...FLOAT, enabled: false });
    expect(shown.status).toBe("error");
    machine.fault = undefined;
    const open = hold("gate");
    await show(FLOAT);
    expect(shown).toMatchObject({ status: "loading", error: undefined });
    await act(open);
    expect(shown.status).toBe("ready");
  });

  test("a picture that fails leaves the engine, and what nobody foresaw is a MixdqError, too", async () => {
    await show(FLOAT);
    machine.fault = new TypeError("the brush is broken");
    expect(await act(() => codeOf(shown.generate({ prompt: "first" })))).toBe("invalid-output");
    expect(shown).toMatchObject({ status: "error", engine: { info: { precision: "fp16" } } });
    expect(shown.error).toBeInstanceOf(MixdqError);
    expect(shown.error!.message).toContain("the brush is broken");
    machine.fault = undefined;
    await act(() => shown.generate({ prompt: "second" }));
    expect(machine.log).toEqual(["load m fp16", "paint first", "paint second"]);
  });
});
