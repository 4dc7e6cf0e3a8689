import { afterEach, expect, test, vi } from "vitest";
import { importing } from "./offline.ts";

afterEach(() => vi.unstubAllGlobals());

test.each([
  "Failed to fetch dynamically imported module: https://host/a.js?t=secret", // Chromium
  "error loading dynamically imported module: https://host/a.js?t=secret", // Firefox
  "Importing a module script failed.", // Safari
])("code that is not fetched is a matter of the network: %s", async (words) => {
  const failed = (): Promise<never> => importing(Promise.reject(new TypeError(words)), "The engine");
  vi.stubGlobal("navigator", { onLine: false });
  await expect(failed()).rejects.toMatchObject({
    code: "network",
    message: "The engine could not be fetched: this device is offline. Connect it and try again.",
  });
  vi.stubGlobal("navigator", { onLine: true });
  await expect(failed()).rejects.toMatchObject({ code: "network", message: expect.stringMatching("Reload the page.") });
  await expect(failed()).rejects.toMatchObject({ message: expect.not.stringMatching("secret") });
});

test("code that fails by itself is left alone", async () => {
  const error = new TypeError("x is not a function");
  await expect(importing(Promise.reject(error), "The engine")).rejects.toBe(error);
  expect(await importing(Promise.resolve(3), "The engine")).toBe(3);
});
