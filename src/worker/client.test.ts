import { afterEach, expect, test, vi } from "vitest";
import { loadInWorker } from "./client.ts";

afterEach(() => vi.unstubAllGlobals());

/** A worker whose script does not arrive: browsers say so by an event without a message. */
class Unstarted extends EventTarget {
  onerror: (event: { message?: string; preventDefault(): void }) => void = () => {};
  constructor() {
    super();
    setTimeout(() => this.onerror({ preventDefault: () => {} }));
  }
  postMessage(): void {}
  start(): void {}
  terminate(): void {}
}

const REQUEST = {
  model: "https://host/m",
  precision: undefined,
  config: undefined,
  backend: "webgpu",
  ortUrl: undefined,
  workerUrl: undefined,
  stallMs: undefined,
  debug: 0,
  parts: {},
} as const;

test("a worker that cannot be fetched without a network says offline, else what to look at", async () => {
  vi.stubGlobal("Worker", Unstarted);
  vi.stubGlobal("navigator", { onLine: false });
  await expect(loadInWorker(REQUEST, {})).rejects.toMatchObject({
    code: "network",
    message: expect.stringMatching("this device is offline. Connect it and try again"),
  });
  vi.stubGlobal("navigator", { onLine: true });
  await expect(loadInWorker(REQUEST, {})).rejects.toMatchObject({
    code: "unsupported",
    message: expect.stringMatching("Content-Security-Policy"),
  });
});
