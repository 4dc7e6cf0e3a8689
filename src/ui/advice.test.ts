import { afterEach, describe, expect, test, vi } from "vitest";
import type { SupportReason } from "../index.ts";
import { adviceFor, adviceForReasons } from "./advice.ts";

afterEach(() => vi.unstubAllGlobals());

describe.each([true, false])("with a network: %s", (onLine) => {
  const titles = (...codes: SupportReason["code"][]): string => {
    vi.stubGlobal("navigator", { onLine });
    return adviceForReasons(codes.map((code) => ({ code, message: "" }))).title;
  };

  test("an error says offline where the network is the reason, and nowhere else", () => {
    vi.stubGlobal("navigator", { onLine });
    expect(adviceFor("network").title).toBe(onLine ? "The model could not be fetched" : "You are offline");
    expect(adviceFor("unsupported").title).toBe("It cannot run this way here");
    expect(adviceFor("invalid-model").title).toBe("This model cannot be used");
  });

  test("what was found before loading says the same", () => {
    expect(titles("offline")).toBe(onLine ? "The model could not be fetched" : "You are offline");
    expect(titles("network")).toBe("The model could not be fetched");
    expect(titles("model")).toBe("This model cannot be used");
    expect(titles("no-webgpu", "offline")).toBe("This browser has no WebGPU");
    expect(titles("limits")).toBe("It cannot run this way here");
  });
});
