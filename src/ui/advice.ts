/** What the error panel says besides the error's own message: a title, and what a person can do on this page. */
import type { ErrorCode } from "../base/errors.ts";

interface Advice {
  readonly title: string;
  readonly advice: string;
}

export const ADVICE: Record<ErrorCode, Advice> = {
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
    advice: "Check the connection and the model URL under Advanced. Another site must allow this page by CORS.",
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
