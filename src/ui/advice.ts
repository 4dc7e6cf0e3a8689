/** What the error panel says besides the error's own message: a title, and what a person can do on this page. */
import type { ErrorCode } from "../base/errors.ts";
import { isOffline } from "../base/offline.ts";
import type { SupportReason } from "../index.ts";

interface Advice {
  readonly title: string;
  readonly advice: string;
}

const ADVICE: Record<ErrorCode, Advice> = {
  unsupported: {
    title: "It cannot run this way here",
    advice:
      "Try another precision or, under Advanced, other bit widths or another backend; or a current Chrome, Edge, Safari or Firefox.",
  },
  "out-of-memory": {
    title: "Not enough GPU memory",
    advice: "Close other tabs that use the GPU, choose fewer bits or a smaller size, then try again.",
  },
  "device-lost": {
    title: "The GPU was lost",
    advice: "The driver was reset or the tab was put to sleep. Press Generate: the model is loaded again.",
  },
  integrity: {
    title: "A file is damaged",
    advice: "Reload the page to fetch it again; if that does not help, the copy on the server is damaged.",
  },
  network: {
    title: "The model could not be fetched",
    advice: "Check the connection (are you offline?) and the model URL under Advanced, then try again.",
  },
  quota: {
    title: "The browser's storage is full",
    advice: "Free some disk space or remove this site's data in the browser's settings.",
  },
  busy: {
    title: "One picture at a time",
    advice: "Wait for the running picture, or cancel it.",
  },
  aborted: { title: "Cancelled", advice: "" },
  "invalid-input": {
    title: "A setting needs another value",
    advice: "Change it and press Generate again.",
  },
  "invalid-output": {
    title: "The picture came out invalid",
    advice:
      "Try another precision, or another backend under Advanced. ?debug=3 in the address shows where it went wrong.",
  },
  "invalid-model": {
    title: "This model cannot be used",
    advice: "Check the model URL under Advanced; it names a folder with model_index.json in it.",
  },
};

const OFFLINE: Advice = {
  title: "You are offline",
  advice:
    "Connect this device to the network, then press Generate. A picture needs no network once its model is loaded.",
};

/** For an error that has just happened. */
export function adviceFor(code: ErrorCode): Advice {
  return code === "network" && isOffline() ? OFFLINE : ADVICE[code];
}

/** For what checkSupport found; without advice where the reasons' own messages have it. */
export function adviceForReasons(reasons: readonly SupportReason[]): Advice {
  const codes = reasons.map(({ code }) => code);
  if (codes.includes("no-webgpu")) return { title: "This browser has no WebGPU", advice: "" };
  if (codes.every((code) => code === "offline")) return isOffline() ? OFFLINE : ADVICE.network;
  if (codes.every((code) => code === "offline" || code === "network")) return ADVICE.network;
  if (codes.every((code) => code === "model")) return ADVICE["invalid-model"];
  return { title: ADVICE.unsupported.title, advice: "" };
}
